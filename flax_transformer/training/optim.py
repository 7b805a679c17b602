"""Schedules, clipping, Adam, AdamW and Muon, with torch's semantics, as optax transformations."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import OptimizerConfig
from flax_transformer.training.adam import scale_by_adam
from flax_transformer.training.matrices import is_matrix
from flax_transformer.training.scale_by_muon import scale_by_muon


def learning_rates(config: OptimizerConfig, total_steps: int) -> Float[np.ndarray, " {total_steps}"]:
    """The learning rate of every step, in float64.

    It rises in equal parts over the warm-up, so that the first step already moves, and then follows the schedule.
    ``inverse_sqrt`` after a warm-up is section 5.3 of the 2017 paper, scaled to peak at ``learning_rate``.
    """
    step = np.arange(total_steps, dtype=np.float64)
    warmup = config.warmup_steps
    rising = np.minimum((step + 1) / max(warmup, 1), 1.0)
    progress = np.clip((step - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
    match config.schedule:
        case "constant":
            falling = np.ones_like(step)
        case "inverse_sqrt":
            falling = np.minimum(np.sqrt(max(warmup, 1) / (step + 1)), 1.0)
        case "cosine":
            falling = 0.5 * (1.0 + np.cos(math.pi * progress))
        case "linear":
            falling = 1.0 - progress
    return config.learning_rate * rising * falling


def schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """:func:`learning_rates` as a table on the device: bit-equal to the host's, whatever the device's cosine."""
    table = learning_rates(config, total_steps)
    return lambda count: jnp.asarray(table)[jnp.minimum(count, total_steps - 1)]


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale the gradient by ``min(1, max_norm / (norm + 1e-6))``, as torch.nn.utils.clip_grad_norm_ does."""

    @jax.named_scope("clip_by_global_norm")
    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda gradient: gradient * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def update_average(average: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """The running mean of the parameters after a step: ``average + (1 - d) * (params - average)``.

    ``d`` is ``min(decay, (1 + step) / (10 + step))`` with steps counted from 0, so that the initial weights are soon
    forgotten, as TensorFlow's ``ExponentialMovingAverage`` has it.
    """
    count = step.astype(jnp.result_type(float))
    weight = 1.0 - jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda mean, new: mean + weight.astype(mean.dtype) * (new - mean), average, params)


def create_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipping, then Adam with L2 decay in the gradient, or AdamW or Muon with decoupled decay, then the schedule.

    Weight decay acts on matrices, never on norms and biases.
    """

    def mask(params: Any) -> Any:
        return jax.tree.map(is_matrix, params, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))

    decay = optax.add_decayed_weights(config.weight_decay, mask)
    adam = scale_by_adam(config.beta1, config.beta2, config.eps)
    match config.name:
        case "adam":
            rule = (decay, adam)
        case "adamw":
            rule = (adam, decay)
        case "muon":
            rule = (scale_by_muon(config.momentum, adam), decay)
    return optax.chain(
        clip_by_global_norm(config.max_grad_norm) if config.max_grad_norm else optax.identity(),
        *rule,
        optax.scale_by_learning_rate(schedule(config, total_steps)),
    )
