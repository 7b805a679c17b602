"""Packing: several examples in one row of a batch, so that one shape serves all of them with hardly any padding.

A row holds its examples one after the other. Which tokens belong together is told by segment ids, which count up from 1
in each row; 0 is padding, at the end of the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

NOTHING = -1  # in place of an example's index


class PackedSeq2SeqBatch(NamedTuple):
    """A target belongs to the source of the same segment; it holds the begin token, the text and the end token."""

    source: Int32[Any, "batch source"]
    source_segments: Int32[Any, "batch source"]
    target: Int32[Any, "batch target"]
    target_segments: Int32[Any, "batch target"]

    @property
    def source_mask(self) -> Bool[np.ndarray, "batch source"]:
        """True = real token."""
        return self.source_segments > 0


class PackedClassifierBatch(NamedTuple):
    """``source_lengths`` and ``labels`` are those of each segment; a length of 0 stands for none."""

    source: Int32[Any, "batch source"]
    source_segments: Int32[Any, "batch source"]
    source_lengths: Int32[Any, "batch segments"]
    labels: Int32[Any, "batch segments"]

    @property
    def source_mask(self) -> Bool[np.ndarray, "batch source"]:
        """True = real token."""
        return self.source_segments > 0


class PackedMaskedBatch(NamedTuple):
    """Tokens are masked as if a row were one text; see :class:`flax_transformer.data.masking.MaskedBatch`."""

    source: Int32[Any, "batch source"]
    source_segments: Int32[Any, "batch source"]
    positions: Int32[Any, "batch predicted"]
    labels: Int32[Any, "batch predicted"]
    counts: Int32[Any, " batch"]

    @property
    def source_mask(self) -> Bool[np.ndarray, "batch source"]:
        """True = real token."""
        return self.source_segments > 0


PackedBatch = PackedSeq2SeqBatch | PackedClassifierBatch | PackedMaskedBatch


@dataclass(frozen=True)
class Packing:
    """Rows, as full as first fit makes them. A place is for lengths, and any example of these lengths can take it.

    Args:
        order: the examples, those of equal lengths side by side, (examples,).
        group: says in this order which of them have equal lengths, (examples,).
        places: of each row, where in this order its examples stand; -1 after the last, (rows, segments).
    """

    order: Int[np.ndarray, " examples"]
    group: Int[np.ndarray, " examples"]
    places: Int[np.ndarray, "rows segments"]

    def shuffled(self, rng: np.random.Generator) -> Int[np.ndarray, "rows segments"]:
        """The examples of each row (-1 = none): other ones of the same lengths, and the rows in another order."""
        examples = self.order[np.lexsort((rng.random(len(self.order)), self.group))]
        rows = np.where(self.places == NOTHING, NOTHING, examples[self.places])
        return rows[rng.permutation(len(rows))]


def pack(lengths: Int[np.ndarray, "examples sides"], room: Sequence[int]) -> Packing:
    """Put each example into the first row that has room for it, large ones first (first-fit decreasing: Johnson, 1973).

    Examples of equal lengths are placed together, which gives the same rows in less time.

    Args:
        lengths: tokens of each example: of its source, or of its source and its target.
        room: tokens of a row, on each side. Every example fits into an empty one.
    """
    sizes, group, counts = np.unique(lengths, axis=0, return_inverse=True, return_counts=True)
    by_size = np.argsort(-(sizes / np.array(room)).max(axis=1), kind="stable")
    order = np.argsort(np.argsort(by_size)[group.reshape(-1)], kind="stable")
    free = np.tile(room, (len(lengths), 1))
    candidates, opened, row_of = np.zeros(0, int), 0, []
    for size, count in zip(sizes[by_size], counts[by_size].tolist(), strict=True):
        fits = (free[candidates] // size).min(axis=1)
        taken = np.clip(count - (np.cumsum(fits) - fits), 0, fits)
        row_of.append(np.repeat(candidates, taken))
        rest, at_once = count - int(taken.sum()), int((np.array(room) // size).min())
        new = opened + np.arange(rest) // at_once
        row_of.append(new)
        np.subtract.at(free, np.concatenate(row_of[-2:]), size)
        opened += -(-rest // at_once)
        candidates = np.concatenate([candidates, np.unique(new)])
        candidates = candidates[(free[candidates] >= sizes.min(axis=0)).all(axis=1)]
    return Packing(order, np.repeat(np.arange(len(counts)), counts[by_size]), _places(np.concatenate(row_of), opened))


def _places(row_of: Int[np.ndarray, " examples"], rows: int) -> Int[np.ndarray, "rows segments"]:
    """Of each row, which entries of ``row_of`` name it."""
    by_row = np.argsort(row_of, kind="stable")
    counts = np.bincount(row_of, minlength=rows)
    segment = np.arange(len(row_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.full((rows, counts.max()), NOTHING)
    places[row_of[by_row], segment] = by_row
    return places
