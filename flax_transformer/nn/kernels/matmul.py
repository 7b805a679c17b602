"""The matrix product of linear layers, with the weight gradient in the order that is fastest on each platform."""

import jax
from jaxtyping import Array, Float

_OVER_TOKENS = (((0,), (0,)), ((), ()))


@jax.custom_vjp
def matmul(x: Float[Array, "tokens in"], kernel: Float[Array, "in out"]) -> Float[Array, "tokens out"]:
    """``x @ kernel``; its gradients are the usual ones, the kernel's in the order that is fastest on each platform."""
    return x @ kernel


def _matmul_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _matmul_backward(operands: tuple[Array, Array], upstream: Array) -> tuple[Array, Array]:
    x, kernel = operands
    return upstream @ kernel.T, _kernel_gradient(x, upstream)


@jax.jit  # so that all layers of one shape are traced once
def _kernel_gradient(x: Array, upstream: Array) -> Array:
    return jax.lax.platform_dependent(
        x, upstream, cpu=_kernel_gradient_on_cpu, default=lambda x, y: jax.lax.dot_general(x, y, _OVER_TOKENS)
    )


def _kernel_gradient_on_cpu(x: Array, upstream: Array) -> Array:
    """``x^T @ upstream``: XLA packs the first operand slowly where it is wide, so one side is transposed beforehand.

    That is ``x``, or the gradient, which the norm and Adam read several times over; whichever is less to move. The
    barriers keep XLA from turning it back.
    """
    (tokens, width), out = x.shape, upstream.shape[1]
    if width <= out:
        return jax.lax.dot_general(x, upstream, _OVER_TOKENS)
    if tokens < 4 * out:
        return jax.lax.optimization_barrier(x.T) @ upstream
    return jax.lax.optimization_barrier(jax.lax.dot_general(upstream, x, _OVER_TOKENS)).T


matmul.defvjp(_matmul_forward, _matmul_backward)
