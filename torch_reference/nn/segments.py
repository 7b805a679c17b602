"""Segments of packed rows: several examples in one row, told apart by ids (Krell et al., 2021, section 3.2).

The ids of a row count up from 1, and each stands for one run of tokens; 0 is padding, at the end of the row.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from flax_transformer.config import Pooling


def segment_mask(
    query_segments: Int[Tensor, "batch queries"], key_segments: Int[Tensor, "batch keys"]
) -> Bool[Tensor, "batch queries keys"]:
    """True where query and key belong to the same segment, and to none of padding."""
    is_same = query_segments[:, :, None] == key_segments[:, None, :]
    return is_same & (query_segments > 0)[:, :, None]


def starts_segment(segments: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"]:
    """True at the first token of each segment."""
    before = functional.pad(segments, (1, 0), value=-1)[:, :-1]
    return segments != before


def since_start(
    values: Int[Tensor, "#batch length"], segments: Int[Tensor, "batch length"]
) -> Int[Tensor, "batch length"]:
    """How far ``values``, which never fall along a row, have risen since the first token of their segment."""
    at_start = torch.where(starts_segment(segments), values, 0)
    return values - at_start.cummax(dim=1).values


def segment_positions(segments: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """The position of each token in its own segment, from 0."""
    return since_start(torch.arange(segments.shape[1], device=segments.device)[None], segments)


def pool_segments(
    x: Float[Tensor, "batch length d_model"], segments: Int[Tensor, "batch length"], count: int, pooling: Pooling
) -> Float[Tensor, "batch {count} d_model"]:
    """Sum up the first ``count`` segments of each row: the mean or maximum of each, or its first token.

    A segment that a row does not have gives zeros.
    """
    own = segments[:, None] == torch.arange(1, count + 1, device=x.device)[:, None]  # (batch, count, length)
    lengths = own.sum(dim=2)
    tokens = x[:, None]
    match pooling:
        case "mean":
            total = torch.where(own[..., None], tokens, 0).sum(dim=2)
            return total / lengths.clamp(min=1)[..., None].to(x.dtype)
        case "max":
            pooled = torch.where(own[..., None], tokens, -torch.inf).amax(dim=2)
        case "first":
            is_first = own & starts_segment(segments)[:, None]
            pooled = torch.where(is_first[..., None], tokens, 0).sum(dim=2)
    return torch.where((lengths > 0)[..., None], pooled, 0)
