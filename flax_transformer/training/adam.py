"""Adam's scaling of the gradient, as an optax transformation with torch's order of operations."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


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

    @jax.named_scope("adam")
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
