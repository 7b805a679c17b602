"""Schedules, clipping, Adam and AdamW, with torch's semantics, as optax transformations."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import OptimizerConfig


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

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda gradient: gradient * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class AdamState(NamedTuple):
    """Steps taken, and the running means of the gradient and of its square."""

    count: Int[Array, ""]
    mean: Any
    square: Any


def scale_by_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """``m_hat / (sqrt(v_hat) + eps)`` (Kingma & Ba, 2015, algorithm 1), in torch's order of operations.

    ``1 - beta^t`` is taken as ``-expm1(t log beta)``: in float32 the plain difference, which optax takes, is off by
    6.6e-6 of its value in the first step. torch takes that difference on the host, in float64, and so does this where
    float64 is on: the two then share its cancellation, which is up to 250 units in the last place early on.
    """

    def init(params: Any) -> AdamState:
        return AdamState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
        )

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, AdamState]:
        count = state.count + 1
        mean = jax.tree.map(lambda m, g: m + (1 - beta1) * (g - m), state.mean, updates)
        square = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * (g * g), state.square, updates)
        correction1 = _bias_correction(beta1, count)
        correction2 = jnp.sqrt(_bias_correction(beta2, count))
        scaled = jax.tree.map(lambda m, v: m / correction1 / (jnp.sqrt(v) / correction2 + eps), mean, square)
        return scaled, AdamState(count, mean, square)

    return optax.GradientTransformation(init, update)


def _bias_correction(beta: float, count: Int[Array, ""]) -> Float[Array, ""]:
    if beta == 0:
        return jnp.ones(())
    if jnp.result_type(float) == jnp.float64:
        return 1.0 - jnp.power(beta, count.astype(jnp.float64))
    return -jnp.expm1(count * math.log(beta))


def decays(parameter: Array | nnx.Param) -> bool:
    """Weight decay acts on matrices, never on norms and biases; also where those of all layers are stacked."""
    return len(parameter.axes if isinstance(parameter, nnx.Param) else parameter.shape) > 1


def create_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipping, then Adam with L2 decay in the gradient or AdamW with decoupled decay, then the schedule."""

    def mask(params: Any) -> Any:
        return jax.tree.map(decays, params, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))

    decay = optax.add_decayed_weights(config.weight_decay, mask)
    adam = scale_by_adam(config.beta1, config.beta2, config.eps)
    return optax.chain(
        clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        *((decay, adam) if config.name == "adam" else (adam, decay)),
        optax.scale_by_learning_rate(schedule(config, total_steps)),
    )
