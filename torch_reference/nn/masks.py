"""Attention masks. Boolean, True = may be attended to, is a real token: torch.nn's own modules mean the opposite.

A mask travels as structure (how many keys of each row are real, causal or not, where the first query stands), as in the
JAX twin, and is written out where attention asks for it.
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_reference.nn.segments import segment_mask


def padding_mask(lengths: Int[Tensor, " batch"], max_length: int) -> Bool[Tensor, "batch {max_length}"]:
    """True at the real tokens of right-padded rows."""
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]


def causal_mask(
    query_length: int, key_length: int, query_offset: int = 0, device: torch.device | None = None
) -> Bool[Tensor, "{query_length} {key_length}"]:
    """True where the key stands at or before the query; the first query stands at ``query_offset``."""
    query_positions = query_offset + torch.arange(query_length, device=device)
    return torch.arange(key_length, device=device) <= query_positions[:, None]


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

    key_lengths: Int[Tensor, " batch"] | None = None
    causal: bool = False
    query_offset: int = 0
    dense: Bool[Tensor, "..."] | None = None
    bias: Float[Tensor, "..."] | None = None
    query_segments: Int[Tensor, "batch queries"] | None = None
    key_segments: Int[Tensor, "batch keys"] | None = None

    def materialize(
        self, query_length: int, key_length: int, device: torch.device | None = None
    ) -> Bool[Tensor, "#batch #heads #queries #keys"] | None:
        """The whole mask, broadcastable to (batch, heads, queries, keys); None where nothing is masked."""
        parts = []
        if self.key_lengths is not None:
            parts.append(padding_mask(self.key_lengths, key_length)[:, None, None, :])
        if self.causal:
            parts.append(causal_mask(query_length, key_length, self.query_offset, device)[None, None])
        if self.query_segments is not None and self.key_segments is not None:
            parts.append(segment_mask(self.query_segments, self.key_segments)[:, None])
        if self.dense is not None:
            parts.append(self.dense)
        return functools.reduce(torch.logical_and, parts) if parts else None
