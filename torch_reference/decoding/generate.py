"""Generation over one key-value cache: the work for a token does not grow with a re-run of the tokens before it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flax_transformer.config import GenerationConfig
from flax_transformer.data.copying import Copying
from flax_transformer.data.generation import Constraint, check_request, uniform_draws
from flax_transformer.errors import UserError
from torch_reference.decoding.beam import beam_search
from torch_reference.decoding.step import NextToken, draw_tokens, most_probable_tokens
from torch_reference.dtypes import compute_dtype
from torch_reference.nn.models import Seq2Seq


class Generation(NamedTuple):
    """What was generated, without the begin token. The ``n_best`` outputs of a source are adjacent rows, best first.

    ``tokens`` hold the end token and padding behind it, ``lengths`` count the end token. ``scores`` are the sums of the
    log-probabilities, of beam search divided by the length penalty. A row without source has no tokens; nor have those
    of ``n_best`` rows that the search did not find, whose score is -inf.
    """

    tokens: Int[Tensor, "rows limit"]
    lengths: Int[Tensor, " rows"]
    scores: Float[Tensor, " rows"]
    # by the end token; otherwise by the limit
    stopped_by_eos: Bool[Tensor, " rows"]


@torch.inference_mode()
def generate(
    model: Seq2Seq,
    source: Int[Tensor, "batch source"],
    source_lengths: Int[Tensor, " batch"] | None = None,
    config: GenerationConfig | None = None,
    *,
    constraint: Constraint | None = None,
    copying: Copying | None = None,
    row_seeds: Sequence[int] | None = None,
) -> Generation:
    """An output for each source, token by token, until each has ended or reached the limit.

    Args:
        model: in evaluation mode.
        source: token ids, (batch, source), right-padded.
        source_lengths: real tokens of each source, (batch,); None where all are real. A row of length 0 is filler.
        config: how to generate; greedily, up to the model's max_length, if not given.
        constraint: what outputs may look like.
        copying: which of their values only quote the source.
        row_seeds: a row's draws follow from ``config.seed`` and its own seed, which is its index if not given.

    Raises:
        UserError: anything that :func:`flax_transformer.data.generation.check_request` finds wrong, or the model is in
            training mode, where it would drop out at random.

    Example:
        >>> from torch_reference.nn.models import ModelConfig, create_model
        >>> config = ModelConfig(d_model=8, d_ff=16, num_encoder_layers=1, num_decoder_layers=1)
        >>> model = create_model(config).eval()
        >>> generate(model, torch.tensor([[5, 6, 7]]), config=GenerationConfig(max_new_tokens=4)).tokens.shape
        torch.Size([1, 4])
    """
    if model.training:
        raise UserError("expected a model in evaluation mode to generate with, got training mode; call model.eval()")
    if source_lengths is None:
        source_lengths = torch.full((len(source),), source.shape[-1], device=source.device)
    config = GenerationConfig(model.config.max_length) if config is None else config
    check_request(model.config, source.numpy(force=True), source_lengths.numpy(force=True), config, constraint, copying)
    draws = None
    if config.strategy == "sample":
        rows = range(len(source)) if row_seeds is None else row_seeds
        draws = torch.as_tensor(uniform_draws(config.seed, rows, config.max_new_tokens), device=source.device)
    beams = config.beam_width if config.strategy == "beam" else 1
    next_token = NextToken(model, source, source_lengths, config, constraint, copying, beams)
    if config.strategy == "beam":
        best = beam_search(next_token, source_lengths > 0)
        sequences, lengths, scores = (leaf[:, : config.n_best].flatten(0, 1) for leaf in best)
    else:
        sequences, lengths, scores = _one_by_one(next_token, source_lengths > 0, draws)
    return _finish(sequences[:, 1:], lengths, scores, model.config.pad_id, model.config.eos_id)


def read_tokens(generation: Generation) -> list[list[int]]:
    """The token ids of each row, without the end token.

    Raises:
        UserError: a score is not a number, so the model's logits were not.
    """
    tokens, lengths, scores, stopped_by_eos = generation
    if scores.isnan().any():
        raise UserError(
            f"the model's logits are not finite (row {int(scores.isnan().int().argmax())}); are its weights?"
        )
    return [row[:end].tolist() for row, end in zip(tokens, lengths - stopped_by_eos.int(), strict=True)]


def _one_by_one(
    next_token: NextToken, has_source: Bool[Tensor, " rows"], draws: Float[Tensor, "rows limit"] | None
) -> tuple[Int[Tensor, "rows positions"], Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Sequences, lengths and scores, each token the most probable one, or drawn where there are draws."""
    config, model = next_token.config, next_token.model.config
    outputs = next_token.start()
    lengths = torch.zeros(has_source.shape, dtype=torch.long, device=next_token.device)
    dtype = torch.promote_types(compute_dtype(model), torch.float32)
    scores = torch.zeros(has_source.shape, dtype=dtype, device=next_token.device)
    finished = ~has_source
    for step in range(config.max_new_tokens):
        if finished.all():
            break
        log_probabilities, outputs = next_token.score(outputs, step)
        if draws is None:
            tokens, gains = most_probable_tokens(log_probabilities)
        else:
            tokens = draw_tokens(log_probabilities, draws[:, step], config)
            gains = log_probabilities.gather(1, tokens[:, None])[:, 0]
        tokens = torch.where(finished, model.pad_id, tokens)
        outputs = next_token.append(outputs, tokens, step)
        lengths += ~finished
        scores += torch.where(finished, 0, gains)
        finished |= tokens == model.eos_id
    return outputs.sequences, lengths, scores


def _finish(
    tokens: Int[Tensor, "rows limit"],
    lengths: Int[Tensor, " rows"],
    scores: Float[Tensor, " rows"],
    pad_id: int,
    eos_id: int,
) -> Generation:
    """Say why each row stopped. A hypothesis that beam search did not find has neither tokens nor length."""
    lengths = torch.where(scores == -torch.inf, 0, lengths)
    tokens = torch.where(torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None], tokens, pad_id)
    last = tokens.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    return Generation(tokens, lengths, scores, (lengths > 0) & (last == eos_id))
