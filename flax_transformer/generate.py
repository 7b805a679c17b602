"""Decoding over one key-value cache: the work for a token does not grow with a re-run of the tokens before it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flax_transformer.config import GenerationConfig
from flax_transformer.errors import UserError
from flax_transformer.models import Seq2Seq


class Generation(NamedTuple):
    """What was generated for each row, without the begin token."""

    tokens: Int[Array, "batch new"]
    lengths: Int[Array, " batch"]
    scores: Float[Array, " batch"]
    stopped_by_eos: Bool[Array, " batch"]


def generate(
    model: Seq2Seq,
    source: Int[Array, "batch source"],
    source_lengths: Int[Array, " batch"],
    config: GenerationConfig,
) -> Generation:
    """The target of each source, greedily: at each step the most probable token, until the end token or the limit.

    Returns:
        Tokens (the end token included, padding behind it), their number, the sum of their log-probabilities, and whether
        the end token was reached.

    Raises:
        UserError: more new tokens are asked for than the model has positions.
    """
    if config.max_new_tokens > model.config.max_length:
        raise UserError(
            f"max_new_tokens: expected at most the model's max_length={model.config.max_length}, got {config.max_new_tokens}"
        )
    graph, params = nnx.split(model)
    return _greedy(graph, params, source, source_lengths, config)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _greedy(
    graph: nnx.GraphDef, params: nnx.State, source: Array, source_lengths: Array, config: GenerationConfig
) -> Generation:
    model = nnx.merge(graph, params)
    batch, limit = source.shape[0], config.max_new_tokens
    memory = model.decoder.project_memory(model.encode(source, source_lengths))

    class Loop(NamedTuple):
        step: Array
        last: Array  # (batch, 1), the newest token of each row
        tokens: Array  # (batch, limit)
        lengths: Array
        scores: Array
        finished: Array
        cache: list

    def unfinished(loop: Loop) -> Array:
        return (loop.step < limit) & ~loop.finished.all()

    def extend(loop: Loop) -> Loop:
        logits, cache = model.decode(loop.last, memory, source_lengths, offset=loop.step, cache=loop.cache)
        log_probabilities = jax.nn.log_softmax(logits[:, 0].astype(loop.scores.dtype))
        chosen = jnp.argmax(log_probabilities, axis=-1)
        gained = jnp.take_along_axis(log_probabilities, chosen[:, None], axis=-1)[:, 0]
        token = jnp.where(loop.finished, model.config.pad_id, chosen).astype(jnp.int32)
        return Loop(
            step=loop.step + 1,
            last=token[:, None],
            tokens=jax.lax.dynamic_update_slice_in_dim(loop.tokens, token[:, None], loop.step, axis=1),
            lengths=loop.lengths + ~loop.finished,
            scores=loop.scores + jnp.where(loop.finished, 0, gained),
            finished=loop.finished | (token == model.config.eos_id),
            cache=cache,
        )

    start = Loop(
        step=jnp.zeros((), jnp.int32),
        last=jnp.full((batch, 1), model.config.bos_id, jnp.int32),
        tokens=jnp.full((batch, limit), model.config.pad_id, jnp.int32),
        lengths=jnp.zeros(batch, jnp.int32),
        scores=jnp.zeros(batch, jnp.promote_types(model.config.dtype, jnp.float32)),
        # A filler row has no source; it would only keep the loop going.
        finished=source_lengths == 0,
        cache=model.empty_cache(batch, limit),
    )
    end = jax.lax.while_loop(unfinished, extend, start)
    return Generation(end.tokens, end.lengths, end.scores, end.finished & (end.lengths > 0))
