"""The parts that hold most weights: linear layers, norms and token tables, initialized as the config says."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flax_transformer.config import ModelConfig
from flax_transformer.distributed.mesh import Axes
from flax_transformer.nn.kernels.matmul import matmul

_ZEROS = nnx.initializers.zeros
_XAVIER_UNIFORM = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform")
# torch.nn.Linear draws U(-1/sqrt(in), 1/sqrt(in)): kaiming_uniform with a = sqrt(5).
_TORCH_LINEAR = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# torch.nn.MultiheadAttention draws its packed (3d, d) matrix by Xavier's rule, which makes each third of it narrower.
_TORCH_PACKED = nnx.initializers.variance_scaling(0.5, "fan_avg", "uniform")


class Linear(nnx.Linear):
    """``y = x @ kernel + bias``; the product is taken in ``config.dtype``. The kernel is (in, out).

    Args:
        in_features: width of the input.
        out_features: width of the output.
        config: decides dtypes, bias and initialization.
        axes: names of the kernel's two axes, by which the mesh shards it.
        packed: with ``initialization="torch"``, draw the weight as a third of torch.nn.MultiheadAttention's packed one.
        zero_bias: with ``initialization="torch"``, start the bias at zero, as the other initialization does anyway.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        config: ModelConfig,
        *,
        axes: Axes,
        rngs: nnx.Rngs,
        packed: bool = False,
        zero_bias: bool = False,
    ) -> None:
        kernel_init, bias_init = _XAVIER_UNIFORM, _ZEROS
        if config.initialization == "torch":
            kernel_init = _TORCH_PACKED if packed else _TORCH_LINEAR
            bias_init = _ZEROS if zero_bias else _symmetric_uniform(in_features**-0.5)
        super().__init__(
            in_features,
            out_features,
            use_bias=config.bias,
            dtype=jnp.dtype(config.dtype),
            param_dtype=jnp.dtype(config.param_dtype),
            kernel_init=kernel_init,
            bias_init=bias_init,
            dot_general=lambda x, kernel, *_, **__: matmul(x, kernel),
            kernel_metadata={"axes": axes},
            bias_metadata={"axes": axes[1:]},
            rngs=rngs,
        )

    @jax.named_scope("linear")
    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        """
        Args:
            x: of any shape that ends with ``in_features``.

        Returns:
            The same shape with ``out_features`` at the end, in ``config.dtype``.

        Example:
            >>> layer = Linear(8, 3, ModelConfig(), axes=("embed", None), rngs=nnx.Rngs(0))
            >>> layer(jnp.ones((2, 5, 8))).shape
            (2, 5, 3)
        """
        # Flattened to (tokens, in): in three dimensions XLA transposes the operand for each weight gradient.
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.out_features)


def _symmetric_uniform(bound: float) -> nnx.Initializer:
    """U(-bound, bound)."""
    draw = nnx.initializers.uniform(2 * bound)
    return lambda key, shape, dtype=jnp.float32, out_sharding=None: draw(key, shape, dtype) - bound


def norm_layer(config: ModelConfig, width: int | None = None, *, rngs: nnx.Rngs) -> nnx.LayerNorm | nnx.RMSNorm:
    """Layer normalization (Ba et al., 2016), or RMSNorm (Zhang and Sennrich, 2019), over the last axis.

    It has torch's epsilon and the two-pass variance, which cannot cancel.

    Args:
        config: gives norm, norm_eps, bias and param_dtype.
        width: of the last axis; d_model if not given.
    """
    shared = {
        "epsilon": config.norm_eps,
        "use_fast_variance": False,
        "param_dtype": jnp.dtype(config.param_dtype),
        "scale_metadata": {"axes": ("embed",)},
        "rngs": rngs,
    }
    width = width or config.d_model
    if config.norm == "rms":
        return nnx.RMSNorm(width, **shared)
    return nnx.LayerNorm(width, use_bias=config.bias, bias_metadata={"axes": ("embed",)}, **shared)


def token_table(rows: int, config: ModelConfig, *, rngs: nnx.Rngs) -> nnx.Embed:
    """A row for each token or other id: N(0, 1) as torch.nn.Embedding draws it, or N(0, 1/d_model)."""
    scale = 1.0 if config.initialization == "torch" else config.d_model**-0.5
    return nnx.Embed(
        rows,
        config.embedding_dim,
        embedding_init=nnx.initializers.normal(scale),
        embedding_metadata={"axes": ("vocab", "embed")},
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )
