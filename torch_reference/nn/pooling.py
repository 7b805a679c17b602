"""Pooling: one vector for each text, out of those of its tokens."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flax_transformer.config import Pooling
from torch_reference.nn.masks import padding_mask
from torch_reference.nn.segments import starts_segment

# How many tokens of each row are real; None where all are, which lets attention go without a mask.
Lengths = Int[Tensor, " batch"] | None


def pool(
    x: Float[Tensor, "batch length d_model"], lengths: Lengths, pooling: Pooling
) -> Float[Tensor, "batch d_model"]:
    """Sum up the real tokens of each row: their mean or maximum, or the first. A row without any gives zeros."""
    if lengths is None:
        lengths = torch.full(x.shape[:1], x.shape[1], device=x.device)
    real = padding_mask(lengths, x.shape[1])[:, :, None]
    match pooling:
        case "mean":
            return torch.where(real, x, 0).sum(dim=1) / lengths.clamp(min=1)[:, None].to(x.dtype)
        case "max":
            pooled = torch.where(real, x, -torch.inf).amax(dim=1)
        case "first":
            pooled = x[:, 0]
    return torch.where((lengths > 0)[:, None], pooled, 0)


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
