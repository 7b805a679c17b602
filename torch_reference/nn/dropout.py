"""Dropout that shows its mask, so that both twins can be run with the same one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flax_transformer.intermediates import record


class Dropout(nn.Module):
    """Zero elements with probability ``rate`` and scale the others by ``1 / (1 - rate)``, in training mode."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.rate == 0.0:
            return x
        keep = record(self, "keep", torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1.0 - self.rate))
        return torch.where(keep, x * (1.0 / (1.0 - self.rate)), 0)
