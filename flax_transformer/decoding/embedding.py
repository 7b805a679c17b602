"""Texts as vectors, for search and comparison: what an encoder makes of their tokens."""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import Pooling
from flax_transformer.nn.models import Model
from flax_transformer.nn.pooling import pool


@functools.partial(nnx.jit, static_argnames="pooling")
def embed(
    model: Model,
    source: Int[Array, "batch source"],
    source_lengths: Int[Array, " batch"],
    pooling: Pooling,
) -> Float[Array, "batch d_model"]:
    """The pooled output of the encoder, scaled to length 1 (Reimers and Gurevych, 2019).

    Args:
        source: token ids, (batch, source), right-padded.
        source_lengths: real tokens of each row, (batch,).
        pooling: over the real tokens of a row.

    Returns:
        (batch, d_model). The dot product of two rows is the cosine of the angle between them.
    """
    pooled = pool(model.encode(source, source_lengths), source_lengths, pooling)
    length = jnp.linalg.norm(pooled, axis=-1, keepdims=True)
    return pooled / jnp.maximum(length, 1e-12)
