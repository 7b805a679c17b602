"""Muon for the matrices of the layers and AdamW for all other parameters, as one optimizer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from torch_reference.training.muon import orthogonal_update


class Muon(torch.optim.Optimizer):
    """Nesterov momentum made orthogonal for the matrices of the layers, and ``adamw`` for the other parameters.

    ``torch.optim.Muon`` is the same rule for matrices alone. It computes in bfloat16, where two frameworks could not be
    compared.

    Args:
        matrices: what Muon trains.
        beta: decay of the running mean of the gradients.
        weight_decay: of the matrices, decoupled as AdamW's.
        adamw: of the other parameters.
    """

    def __init__(
        self, matrices: Sequence[nn.Parameter], beta: float, weight_decay: float, adamw: torch.optim.AdamW
    ) -> None:
        super().__init__([{"params": list(matrices)}], {"lr": 1.0, "beta": beta, "weight_decay": weight_decay})
        self._adamw = adamw
        # One list of groups, so that a scheduler sets the rate of both, and one table of states.
        self.param_groups += adamw.param_groups
        adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every parameter that has a gradient."""
        group = self.param_groups[0]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            momentum = state.setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(parameter.grad, 1 - group["beta"])
            update = orthogonal_update(parameter.grad.lerp(momentum, group["beta"]))
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
        self._adamw.step()
