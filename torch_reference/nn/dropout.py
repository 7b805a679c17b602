"""Dropout. Its mask can be recorded and replaced, so that both twins can be run with the same one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flax_transformer.intermediates import record


class Dropout(nn.Module):
    """Zero elements with probability ``rate`` and scale the others by ``1 / (1 - rate)`` (Srivastava et al., 2014).

    Args:
        rate: in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """
        Args:
            x: activations of any shape.

        Returns:
            Activations of the shape and dtype of ``x``; in evaluation mode ``x`` itself.

        Example:
            >>> Dropout(0.5)(torch.ones(2, 8)).max().item()
            2.0
        """
        if not self.training or self.rate == 0.0:
            return x
        keep = record(self, "keep", torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1.0 - self.rate))
        return torch.where(keep, x * (1.0 / (1.0 - self.rate)), 0)
