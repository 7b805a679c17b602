"""Pooling: one vector for each text, out of those of its tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flax_transformer.config import Pooling
from flax_transformer.nn.masks import padding_mask
from flax_transformer.nn.segments import starts_segment

# How many tokens of each row are real; None where all are, which lets attention go without a mask.
Lengths = Int[Array, " batch"] | None


@jax.named_scope("pool")
def pool(x: Float[Array, "batch length d_model"], lengths: Lengths, pooling: Pooling) -> Float[Array, "batch d_model"]:
    """Sum up the real tokens of each row: their mean or maximum, or the first. A row without any gives zeros."""
    if lengths is None:
        lengths = jnp.full(x.shape[:1], x.shape[1])
    real = padding_mask(lengths, x.shape[1])[:, :, None]
    match pooling:
        case "mean":
            return jnp.where(real, x, 0).sum(axis=1) / jnp.maximum(lengths, 1)[:, None].astype(x.dtype)
        case "max":
            # The gradient goes by place. That of jnp.max goes to where x equals its maximum, and XLA on CPU may compute
            # x anew for that comparison, rounded otherwise, so that nothing is equal and the gradient is lost.
            place = jnp.argmax(jnp.where(real, x, -jnp.inf), axis=1)
            pooled = jnp.where(jax.nn.one_hot(place, x.shape[1], axis=1, dtype=bool), x, 0).sum(axis=1)
        case "first":
            pooled = x[:, 0]
    return jnp.where((lengths > 0)[:, None], pooled, 0)


@jax.named_scope("pool_segments")
def pool_segments(
    x: Float[Array, "batch length d_model"], segments: Int[Array, "batch length"], count: int, pooling: Pooling
) -> Float[Array, "batch {count} d_model"]:
    """Sum up the first ``count`` segments of each row: the mean or maximum of each, or its first token.

    A segment that a row does not have gives zeros.
    """
    own = segments[:, None] == jnp.arange(1, count + 1)[None, :, None]  # (batch, count, length)
    lengths = own.sum(axis=2)
    tokens = x[:, None]
    match pooling:
        case "mean":
            total = jnp.where(own[..., None], tokens, 0).sum(axis=2)
            return total / jnp.maximum(lengths, 1)[..., None].astype(x.dtype)
        case "max":
            # The gradient goes by place, as above.
            place = jnp.argmax(jnp.where(own[..., None], tokens, -jnp.inf), axis=2)
            chosen = jax.nn.one_hot(place, x.shape[1], axis=2, dtype=bool)
        case "first":
            chosen = jnp.logical_and(own, starts_segment(segments)[:, None])[..., None]
    return jnp.where((lengths > 0)[..., None], jnp.where(chosen, tokens, 0).sum(axis=2), 0)
