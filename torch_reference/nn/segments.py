"""Segments of packed rows: several examples in one row, told apart by ids (Krell et al., 2021, section 3.2).

The ids of a row count up from 1, and each stands for one run of tokens; 0 is padding, at the end of the row.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional


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
