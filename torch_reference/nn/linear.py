"""The parts that hold most weights: linear layers, norms and token tables, initialized as the config says."""

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from flax_transformer.config import ModelConfig
from torch_reference.dtypes import compute_dtype, param_dtype


class Linear(nn.Linear):
    """``y = x @ weight^T + bias``; the product is taken in ``config.dtype``. The weight is (out, in).

    Args:
        in_features: width of the input.
        out_features: width of the output.
        config: decides dtypes, bias and initialization.
        packed: with ``initialization="torch"``, draw the weight as a third of torch.nn.MultiheadAttention's packed one.
        zero_bias: with ``initialization="torch"``, start the bias at zero, as the other initialization does anyway.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        config: ModelConfig,
        *,
        packed: bool = False,
        zero_bias: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias=config.bias, dtype=param_dtype(config))
        self.compute_dtype = compute_dtype(config)
        if config.initialization == "paper":
            nn.init.xavier_uniform_(self.weight)
        elif packed:
            # Xavier's rule for the packed (3d, d) matrix makes each third of it narrower.
            nn.init.xavier_uniform_(self.weight, gain=math.sqrt(0.5))
        if config.bias and (zero_bias or config.initialization == "paper"):
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """
        Args:
            x: of any shape that ends with ``in_features``.

        Returns:
            The same shape with ``out_features`` at the end, in ``config.dtype``.

        Example:
            >>> import torch
            >>> Linear(8, 3, ModelConfig())(torch.ones(2, 5, 8)).shape
            torch.Size([2, 5, 3])
        """
        dtype = self.compute_dtype
        return functional.linear(x.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))


def norm_layer(config: ModelConfig, width: int | None = None) -> nn.LayerNorm | nn.RMSNorm:
    """Layer normalization (Ba et al., 2016), or RMSNorm (Zhang and Sennrich, 2019), over the last axis.

    Args:
        config: gives norm, norm_eps, bias and param_dtype.
        width: of the last axis; d_model if not given.
    """
    width, dtype = width or config.d_model, param_dtype(config)
    if config.norm == "rms":
        return nn.RMSNorm(width, eps=config.norm_eps, dtype=dtype)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.bias, dtype=dtype)


def token_table(rows: int, config: ModelConfig) -> nn.Embedding:
    """A row for each token or other id: N(0, 1) as torch.nn.Embedding draws it, or N(0, 1/d_model)."""
    table = nn.Embedding(rows, config.embedding_dim, dtype=param_dtype(config))
    if config.initialization == "paper":
        nn.init.normal_(table.weight, std=config.d_model**-0.5)
    return table
