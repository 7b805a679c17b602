"""Generation over one key-value cache: the work for a token does not grow with a re-run of the tokens before it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flax_transformer.config import GenerationConfig
from flax_transformer.data.copying import Copying
from flax_transformer.data.generation import Constraint, check_request, padded_width, uniform_draws
from flax_transformer.decoding.beam import beam_search
from flax_transformer.decoding.step import NextToken, Outputs, draw_tokens, most_probable_tokens
from flax_transformer.errors import UserError
from flax_transformer.nn.models import Seq2Seq


class Generation(NamedTuple):
    """What was generated, without the begin token. The ``n_best`` outputs of a source are adjacent rows, best first.

    ``tokens`` hold the end token and padding behind it, ``lengths`` count the end token. ``scores`` are the sums of the
    log-probabilities, of beam search divided by the length penalty. A row without source has no tokens; nor have those
    of ``n_best`` rows that the search did not find, whose score is -inf.
    """

    tokens: Int[Array, "rows limit"]
    lengths: Int[Array, " rows"]
    scores: Float[Array, " rows"]
    # by the end token; otherwise by the limit
    stopped_by_eos: Bool[Array, " rows"]


def generate(
    model: Seq2Seq,
    source: Int[np.ndarray | Array, "batch source"],
    source_lengths: Int[np.ndarray | Array, " batch"] | None = None,
    config: GenerationConfig | None = None,
    *,
    constraint: Constraint | None = None,
    copying: Copying | None = None,
    row_seeds: Sequence[int] | None = None,
) -> Generation:
    """An output for each source, token by token, until each has ended or reached the limit.

    Compiled once for each batch size, each config (whatever its seed) and each of few widths, to which sources are
    padded. Dispatched, not waited for: whoever reads the result waits.

    Args:
        model: it generates without dropout.
        source: token ids, (batch, source), right-padded.
        source_lengths: real tokens of each source, (batch,); None where all are real. A row of length 0 is filler.
        config: how to generate; greedily, up to the model's max_length, if not given.
        constraint: what outputs may look like.
        copying: which of their values only quote the source.
        row_seeds: a row's draws follow from ``config.seed`` and its own seed, which is its index if not given.

    Raises:
        UserError: anything that :func:`flax_transformer.data.generation.check_request` finds wrong.

    Example:
        >>> from flax_transformer import ModelConfig, create_model
        >>> model = create_model(ModelConfig(d_model=8, d_ff=16, num_encoder_layers=1, num_decoder_layers=1))
        >>> generate(model, np.array([[5, 6, 7]]), config=GenerationConfig(max_new_tokens=4)).tokens.shape
        (1, 4)
    """
    ids = np.asarray(source)
    lengths = np.full(len(ids), ids.shape[-1], np.int32) if source_lengths is None else np.asarray(source_lengths)
    config = GenerationConfig(model.config.max_length) if config is None else config
    check_request(model.config, ids, lengths, config, constraint, copying)
    width = padded_width(ids.shape[1], model.config.max_length)
    ids = np.pad(ids, ((0, 0), (0, width - ids.shape[1])), constant_values=model.config.pad_id)
    draws = None
    if config.strategy == "sample":
        rows = range(len(ids)) if row_seeds is None else row_seeds
        draws = uniform_draws(config.seed, rows, config.max_new_tokens)
    return _generate(model, ids, lengths, dataclasses.replace(config, seed=0), draws, constraint, copying)


def read_tokens(generation: Generation) -> list[list[int]]:
    """The token ids of each row on the host, without the end token.

    Raises:
        UserError: a score is not a number, so the model's logits were not.
    """
    tokens, lengths, scores, stopped_by_eos = jax.device_get(generation)
    if np.isnan(scores).any():
        raise UserError(f"the model's logits are not finite (row {np.isnan(scores).argmax()}); are its weights?")
    return [row[:end].tolist() for row, end in zip(tokens, lengths - stopped_by_eos, strict=True)]


# A module is a pytree, and jax.jit takes it apart several times as fast as nnx.split does.
@functools.partial(jax.jit, static_argnames="config")
def _generate(
    model: Seq2Seq,
    source: Int[Array, "batch source"],
    source_lengths: Int[Array, " batch"],
    config: GenerationConfig,
    draws: Float[Array, "batch limit"] | None,
    constraint: Constraint | None,
    copying: Copying | None,
) -> Generation:
    beams = config.beam_width if config.strategy == "beam" else 1
    next_token = NextToken(model, source, source_lengths, config, constraint, copying, beams)
    if config.strategy == "beam":
        best = jax.tree.map(
            lambda leaf: leaf[:, : config.n_best].reshape(-1, *leaf.shape[2:]),
            beam_search(next_token, source_lengths > 0),
        )
        sequences, lengths, scores = best
    else:
        sequences, lengths, scores = _one_by_one(next_token, source_lengths > 0, draws)
    return _finish(sequences[:, 1:], lengths, scores, model.config.pad_id, model.config.eos_id)


class _Loop(NamedTuple):
    step: Int[Array, ""]
    outputs: Outputs
    lengths: Int[Array, " rows"]
    scores: Float[Array, " rows"]
    finished: Bool[Array, " rows"]


def _one_by_one(
    next_token: NextToken, has_source: Bool[Array, " rows"], draws: Float[Array, "rows limit"] | None
) -> tuple[Int[Array, "rows positions"], Int[Array, " rows"], Float[Array, " rows"]]:
    """Sequences, lengths and scores, each token the most probable one, or drawn where there are draws."""
    config, model = next_token.config, next_token.model.config

    def unfinished(loop: _Loop) -> Bool[Array, ""]:
        return (loop.step < config.max_new_tokens) & ~loop.finished.all()

    def extend(loop: _Loop) -> _Loop:
        log_probabilities, outputs = next_token.score(loop.outputs, loop.step)
        if draws is None:
            tokens, gains = most_probable_tokens(log_probabilities)
        else:
            tokens = draw_tokens(log_probabilities, draws[:, loop.step], config)
            gains = jnp.take_along_axis(log_probabilities, tokens[:, None], axis=-1)[:, 0]
        tokens = jnp.where(loop.finished, model.pad_id, tokens)
        return _Loop(
            step=loop.step + 1,
            outputs=next_token.append(outputs, tokens, loop.step),
            lengths=loop.lengths + ~loop.finished,
            scores=loop.scores + jnp.where(loop.finished, 0, gains),
            finished=loop.finished | (tokens == model.eos_id),
        )

    start = _Loop(
        step=jnp.zeros((), jnp.int32),
        outputs=next_token.start(),
        lengths=jnp.zeros(has_source.shape, jnp.int32),
        scores=jnp.zeros(has_source.shape, jnp.promote_types(model.dtype, jnp.float32)),
        finished=~has_source,
    )
    end = jax.lax.while_loop(unfinished, extend, start)
    return end.outputs.sequences, end.lengths, end.scores


def _finish(
    tokens: Int[Array, "rows limit"],
    lengths: Int[Array, " rows"],
    scores: Float[Array, " rows"],
    pad_id: int,
    eos_id: int,
) -> Generation:
    """Say why each row stopped. A hypothesis that beam search did not find has neither tokens nor length."""
    lengths = jnp.where(scores == -jnp.inf, 0, lengths)
    tokens = jnp.where(jnp.arange(tokens.shape[1])[None] < lengths[:, None], tokens, pad_id)
    last = jnp.take_along_axis(tokens, jnp.maximum(lengths - 1, 0)[:, None], axis=1)[:, 0]
    return Generation(tokens, lengths, scores, (lengths > 0) & (last == eos_id))
