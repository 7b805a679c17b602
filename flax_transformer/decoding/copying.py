"""The step of generation in which copied values quote the source: which tokens go on, and where they lead."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from flax_transformer.data.copying import Copying


class CopyTables(NamedTuple):
    """A :class:`~flax_transformer.data.copying.Copying` on the device, with a row for each output."""

    transitions: Int[Array, "states vocab"]
    inside: Bool[Array, " states"]
    closes: Bool[Array, " vocab"]
    starts: Int[Array, "rows edges"]
    tokens: Int[Array, "rows edges"]
    ends: Int[Array, "rows edges"]
    begins: Bool[Array, "rows places"]
    finishes: Bool[Array, "rows places"]


class CopyState(NamedTuple):
    """How far outputs are. Each leaf begins with the rows."""

    # how far the JSON has been read
    json: Int[Array, " rows"]
    # places of the source from which a value may go on
    places: Bool[Array, "rows places"]


def copy_tables(copying: Copying, beams: int) -> CopyTables:
    """With ``beams`` adjacent rows for each source."""
    whole, per_source = copying[:3], copying[3:]
    return CopyTables(*map(jnp.asarray, whole), *(jnp.repeat(table, beams, axis=0) for table in per_source))


def start_copying(tables: CopyTables) -> CopyState:
    """Before the first token."""
    return CopyState(jnp.zeros(len(tables.begins), jnp.int32), tables.begins)


def copyable_tokens(tables: CopyTables, state: CopyState) -> Bool[Array, "rows vocab"]:
    """The tokens that may come next: within a copied value those that go on in the source, or end it with a word."""
    following = tables.transitions[state.json]  # (rows, vocab)
    rows = jnp.arange(len(following))[:, None]
    leaves = jnp.take_along_axis(state.places, tables.starts, axis=1)  # (rows, edges)
    goes_on = jnp.zeros(following.shape, jnp.bool_).at[rows, tables.tokens].max(leaves, mode="drop")
    may_end = (state.places & tables.finishes).any(axis=1, keepdims=True)
    outside = ~tables.inside[state.json][:, None]
    # A token that ends one value of a list may also begin the next one with letters of its own.
    return (following >= 0) & (outside | goes_on | (may_end & tables.closes[None]))


def copy_on(tables: CopyTables, state: CopyState, tokens: Int[Array, " rows"]) -> CopyState:
    """The state behind ``tokens``. Where none of them goes on in the source, a value may begin anywhere."""
    rows = jnp.arange(len(tokens))[:, None]
    leaves = jnp.take_along_axis(state.places, tables.starts, axis=1)
    taken = leaves & (tables.tokens == tokens[:, None])
    places = jnp.zeros(state.places.shape, jnp.bool_).at[rows, tables.ends].max(taken)
    places = places.at[:, -1].set(False)  # where tokens lead that also end the value
    goes_on = places.any(axis=1)
    # Of a token that may not come, and that another rule has forced, the text is not known further.
    json = jnp.maximum(tables.transitions[state.json, tokens], 0)
    return CopyState(json, jnp.where(goes_on[:, None], places, tables.begins))
