"""The step of generation in which copied values quote the source: which tokens go on, and where they lead."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from flax_transformer.data.copying import Copying


class CopyTables(NamedTuple):
    """A :class:`~flax_transformer.data.copying.Copying` on the device, with a row for each output."""

    transitions: Int[Tensor, "states vocab"]
    inside: Bool[Tensor, " states"]
    closes: Bool[Tensor, " vocab"]
    starts: Int[Tensor, "rows edges"]
    tokens: Int[Tensor, "rows edges"]
    ends: Int[Tensor, "rows edges"]
    begins: Bool[Tensor, "rows places"]
    finishes: Bool[Tensor, "rows places"]


class CopyState(NamedTuple):
    """How far outputs are. Each tensor begins with the rows."""

    # how far the JSON has been read
    json: Int[Tensor, " rows"]
    # places of the source from which a value may go on
    places: Bool[Tensor, "rows places"]

    def map(self, function: Callable[[Tensor], Tensor]) -> "CopyState":
        """The same function of each tensor."""
        return CopyState(function(self.json), function(self.places))


def copy_tables(copying: Copying, beams: int, device: torch.device) -> CopyTables:
    """With ``beams`` adjacent rows for each source."""
    tables = [torch.as_tensor(table, device=device) for table in copying]
    tables = [table if table.dtype == torch.bool else table.long() for table in tables]
    return CopyTables(*tables[:3], *(table.repeat_interleave(beams, dim=0) for table in tables[3:]))


def start_copying(tables: CopyTables) -> CopyState:
    """Before the first token."""
    begins = tables.begins
    return CopyState(torch.zeros(len(begins), dtype=torch.long, device=begins.device), begins)


def copyable_tokens(tables: CopyTables, state: CopyState) -> Bool[Tensor, "rows vocab"]:
    """The tokens that may come next: within a copied value those that go on in the source, or end it with a word."""
    following = tables.transitions[state.json]  # (rows, vocab)
    leaves = state.places.gather(1, tables.starts)  # (rows, edges)
    # A last column for the edges of filler.
    counts = torch.zeros(len(following), following.shape[1] + 1, dtype=torch.int32, device=following.device)
    goes_on = counts.scatter_add(1, tables.tokens, leaves.int())[:, :-1] > 0
    may_end = (state.places & tables.finishes).any(dim=1, keepdim=True)
    outside = ~tables.inside[state.json][:, None]
    # A token that ends one value of a list may also begin the next one with letters of its own.
    return (following >= 0) & (outside | goes_on | (may_end & tables.closes))


def copy_on(tables: CopyTables, state: CopyState, tokens: Int[Tensor, " rows"]) -> CopyState:
    """The state behind ``tokens``. Where none of them goes on in the source, a value may begin anywhere."""
    leaves = state.places.gather(1, tables.starts)
    taken = leaves & (tables.tokens == tokens[:, None])
    places = torch.zeros(state.places.shape, dtype=torch.int32, device=tokens.device)
    places = places.scatter_add(1, tables.ends, taken.int()) > 0
    places[:, -1] = False  # where tokens lead that also end the value
    goes_on = places.any(dim=1)
    # Of a token that may not come, and that another rule has forced, the text is not known further.
    json = tables.transitions[state.json, tokens].clamp(min=0)
    return CopyState(json, torch.where(goes_on[:, None], places, tables.begins))
