"""Where a token stands: sinusoids, a learned table, rotations of queries and keys, or a bias on their scores."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.nn.kernels.distances import DistanceBias


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


def in_halves(table: Float[np.ndarray, "length width"]) -> Float[np.ndarray, "length width"]:
    """The columns of a sinusoidal table with all sines before all cosines, as Marian and Pegasus have them."""
    columns = np.arange(table.shape[1])
    return table[:, np.argsort(columns % 2, kind="stable")]


def rotary_table(length: int, head_dim: int) -> Float[np.ndarray, "2 {length} {head_dim}//2"]:
    """Cosines and sines of ``p * 10000^(-2i/head_dim)`` in float64 (Su et al., 2021, section 3.2.2)."""
    frequencies = 10000.0 ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = np.arange(length, dtype=np.float64)[:, None] * frequencies
    return np.stack([np.cos(angles), np.sin(angles)])


@jax.named_scope("rope")
def apply_rope(
    x: Float[Array, "batch length heads head_dim"],
    offset: int | Int[Array, ""],
    max_length: int,
    positions: Int[Array, "batch length"] | None = None,
) -> Float[Array, "batch length heads head_dim"]:
    """Turn each pair ``(x[i], x[i + head_dim/2])`` by the angle of its position.

    Positions that are not given count up from ``offset``.

    The pairs lie half a head apart (GPT-NeoX's layout, also Llama's in transformers), not side by side as in the paper:
    the two differ by a permutation of the columns of the query and key projections.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    table = jnp.asarray(rotary_table(max_length, x.shape[-1]), dtype)
    places = (offset + jnp.arange(x.shape[1]))[None] if positions is None else positions
    cos, sin = jnp.take(table, places, axis=1)[:, :, :, None]  # (batch or 1, length, 1, half)
    first, second = jnp.split(x.astype(dtype), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


class PositionalEncoding(nnx.Module):
    """Adds the position of each token to its embedding: ``x[b, p] + table[offset + p]``, or ``table[positions[b, p]]``.

    With rope or none it adds nothing: rope acts inside self-attention. A traced offset beyond the table gives NaN,
    which cannot be overlooked, where plain indexing would repeat the last row.

    Args:
        config: gives positions, position_offset, the width of embeddings and max_length.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        if config.positions == "learned":
            initial = nnx.initializers.normal(config.d_model**-0.5 if config.initialization == "paper" else 1.0)
            shape = (config.position_offset + config.max_length, config.embedding_dim)
            self.table = nnx.Param(initial(rngs.params(), shape, jnp.dtype(config.param_dtype)), axes=(None, "embed"))

    @jax.named_scope("positions")
    def __call__(
        self,
        x: Float[Array, "batch length d_model"],
        offset: int | Int[Array, ""] = 0,
        positions: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length d_model"]:
        """
        Args:
            x: embedded tokens, (batch, length, d_model).
            offset: position of the first token.
            positions: of all tokens, (batch, length), where they do not count up from ``offset``.

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
        places = (offset + jnp.arange(x.shape[1]))[None] if positions is None else positions
        match self.config.positions:
            case "sinusoidal":
                table = jnp.asarray(sinusoidal_table(self.config.max_length, x.shape[-1]), x.dtype)
            case "sinusoidal_halves":
                table = jnp.asarray(in_halves(sinusoidal_table(self.config.max_length, x.shape[-1])), x.dtype)
            case "learned":
                table = self.table[...].astype(x.dtype)
            case "rope" | "none":
                return x
        return x + jnp.take(table, self.config.position_offset + places, axis=0)


def relative_buckets(buckets: int, max_distance: int, two_sided: bool) -> Int[np.ndarray, " 2*{max_distance}+1"]:
    """The bucket of each distance from a query to a key, from ``-max_distance`` to ``max_distance``.

    Half of the buckets are for one distance each, the others for ranges that grow exponentially (Raffel et al., 2020,
    section 2.1; the formula is that of T5's code). Two-sided, keys behind the query have buckets of their own;
    otherwise they share the first one.
    """
    distance = np.arange(-max_distance, max_distance + 1)
    count = buckets // 2 if two_sided else buckets
    size = np.abs(distance) if two_sided else np.maximum(-distance, 0)
    single = count // 2
    range_of = np.log(np.maximum(size, 1) / single) / np.log(max_distance / single) * (count - single)
    bucket = np.where(size < single, size, np.minimum(single + range_of.astype(int), count - 1))
    return np.where((distance > 0) & two_sided, count + bucket, bucket)


class RelativeBias(nnx.Embed):
    """A number for each bucket of distances and each head, added to the scores of self-attention (T5).

    Args:
        config: gives relative_buckets, relative_max_distance and num_heads.
        two_sided: tell keys before the query from those behind it, as an encoder does.
    """

    def __init__(self, config: ModelConfig, *, two_sided: bool, rngs: nnx.Rngs) -> None:
        super().__init__(
            config.relative_buckets,
            config.num_heads,
            embedding_init=nnx.initializers.normal(config.d_model**-0.5),
            embedding_metadata={"axes": (None, "heads")},
            param_dtype=jnp.dtype(config.param_dtype),
            rngs=rngs,
        )
        self.max_distance = config.relative_max_distance
        self.two_sided = two_sided

    @jax.named_scope("relative_bias")
    def __call__(
        self, queries: int, keys: int, offset: int | Int[Array, ""] = 0
    ) -> Float[Array, "1 heads {queries} {keys}"]:
        """
        Args:
            queries: number of queries.
            keys: number of keys, which start at position 0.
            offset: position of the first query.

        Returns:
            The bias of each head, query and key, (1, heads, queries, keys).

        Example:
            >>> config = ModelConfig(num_heads=4, relative_buckets=32)
            >>> RelativeBias(config, two_sided=True, rngs=nnx.Rngs(0))(5, 7).shape
            (1, 4, 5, 7)
        """
        distance = jnp.arange(keys)[None] - (offset + jnp.arange(queries))[:, None]
        return jnp.transpose(self._look_up(distance), (2, 0, 1))[None]

    def by_distance(self, queries: int, keys: int, offset: int | Int[Array, ""] = 0) -> DistanceBias:
        """The same, one number for each distance: what attention block by block reads."""
        return DistanceBias(self._look_up(jnp.arange(1 - queries, keys) - offset).T)

    def _look_up(self, distance: Int[Array, "*shape"]) -> Float[Array, "*shape heads"]:
        buckets = jnp.asarray(relative_buckets(self.num_embeddings, self.max_distance, self.two_sided))
        places = jnp.clip(distance, -self.max_distance, self.max_distance) + self.max_distance
        return jnp.take(self.embedding[...], buckets[places], axis=0)
