"""The parts that hold most weights: linear maps, norms and token tables, initialised as the config names it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from flax_transformer.config import ModelConfig


def compute_dtype(config: ModelConfig) -> torch.dtype:
    return getattr(torch, config.dtype)


def param_dtype(config: ModelConfig) -> torch.dtype:
    return getattr(torch, config.param_dtype)


def torch_packed_projection_(weight: Tensor) -> None:
    """As torch.nn.MultiheadAttention draws its packed (3d, d) matrix by Xavier's rule: each third of it is narrower."""
    nn.init.xavier_uniform_(weight, gain=math.sqrt(0.5))


class Linear(nn.Linear):
    """``y = x @ weight^T + bias``; weight is (out, in), the product is taken in ``config.dtype``."""

    def __init__(self, in_features: int, out_features: int, config: ModelConfig) -> None:
        super().__init__(in_features, out_features, bias=config.bias, dtype=param_dtype(config))
        self.compute_dtype = compute_dtype(config)
        if config.initialization == "paper":
            nn.init.xavier_uniform_(self.weight)
            self.zero_bias_()

    def zero_bias_(self) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        dtype = self.compute_dtype
        return functional.linear(x.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))


def layer_norm(config: ModelConfig) -> nn.LayerNorm:
    """Layer normalisation (Ba et al., 2016)."""
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias, dtype=param_dtype(config))


def token_table(vocab_size: int, config: ModelConfig) -> nn.Embedding:
    """One row for each token: N(0, 1) as torch.nn.Embedding draws it, or N(0, 1/d_model)."""
    table = nn.Embedding(vocab_size, config.d_model, dtype=param_dtype(config))
    if config.initialization == "paper":
        nn.init.normal_(table.weight, std=config.d_model**-0.5)
    return table
