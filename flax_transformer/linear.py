"""The parts that hold most weights: linear maps, norms and token tables, initialised as the config names it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flax_transformer.config import ModelConfig
from flax_transformer.mesh import Axes

# torch.nn.Linear: U(-1/sqrt(in), 1/sqrt(in)), as kaiming_uniform with a = sqrt(5) comes out.
TORCH_LINEAR = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
XAVIER_UNIFORM = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform")
# torch.nn.MultiheadAttention draws its packed (3d, d) matrix by Xavier's rule, which makes each third of it narrower.
TORCH_PACKED_PROJECTION = nnx.initializers.variance_scaling(0.5, "fan_avg", "uniform")


def symmetric_uniform(bound: float) -> nnx.Initializer:
    """U(-bound, bound)."""
    draw = nnx.initializers.uniform(2 * bound)
    return lambda key, shape, dtype=jnp.float32, out_sharding=None: draw(key, shape, dtype) - bound


_OVER_TOKENS = (((0,), (0,)), ((), ()))


@jax.custom_vjp
def _product(x: Float[Array, "tokens in"], kernel: Float[Array, "in out"]) -> Float[Array, "tokens out"]:
    """``x @ kernel``; its gradients are the usual ones, the kernel's in the order that is fastest on each platform."""
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(operands: tuple[Array, Array], upstream: Array) -> tuple[Array, Array]:
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


_product.defvjp(_product_forward, _product_backward)


class Linear(nnx.Linear):
    """``y = x @ kernel + bias``; kernel is (in, out), the product is taken in ``config.dtype``.

    The operand is flattened to (tokens, in): in three dimensions XLA transposes it physically for each weight gradient.

    Args:
        axes: names of the kernel's two axes, by which the mesh cuts it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        config: ModelConfig,
        *,
        axes: Axes,
        rngs: nnx.Rngs,
        torch_kernel: nnx.Initializer = TORCH_LINEAR,
        torch_bias: nnx.Initializer | None = None,
    ) -> None:
        as_torch = config.initialization == "torch"
        super().__init__(
            in_features,
            out_features,
            use_bias=config.bias,
            dtype=jnp.dtype(config.dtype),
            param_dtype=jnp.dtype(config.param_dtype),
            kernel_init=torch_kernel if as_torch else XAVIER_UNIFORM,
            bias_init=(torch_bias or symmetric_uniform(in_features**-0.5)) if as_torch else nnx.initializers.zeros,
            dot_general=lambda x, kernel, *_, **__: _product(x, kernel),
            kernel_metadata={"axes": axes},
            bias_metadata={"axes": axes[1:]},
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.out_features)


def layer_norm(config: ModelConfig, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation (Ba et al., 2016) with torch's epsilon and the two-pass variance, which cannot cancel."""
    return nnx.LayerNorm(
        config.d_model,
        epsilon=config.norm_eps,
        use_bias=config.bias,
        use_fast_variance=False,
        param_dtype=jnp.dtype(config.param_dtype),
        scale_metadata={"axes": ("embed",)},
        bias_metadata={"axes": ("embed",)},
        rngs=rngs,
    )


def token_table(vocab_size: int, config: ModelConfig, *, rngs: nnx.Rngs) -> nnx.Embed:
    """One row for each token: N(0, 1) as torch.nn.Embedding draws it, or N(0, 1/d_model)."""
    scale = 1.0 if config.initialization == "torch" else config.d_model**-0.5
    return nnx.Embed(
        vocab_size,
        config.d_model,
        embedding_init=nnx.initializers.normal(scale),
        embedding_metadata={"axes": ("vocab", "embed")},
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )
