"""Beam search: the most probable outputs that a bounded number of hypotheses finds (Wu et al., 2016, section 7)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flax_transformer.config import GenerationConfig
from flax_transformer.decoding.step import NextToken, Outputs


class Complete(NamedTuple):
    """The best complete outputs of each source so far, best first; score -inf where there are not as many."""

    sequences: Int[Array, "batch width positions"]
    lengths: Int[Array, "batch width"]
    scores: Float[Array, "batch width"]


class Beams(NamedTuple):
    """The state of the search. ``sums`` are the log-probabilities of outputs under way; -inf: nothing to pursue."""

    step: Int[Array, ""]
    outputs: Outputs  # batch * width rows
    sums: Float[Array, "batch width"]
    complete: Complete


def length_penalty(length: Float[Array, ""], config: GenerationConfig) -> Float[Array, ""]:
    """What the log-probability of an output of ``length`` tokens is divided by; it grows with the length.

    ``((5 + n) / 6)^alpha`` (Wu et al., 2016, equation 14), or ``n^alpha``, whose alpha = 1 is the mean per token.
    """
    base = (5 + length) / 6 if config.length_penalty == "gnmt" else length
    return base**config.length_alpha


def beam_search(next_token: NextToken, has_source: Bool[Array, " batch"]) -> Complete:
    """Pursue ``beam_width`` outputs of each source and return the best complete ones.

    Complete is an output that ends with the end token, or has as many tokens as it may. At each step the best
    ``2 * beam_width`` continuations are looked at, since half of them at most end. One that ends is kept if it is
    among the first ``beam_width``; of the others the best ``beam_width`` are pursued.
    """
    width, limit = next_token.config.beam_width, next_token.config.max_new_tokens

    def unfinished(beams: Beams) -> Bool[Array, ""]:
        return (beams.step < limit) & jnp.any(beams.sums > -jnp.inf)

    start = _start(next_token, has_source, width)
    end = jax.lax.while_loop(unfinished, lambda beams: _extend(beams, next_token), start)
    # What is still under way here has reached the limit.
    sequences = end.outputs.sequences.reshape(*end.sums.shape, -1)
    return _keep_best(end.complete, _score(sequences, end.sums, jnp.int32(limit), next_token.config))


def _start(next_token: NextToken, has_source: Bool[Array, " batch"], width: int) -> Beams:
    """One hypothesis for each source, the begin token: the others would only repeat it."""
    outputs = next_token.start()
    sequences = outputs.sequences.reshape(-1, width, outputs.sequences.shape[1])
    # At least float32, as the log-probabilities are.
    dtype = jnp.promote_types(next_token.model.config.dtype, jnp.float32)
    is_pursued = has_source[:, None] & (jnp.arange(width) == 0)[None]
    sums = jnp.where(is_pursued, jnp.zeros((), dtype), -jnp.inf)
    nothing = Complete(sequences, jnp.zeros(sums.shape, jnp.int32), jnp.full(sums.shape, -jnp.inf, dtype))
    return Beams(jnp.zeros((), jnp.int32), outputs, sums, nothing)


def _extend(beams: Beams, next_token: NextToken) -> Beams:
    """Every hypothesis grows by a token, or is complete, or is given up."""
    config, width = next_token.config, next_token.config.beam_width
    log_probabilities, outputs = next_token.score(beams.outputs, beams.step)
    totals = beams.sums[:, :, None] + log_probabilities.reshape(*beams.sums.shape, -1)
    sums, places = jax.lax.top_k(totals.reshape(len(totals), -1), 2 * width)  # (batch, 2 * width)
    parents, tokens = places // next_token.vocab_size, (places % next_token.vocab_size).astype(jnp.int32)
    ends = tokens == next_token.model.config.eos_id

    sequences = outputs.sequences.reshape(*beams.sums.shape, -1)
    sequences = jnp.take_along_axis(sequences, parents[:, :, None], axis=1)
    sequences = jax.lax.dynamic_update_slice_in_dim(sequences, tokens[:, :, None], beams.step + 1, axis=2)
    is_complete = ends & (jnp.arange(2 * width) < width)[None]
    candidates = _score(sequences, jnp.where(is_complete, sums, -jnp.inf), beams.step + 1, config)
    complete = _keep_best(beams.complete, candidates)

    sums, chosen = jax.lax.top_k(jnp.where(ends, -jnp.inf, sums), width)
    parents, tokens = (jnp.take_along_axis(x, chosen, axis=1) for x in (parents, tokens))
    rows = (jnp.arange(len(parents))[:, None] * width + parents).reshape(-1)
    outputs = next_token.append(jax.tree.map(lambda leaf: leaf[rows], outputs), tokens.reshape(-1), beams.step)
    sums = jnp.where(_is_done(complete, sums, config)[:, None], -jnp.inf, sums)
    return Beams(beams.step + 1, outputs, sums, complete)


def _score(
    sequences: Int[Array, "batch n positions"],
    sums: Float[Array, "batch n"],
    length: Int[Array, ""],
    config: GenerationConfig,
) -> Complete:
    """Outputs of ``length`` tokens, as complete ones."""
    penalty = length_penalty(length.astype(sums.dtype), config)
    return Complete(sequences, jnp.full(sums.shape, length), sums / penalty)


def _keep_best(complete: Complete, candidates: Complete) -> Complete:
    """As many of both together as there are places in ``complete``."""
    both = jax.tree.map(lambda one, other: jnp.concatenate([one, other], axis=1), complete, candidates)
    scores, chosen = jax.lax.top_k(both.scores, complete.scores.shape[1])
    return Complete(
        jnp.take_along_axis(both.sequences, chosen[:, :, None], axis=1),
        jnp.take_along_axis(both.lengths, chosen, axis=1),
        scores,
    )


def _is_done(complete: Complete, sums: Float[Array, "batch width"], config: GenerationConfig) -> Bool[Array, " batch"]:
    """Whether a search may end: see ``GenerationConfig.early_stopping``."""
    if config.early_stopping:
        return complete.scores[:, -1] > -jnp.inf
    # Log-probabilities only fall and the penalty only grows, so no score can exceed this one.
    limit = jnp.asarray(config.max_new_tokens, sums.dtype)
    attainable = sums.max(axis=1) / length_penalty(limit, config)
    return complete.scores[:, config.n_best - 1] >= attainable
