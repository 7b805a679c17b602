"""The parts that hold most weights: linear maps, norms and token tables, initialised as the config names it."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flax_transformer.config import ModelConfig
from flax_transformer.distributed.mesh import Axes
from flax_transformer.nn.kernels.matmul import matmul

# torch.nn.Linear: U(-1/sqrt(in), 1/sqrt(in)), as kaiming_uniform with a = sqrt(5) comes out.
TORCH_LINEAR = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
XAVIER_UNIFORM = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform")
# torch.nn.MultiheadAttention draws its packed (3d, d) matrix by Xavier's rule, which makes each third of it narrower.
TORCH_PACKED_PROJECTION = nnx.initializers.variance_scaling(0.5, "fan_avg", "uniform")


def symmetric_uniform(bound: float) -> nnx.Initializer:
    """U(-bound, bound)."""
    draw = nnx.initializers.uniform(2 * bound)
    return lambda key, shape, dtype=jnp.float32, out_sharding=None: draw(key, shape, dtype) - bound


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
            dot_general=lambda x, kernel, *_, **__: matmul(x, kernel),
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
