"""Beam search: the most probable outputs that a bounded number of hypotheses finds (Wu et al., 2016, section 7)."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flax_transformer.config import GenerationConfig
from torch_reference.decoding.step import NextToken, Outputs
from torch_reference.dtypes import compute_dtype


class Complete(NamedTuple):
    """The best complete outputs of each source so far, best first; score -inf where there are not as many."""

    sequences: Int[Tensor, "batch width positions"]
    lengths: Int[Tensor, "batch width"]
    scores: Float[Tensor, "batch width"]


class Beams(NamedTuple):
    """The state of the search. ``sums`` are the log-probabilities of outputs under way; -inf: nothing to pursue."""

    step: int
    outputs: Outputs  # batch * width rows
    sums: Float[Tensor, "batch width"]
    complete: Complete


def length_penalty(length: int, config: GenerationConfig) -> float:
    """What the log-probability of an output of ``length`` tokens is divided by; it grows with the length.

    ``((5 + n) / 6)^alpha`` (Wu et al., 2016, equation 14), or ``n^alpha``, whose alpha = 1 is the mean per token.
    """
    base = (5 + length) / 6 if config.length_penalty == "gnmt" else length
    return base**config.length_alpha


def beam_search(next_token: NextToken, has_source: Bool[Tensor, " batch"]) -> Complete:
    """Pursue ``beam_width`` outputs of each source and return the best complete ones.

    Complete is an output that ends with the end token, or has as many tokens as it may. At each step the best
    ``2 * beam_width`` continuations are looked at, since half of them at most end. One that ends is kept if it is
    among the first ``beam_width``; of the others the best ``beam_width`` are pursued.
    """
    width, limit = next_token.config.beam_width, next_token.config.max_new_tokens
    beams = _start(next_token, has_source, width)
    while beams.step < limit and (beams.sums > -torch.inf).any():
        beams = _extend(beams, next_token)
    # What is still under way here has reached the limit.
    sequences = beams.outputs.sequences.reshape(*beams.sums.shape, -1)
    return _keep_best(beams.complete, _score(sequences, beams.sums, limit, next_token.config))


def _start(next_token: NextToken, has_source: Bool[Tensor, " batch"], width: int) -> Beams:
    """One hypothesis for each source, the begin token: the others would only repeat it."""
    outputs = next_token.start()
    sequences = outputs.sequences.reshape(-1, width, outputs.sequences.shape[1])
    # At least float32, as the log-probabilities are.
    dtype = torch.promote_types(compute_dtype(next_token.model.config), torch.float32)
    is_pursued = has_source[:, None] & (torch.arange(width, device=next_token.device) == 0)
    sums = torch.where(is_pursued, 0.0, -torch.inf).to(dtype)
    nothing = Complete(sequences, torch.zeros_like(sums, dtype=torch.long), torch.full_like(sums, -torch.inf))
    return Beams(0, outputs, sums, nothing)


def _extend(beams: Beams, next_token: NextToken) -> Beams:
    """Every hypothesis grows by a token, or is complete, or is given up."""
    config, width = next_token.config, next_token.config.beam_width
    log_probabilities, outputs = next_token.score(beams.outputs, beams.step)
    totals = beams.sums[:, :, None] + log_probabilities.reshape(*beams.sums.shape, -1)
    sums, places = totals.reshape(len(totals), -1).topk(2 * width)  # (batch, 2 * width)
    parents, tokens = places // next_token.vocab_size, places % next_token.vocab_size
    ends = tokens == next_token.model.config.eos_id

    sequences = outputs.sequences.reshape(*beams.sums.shape, -1)
    sequences = sequences.take_along_dim(parents[:, :, None], dim=1)
    sequences[:, :, beams.step + 1] = tokens
    is_complete = ends & (torch.arange(2 * width, device=next_token.device) < width)
    candidates = _score(sequences, torch.where(is_complete, sums, -torch.inf), beams.step + 1, config)
    complete = _keep_best(beams.complete, candidates)

    sums, chosen = torch.where(ends, -torch.inf, sums).topk(width)
    parents, tokens = (x.gather(1, chosen) for x in (parents, tokens))
    rows = (torch.arange(len(parents), device=next_token.device)[:, None] * width + parents).reshape(-1)
    outputs = next_token.append(outputs.map(lambda tensor: tensor[rows]), tokens.reshape(-1), beams.step)
    sums = torch.where(_is_done(complete, sums, config)[:, None], -torch.inf, sums)
    return Beams(beams.step + 1, outputs, sums, complete)


def _score(
    sequences: Int[Tensor, "batch n positions"], sums: Float[Tensor, "batch n"], length: int, config: GenerationConfig
) -> Complete:
    """Outputs of ``length`` tokens, as complete ones."""
    lengths = torch.full_like(sums, length, dtype=torch.long)
    return Complete(sequences, lengths, sums / length_penalty(length, config))


def _keep_best(complete: Complete, candidates: Complete) -> Complete:
    """As many of both together as there are places in ``complete``."""
    both = Complete(*(torch.cat(pair, dim=1) for pair in zip(complete, candidates, strict=True)))
    scores, chosen = both.scores.topk(complete.scores.shape[1])
    return Complete(
        both.sequences.take_along_dim(chosen[:, :, None], dim=1),
        both.lengths.gather(1, chosen),
        scores,
    )


def _is_done(
    complete: Complete, sums: Float[Tensor, "batch width"], config: GenerationConfig
) -> Bool[Tensor, " batch"]:
    """Whether a search may end: see ``GenerationConfig.early_stopping``."""
    if config.early_stopping:
        return complete.scores[:, -1] > -torch.inf
    # Log-probabilities only fall and the penalty only grows, so no score can exceed this one.
    attainable = sums.amax(dim=1) / length_penalty(config.max_new_tokens, config)
    return complete.scores[:, config.n_best - 1] >= attainable
