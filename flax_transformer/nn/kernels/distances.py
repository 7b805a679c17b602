"""A bias of attention that depends on the distance alone, kept as one number for each distance."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DistanceBias:
    """The bias of every query and key, in memory that is linear in the length.

    Args:
        values: of each head, by how far the key stands behind the query: first the first key seen from the last query,
            last the last key seen from the first query, (heads, queries + keys - 1).
    """

    values: Float[Array, "heads distances"]


def spread_distances(
    values: Float[Array, "heads distances"], queries: int, keys: int
) -> Float[Array, "1 heads {keys} {queries}"]:
    """The bias written out, keys first: that of key ``k`` and query ``q`` is ``values[k - q + queries - 1]``.

    Each row is the one before it, moved by one. Rows laid end to end, one element apart from their own length, are
    that already, so nothing is looked up element by element.
    """
    heads, distances = values.shape
    rows = jnp.pad(values[:, ::-1], ((0, 0), (0, 1)))
    rows = jnp.broadcast_to(rows[:, None], (heads, keys, distances + 1)).reshape(heads, -1)
    return rows[:, : keys * distances].reshape(heads, keys, distances)[None, :, :, keys - 1 :]


def written_out(
    bias: Float[Array, "..."] | DistanceBias, queries: int, keys: int
) -> Float[Array, "#batch #heads #queries #keys"]:
    """The bias as an array that is added to scores with queries first."""
    return jnp.swapaxes(spread_distances(bias.values, queries, keys), 2, 3) if isinstance(bias, DistanceBias) else bias
