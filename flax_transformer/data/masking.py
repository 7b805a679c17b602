"""Masked tokens to learn from (Devlin et al., 2019, section 3.1): which are predicted, and what is read in their place.

What is masked in a row follows from a key alone: it is the same in every process, whatever other rows are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from flax_transformer.data.tokenizer import Tokenizer

_PREDICTED = 0.15  # of the tokens of a row; of these,
_MASKED, _RANDOM = 0.8, 0.1  # and the others are read as they are
Key = tuple[int, ...]


class MaskedBatch(NamedTuple):
    """``labels`` are the tokens that stood at ``positions`` of ``source``; the first ``counts`` of a row are real."""

    source: Int32[Any, "batch source"]
    source_lengths: Int32[Any, " batch"]
    positions: Int32[Any, "batch predicted"]
    labels: Int32[Any, "batch predicted"]
    counts: Int32[Any, " batch"]

    @property
    def source_mask(self) -> Bool[np.ndarray, "batch source"]:
        """True = real token."""
        return np.arange(self.source.shape[1]) < self.source_lengths[:, None]


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    The mask is the unknown token, as that of word dropout is: a token of its own would be one that no other task's
    texts hold, and every tokenizer, trained or imported, has this one. Texts hardly hold it: never with byte-level BPE.

    Args:
        mask_id: is read in place of most of them.
        ordinary: the ids that are drawn at random, in order, (ordinary,).
        special: ids that are never predicted.
    """

    mask_id: int
    ordinary: Int[np.ndarray, " ordinary"]
    special: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Masking":
        """With the special tokens of a tokenizer."""
        special = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
        ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), (*special, tokenizer.unk_id))
        return cls(tokenizer.unk_id, ordinary, special)

    def batch(
        self,
        source: Int32[np.ndarray, "batch source"],
        source_lengths: Int32[np.ndarray, " batch"],
        keys: Sequence[Key],
    ) -> MaskedBatch:
        """Mask each row by its key. All rows have room for as many predicted tokens as a full row has."""
        room = count_predicted(source.shape[1])
        masked, positions = source.copy(), np.zeros((len(source), room), np.int32)
        counts = np.zeros(len(source), np.int32)
        for row, (length, key) in enumerate(zip(source_lengths.tolist(), keys, strict=True)):
            chosen, read = self._row(source[row, :length], np.random.default_rng(key).random((3, length)))
            counts[row] = len(chosen)
            positions[row, : len(chosen)], masked[row, chosen] = chosen, read
        labels = np.where(np.arange(room) < counts[:, None], np.take_along_axis(source, positions, axis=1), 0)
        return MaskedBatch(masked, source_lengths, positions, labels.astype(np.int32), counts)

    def _row(
        self, tokens: Int32[np.ndarray, " length"], draws: Float[np.ndarray, "3 length"]
    ) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " chosen"]]:
        """The positions to predict, in order, and the token to read at each."""
        candidates = np.flatnonzero(~np.isin(tokens, self.special))
        first = np.argsort(draws[0, candidates], kind="stable")[: count_predicted(len(candidates))]
        chosen = np.sort(candidates[first])
        _, fate, drawn = draws[:, chosen]
        random = self.ordinary[(drawn * len(self.ordinary)).astype(np.int64)]
        return chosen, np.where(
            fate < _MASKED, self.mask_id, np.where(fate < _MASKED + _RANDOM, random, tokens[chosen])
        )


def count_predicted(tokens: int) -> int:
    """How many of so many tokens are predicted: their share, rounded, and at least one."""
    return min(tokens, max(1, int(_PREDICTED * tokens + 0.5)))
