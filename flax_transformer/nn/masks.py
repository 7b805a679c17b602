"""Attention masks. Boolean, True = may be attended to, is a real token; no mask is ever added to scores.

A mask travels as structure (how many keys of each row are real, causal or not, where the first query stands), because
flash kernels take structure and because a wrong broadcast cannot happen to it. It is written out only where plain
attention asks for it.
"""

import functools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flax_transformer.nn.kernels.distances import DistanceBias
from flax_transformer.nn.segments import segment_mask


def padding_mask(lengths: Int[Array, " batch"], max_length: int) -> Bool[Array, "batch {max_length}"]:
    """True at the real tokens of right-padded rows."""
    return jnp.arange(max_length)[None] < lengths[:, None]


def causal_mask(
    query_length: int, key_length: int, query_offset: int | Int[Array, ""] = 0
) -> Bool[Array, "{query_length} {key_length}"]:
    """True where the key stands at or before the query; the first query stands at ``query_offset``."""
    query_positions = query_offset + jnp.arange(query_length)
    return jnp.arange(key_length)[None] <= query_positions[:, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query may attend to: the conjunction of all that is given.

    Args:
        key_lengths: real keys of each right-padded row; None if all are real.
        causal: no query attends to a key behind it.
        query_offset: position of the first query among the keys, for cached decoding.
        dense: any further mask, True = may attend, broadcastable to (batch, heads, queries, keys).
        bias: added to the scores of attention, broadcastable to (batch, heads, queries, keys).
        query_segments: of packed rows, the segment of each query; None if a row is one example.
        key_segments: the segment of each key, where queries have theirs.
    """

    key_lengths: Int[Array, " batch"] | None = None
    # It decides what is compiled, so it belongs to the structure of the tree and is not a leaf of it.
    causal: bool = field(default=False, metadata={"static": True})
    query_offset: int | Int[Array, ""] = 0
    dense: Bool[Array, "..."] | None = None
    bias: Float[Array, "..."] | DistanceBias | None = None
    query_segments: Int[Array, "batch queries"] | None = None
    key_segments: Int[Array, "batch keys"] | None = None

    def materialize(self, query_length: int, key_length: int) -> Bool[Array, "#batch #heads #queries #keys"] | None:
        """The whole mask, broadcastable to (batch, heads, queries, keys); None where nothing is masked."""
        parts = []
        if self.key_lengths is not None:
            parts.append(padding_mask(self.key_lengths, key_length)[:, None, None, :])
        if self.causal:
            parts.append(causal_mask(query_length, key_length, self.query_offset)[None, None])
        if self.query_segments is not None and self.key_segments is not None:
            parts.append(segment_mask(self.query_segments, self.key_segments)[:, None])
        if self.dense is not None:
            parts.append(self.dense)
        return functools.reduce(jnp.logical_and, parts) if parts else None
