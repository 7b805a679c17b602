"""Segments of packed rows: several examples in one row, told apart by ids (Krell et al., 2021, section 3.2).

The ids of a row count up from 1, and each stands for one run of tokens; 0 is padding, at the end of the row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def segment_mask(
    query_segments: Int[Array, "batch queries"], key_segments: Int[Array, "batch keys"]
) -> Bool[Array, "batch queries keys"]:
    """True where query and key belong to the same segment, and to none of padding."""
    is_same = query_segments[:, :, None] == key_segments[:, None, :]
    return jnp.logical_and(is_same, (query_segments > 0)[:, :, None])


def starts_segment(segments: Int[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """True at the first token of each segment."""
    before = jnp.pad(segments, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    return segments != before


def since_start(
    values: Int[Array, "#batch length"], segments: Int[Array, "batch length"]
) -> Int[Array, "batch length"]:
    """How far ``values``, which never fall along a row, have risen since the first token of their segment."""
    at_start = jnp.where(starts_segment(segments), values, 0)
    return values - jax.lax.cummax(at_start, axis=1)


def segment_positions(segments: Int[Array, "batch length"]) -> Int[Array, "batch length"]:
    """The position of each token in its own segment, from 0."""
    return since_start(jnp.arange(segments.shape[1], dtype=segments.dtype)[None], segments)
