"""Where a token stands: sinusoids, a learned table, rotations of queries and keys, or a bias on their scores."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from torch_reference.dtypes import param_dtype


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


def in_halves(table: Float[np.ndarray, "length width"]) -> Float[np.ndarray, "length width"]:
    """The columns of a sinusoidal table with all sines before all cosines, as Marian and Pegasus have them."""
    return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)


def rotary_table(length: int, head_dim: int) -> Float[np.ndarray, "2 {length} {head_dim}//2"]:
    """Cosines and sines of ``p * 10000^(-2i/head_dim)`` in float64 (Su et al., 2021, section 3.2.2)."""
    # The angles are those of sinusoids of width head_dim, whose columns are sines and cosines in turn.
    sinusoids = sinusoidal_table(length, head_dim)
    return np.stack([sinusoids[:, 1::2], sinusoids[:, 0::2]])


def _constant(compute: Callable[..., np.ndarray]) -> Callable[..., Tensor]:
    """The same as a tensor on the CPU, computed once for each size; a compiled graph holds it.

    The array is what is kept, since a tensor would be bound to the mode that it was made in.
    """
    computed = functools.lru_cache(maxsize=16)(compute)

    @torch.compiler.assume_constant_result
    def table(*sizes: Any) -> Tensor:
        return torch.as_tensor(computed(*sizes))

    return table


_sinusoidal_table = _constant(sinusoidal_table)
_sinusoidal_table_in_halves = _constant(lambda length, d_model: in_halves(sinusoidal_table(length, d_model)))
_rotary_table = _constant(rotary_table)


def apply_rope(
    x: Float[Tensor, "batch length heads head_dim"],
    offset: int,
    max_length: int,
    positions: Int[Tensor, "batch length"] | None = None,
) -> Float[Tensor, "batch length heads head_dim"]:
    """Turn each pair ``(x[i], x[i + head_dim/2])`` by the angle of its position.

    Positions that are not given count up from ``offset``.

    The pairs lie half a head apart (GPT-NeoX's layout, also Llama's in transformers), not side by side as in the paper:
    the two differ by a permutation of the columns of the query and key projections.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    table = _rotary_table(max_length, x.shape[-1])
    if positions is None:
        table = table[:, offset : offset + x.shape[1]]
    table = table.to(dtype).to(x.device)
    # (length, 1, half) or (batch, length, 1, half)
    cos, sin = (table if positions is None else table[:, positions])[..., None, :]
    first, second = x.to(dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class PositionalEncoding(nn.Module):
    """Adds the position of each token to its embedding: ``x[b, p] + table[offset + p]``, or ``table[positions[b, p]]``.

    With rope or none it adds nothing: rope acts inside self-attention.

    Args:
        config: gives positions, position_offset, the width of embeddings and max_length.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        if config.positions == "learned":
            scale = config.d_model**-0.5 if config.initialization == "paper" else 1.0
            shape = (config.position_offset + config.max_length, config.embedding_dim)
            self.table = nn.Parameter(scale * torch.randn(shape, dtype=param_dtype(config)))

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        offset: int = 0,
        positions: Int[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length d_model"]:
        """
        Args:
            x: embedded tokens, (batch, length, d_model).
            offset: position of the first token.
            positions: of all tokens, (batch, length), where they do not count up from ``offset``.

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
                table = _sinusoidal_table(self.config.max_length, x.shape[-1])
            case "sinusoidal_halves":
                table = _sinusoidal_table_in_halves(self.config.max_length, x.shape[-1])
            case "learned":
                table = self.table
            case "rope" | "none":
                return x
        first = self.config.position_offset + offset
        if positions is None:
            table = table[first : first + x.shape[1]]
        table = table.to(x.dtype).to(x.device)
        return x + (table if positions is None else table[first + positions])


def relative_buckets(buckets: int, max_distance: int, two_sided: bool) -> Int[np.ndarray, " 2*{max_distance}+1"]:
    """The bucket of each distance from a query to a key, from ``-max_distance`` to ``max_distance``.

    Half of the buckets are for one distance each, the others for ranges that grow exponentially (Raffel et al., 2020,
    section 2.1; the formula is that of T5's code). Two-sided, keys behind the query have buckets of their own;
    otherwise they share the first one.
    """
    count = buckets // 2 if two_sided else buckets
    single = count // 2
    ranges = count - single
    # A range begins where (size / single)^ranges >= (max_distance / single)^i: in whole numbers, without a logarithm.
    starts = [*range(1, single + 1)]
    for i in range(1, ranges):
        least = max_distance**i * single ** (ranges - i)
        starts.append(next(size for size in range(single, max_distance + 1) if size**ranges >= least))
    before = np.searchsorted(starts, np.arange(max_distance + 1), side="right")  # by how far a key stands before
    behind = count + before[1:] if two_sided else np.zeros(max_distance, int)
    return np.concatenate([before[::-1], behind])


_relative_buckets = _constant(relative_buckets)


class RelativeBias(nn.Embedding):
    """A number for each bucket of distances and each head, added to the scores of self-attention (T5).

    Args:
        config: gives relative_buckets, relative_max_distance and num_heads.
        two_sided: tell keys before the query from those behind it, as an encoder does.
    """

    def __init__(self, config: ModelConfig, *, two_sided: bool) -> None:
        super().__init__(config.relative_buckets, config.num_heads, dtype=param_dtype(config))
        nn.init.normal_(self.weight, std=config.d_model**-0.5)
        self.max_distance = config.relative_max_distance
        self.two_sided = two_sided

    def forward(self, queries: int, keys: int, offset: int = 0) -> Float[Tensor, "1 heads {queries} {keys}"]:
        """
        Args:
            queries: number of queries.
            keys: number of keys, which start at position 0.
            offset: position of the first query.

        Returns:
            The bias of each head, query and key, (1, heads, queries, keys).

        Example:
            >>> RelativeBias(ModelConfig(num_heads=4, relative_buckets=32), two_sided=True)(5, 7).shape
            torch.Size([1, 4, 5, 7])
        """
        device = self.weight.device
        distance = torch.arange(keys, device=device) - torch.arange(offset, offset + queries, device=device)[:, None]
        table = _relative_buckets(self.num_embeddings, self.max_distance, self.two_sided).to(device)
        buckets = table[distance.clamp(-self.max_distance, self.max_distance) + self.max_distance]
        return super().forward(buckets).permute(2, 0, 1)[None]
