"""Schedules, clipping, Adam and AdamW: torch's own, set up from the shared config; and Muon."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from flax_transformer.config import OptimizerConfig
from torch_reference.training.matrices import is_hidden_matrix, is_matrix
from torch_reference.training.muon_optimizer import Muon


def learning_rates(config: OptimizerConfig, total_steps: int) -> list[float]:
    """The learning rate of every step.

    It rises in equal parts over the warm-up, so that the first step already moves, and then follows the schedule.
    ``inverse_sqrt`` after a warm-up is section 5.3 of the 2017 paper, scaled to peak at ``learning_rate``.
    """
    return [_learning_rate(config, step, total_steps) for step in range(total_steps)]


def _learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    warmup = config.warmup_steps
    rising = min((step + 1) / max(warmup, 1), 1.0)
    progress = min(max((step - warmup) / max(total_steps - warmup, 1), 0.0), 1.0)
    match config.schedule:
        case "constant":
            falling = 1.0
        case "inverse_sqrt":
            falling = min(math.sqrt(max(warmup, 1) / (step + 1)), 1.0)
        case "cosine":
            falling = 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear":
            falling = 1.0 - progress
    return config.learning_rate * rising * falling


def schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """:func:`learning_rates` as a scheduler of torch; the optimizer's own rate must be 1."""
    rates = learning_rates(config, total_steps)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, total_steps - 1)])


def clip_by_global_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale the gradient by ``min(1, max_norm / (norm + 1e-6))``."""
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)


@torch.no_grad()
def update_average(average: Sequence[torch.Tensor], params: Sequence[torch.Tensor], step: int, decay: float) -> None:
    """The running mean of the parameters after a step, in place: ``average + (1 - d) * (params - average)``.

    ``d`` is ``min(decay, (1 + step) / (10 + step))`` with steps counted from 0, so that the initial weights are soon
    forgotten, as TensorFlow's ``ExponentialMovingAverage`` has it.
    """
    weight = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
    for mean, new in zip(average, params, strict=True):
        mean.lerp_(new, weight)


def create_optimizer(config: OptimizerConfig, model: nn.Module, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """Adam with L2 decay in the gradient, or AdamW or Muon with decoupled decay; at rate 1, for :func:`schedule`.

    Weight decay acts on matrices, never on norms and biases.

    Args:
        fused: torch's one-kernel implementation, which is faster; None for torch's default.
    """
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": torch.optim.AdamW}[config.name]
    by_muon = {name for name, p in model.named_parameters() if config.name == "muon" and is_hidden_matrix(name, p)}
    matrices = [p for name, p in model.named_parameters() if name in by_muon]
    parameters = [p for name, p in model.named_parameters() if name not in by_muon]
    groups = [
        {"params": [p for p in parameters if is_matrix(p)], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if not is_matrix(p)], "weight_decay": 0.0},
    ]
    adam = kind(groups, lr=1.0, betas=(config.beta1, config.beta2), eps=config.eps, fused=fused)
    return Muon(matrices, config.momentum, config.weight_decay, adam) if config.name == "muon" else adam
