"""Where a token stands: sinusoids, a learned table, or rotations of queries and keys."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError


def check_length(length: int, max_length: int) -> None:
    """A longer sequence than the model was made for is an error, the same as in the JAX twin.

    Raises:
        UserError: ``length`` is over ``max_length``.
    """
    if length > max_length:
        raise UserError(f"expected at most max_length={max_length} positions, got {length}; shorten the input")


def sinusoidal_table(length: int, d_model: int) -> Float[np.ndarray, "{length} {d_model}"]:
    """``sin(p * 10000^(-k/d))`` for even k, ``cos(p * 10000^(-(k-1)/d))`` for odd k (Vaswani et al., section 3.5).

    In float64, so that positions in the thousands are exact before they are cast. Any ``d_model``, odd ones too.
    """
    table = np.empty((length, d_model))
    angles = np.arange(length, dtype=np.float64)[:, None] * 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles[:, : d_model // 2])
    return table


def rotary_table(length: int, head_dim: int) -> Float[np.ndarray, "2 {length} {head_dim}//2"]:
    """Cosines and sines of ``p * 10000^(-2i/head_dim)`` in float64 (Su et al., 2021, section 3.2.2)."""
    # The angles are those of sinusoids of width head_dim, whose columns are sines and cosines in turn.
    sinusoids = sinusoidal_table(length, head_dim)
    return np.stack([sinusoids[:, 1::2], sinusoids[:, 0::2]])


def apply_rope(
    x: Float[Tensor, "batch length heads head_dim"], offset: int, max_length: int
) -> Float[Tensor, "batch length heads head_dim"]:
    """Turn each pair ``(x[i], x[i + head_dim/2])`` by the angle of its position; the first one stands at ``offset``.

    The pairs lie half a head apart (GPT-NeoX's layout, also Llama's in transformers), not side by side as in the paper:
    the two differ by a permutation of the columns of the query and key projections.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    table = torch.as_tensor(rotary_table(max_length, x.shape[-1]), dtype=dtype, device=x.device)
    cos, sin = table[:, offset : offset + x.shape[1], None]  # (length, 1, half)
    first, second = x.to(dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class PositionalEncoding(nn.Module):
    """Adds the position of each token to its embedding: ``x[b, p] + table[offset + p]``.

    With rope or none it adds nothing: rope acts inside self-attention.

    Args:
        config: gives positions, d_model and max_length.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.positions == "learned":
            scale = config.d_model**-0.5 if config.initialization == "paper" else 1.0
            shape = (config.max_length, config.d_model)
            self.table = nn.Parameter(scale * torch.randn(shape, dtype=getattr(torch, config.param_dtype)))

    def forward(
        self, x: Float[Tensor, "batch length d_model"], offset: int = 0
    ) -> Float[Tensor, "batch length d_model"]:
        """
        Args:
            x: embedded tokens, (batch, length, d_model).
            offset: position of the first token.

        Returns:
            (batch, length, d_model).

        Raises:
            UserError: a token stands beyond ``config.max_length``.

        Example:
            >>> PositionalEncoding(ModelConfig(d_model=8))(torch.zeros(1, 2, 8))[0, 0].tolist()
            [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
        """
        check_length(offset + x.shape[1], self.config.max_length)
        match self.config.positions:
            case "sinusoidal":
                table = sinusoidal_table(self.config.max_length, self.config.d_model)
                table = torch.as_tensor(table, dtype=x.dtype, device=x.device)
            case "learned":
                table = self.table.to(x.dtype)
            case "rope" | "none":
                return x
        return x + table[offset : offset + x.shape[1]]
