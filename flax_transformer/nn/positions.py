"""Where a token stands: sinusoids, a learned table, or rotations of queries and keys."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError


def check_length(length: int, max_length: int) -> None:
    """A longer sequence than the model was made for is an error: JAX would clamp the index and go on silently.

    Raises:
        UserError: ``length`` is over ``max_length``.
    """
    if length > max_length:
        raise UserError(f"expected at most max_length={max_length} positions, got {length}; shorten the input")


def sinusoidal_table(length: int, d_model: int) -> Float[np.ndarray, "{length} {d_model}"]:
    """``sin(p * 10000^(-k/d))`` for even k, ``cos(p * 10000^(-(k-1)/d))`` for odd k (Vaswani et al., section 3.5).

    In float64, so that positions in the thousands are exact before they are cast. Any ``d_model``, odd ones too.
    """
    positions = np.arange(length, dtype=np.float64)[:, None]
    columns = np.arange(d_model)
    frequencies = 10000.0 ** (-(columns - columns % 2) / d_model)
    angles = positions * frequencies
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def rotary_table(length: int, head_dim: int) -> Float[np.ndarray, "2 {length} {head_dim}//2"]:
    """Cosines and sines of ``p * 10000^(-2i/head_dim)`` in float64 (Su et al., 2021, section 3.2.2)."""
    frequencies = 10000.0 ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = np.arange(length, dtype=np.float64)[:, None] * frequencies
    return np.stack([np.cos(angles), np.sin(angles)])


@jax.named_scope("rope")
def apply_rope(
    x: Float[Array, "batch length heads head_dim"], offset: int | Int[Array, ""], max_length: int
) -> Float[Array, "batch length heads head_dim"]:
    """Turn each pair ``(x[i], x[i + head_dim/2])`` by the angle of its position; the first one stands at ``offset``.

    The pairs lie half a head apart (GPT-NeoX's layout, also Llama's in transformers), not side by side as in the paper:
    the two differ by a permutation of the columns of the query and key projections.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    table = jnp.asarray(rotary_table(max_length, x.shape[-1]), dtype)
    cos, sin = jnp.take(table, offset + jnp.arange(x.shape[1]), axis=1)[:, None, :, None]  # (1, length, 1, half)
    first, second = jnp.split(x.astype(dtype), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class PositionalEncoding(nnx.Module):
    """Adds the position of each token to its embedding: ``x[b, p] + table[offset + p]``.

    With rope or none it adds nothing: rope acts inside self-attention. A traced offset beyond the table gives NaN,
    which cannot be overlooked, where plain indexing would repeat the last row.

    Args:
        config: gives positions, d_model and max_length.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        if config.positions == "learned":
            initial = nnx.initializers.normal(config.d_model**-0.5 if config.initialization == "paper" else 1.0)
            shape = (config.max_length, config.d_model)
            self.table = nnx.Param(initial(rngs.params(), shape, jnp.dtype(config.param_dtype)), axes=(None, "embed"))

    @jax.named_scope("positions")
    def __call__(
        self, x: Float[Array, "batch length d_model"], offset: int | Int[Array, ""] = 0
    ) -> Float[Array, "batch length d_model"]:
        """
        Args:
            x: embedded tokens, (batch, length, d_model).
            offset: position of the first token.

        Returns:
            (batch, length, d_model).

        Raises:
            UserError: a token stands beyond ``config.max_length``, as far as the offset is known.

        Example:
            >>> PositionalEncoding(ModelConfig(d_model=8), rngs=nnx.Rngs(0))(jnp.zeros((1, 2, 8)))[0, 0].tolist()
            [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
        """
        known_offset = offset if isinstance(offset, int) else 0
        check_length(known_offset + x.shape[1], self.config.max_length)
        positions = offset + jnp.arange(x.shape[1])
        match self.config.positions:
            case "sinusoidal":
                table = jnp.asarray(sinusoidal_table(self.config.max_length, self.config.d_model), x.dtype)
            case "learned":
                table = self.table[...].astype(x.dtype)
            case "rope" | "none":
                return x
        return x + jnp.take(table, positions, axis=0)[None]
