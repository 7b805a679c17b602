"""Token ids -> padded batches of few shapes, in an order that is a function of (seed, epoch).

A batch is a NamedTuple of arrays (numpy's here, a framework's on its device) and thus already a pytree. Rows are
right-padded; a row of length 0 is filler that completes the last batch of a bucket: losses and metrics leave it out.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int, Int32

from flax_transformer.config import BatchConfig
from flax_transformer.data.masking import Key, MaskedBatch, Masking
from flax_transformer.data.packing import (
    NOTHING,
    PackedBatch,
    PackedClassifierBatch,
    PackedMaskedBatch,
    PackedSeq2SeqBatch,
)

Number = TypeVar("Number", int, np.ndarray)

_LENGTH_MULTIPLE = 8  # accelerators like whole tiles
# Streams of random numbers that must not share draws.
_ORDER, _WORD_DROPOUT, _MASKING, _FIXED_MASKING = range(4)


class Seq2SeqBatch(NamedTuple):
    """``target`` holds the begin token, the text and the end token; its length counts all of them."""

    source: Int32[Any, "batch source"]
    source_lengths: Int32[Any, " batch"]
    target: Int32[Any, "batch target"]
    target_lengths: Int32[Any, " batch"]

    @property
    def source_mask(self) -> Bool[np.ndarray, "batch source"]:
        """True = real token."""
        return np.arange(self.source.shape[1]) < self.source_lengths[:, None]

    @property
    def target_mask(self) -> Bool[np.ndarray, "batch target"]:
        """True = real token."""
        return np.arange(self.target.shape[1]) < self.target_lengths[:, None]


class ClassifierBatch(NamedTuple):
    source: Int32[Any, "batch source"]
    source_lengths: Int32[Any, " batch"]
    labels: Int32[Any, " batch"]

    @property
    def source_mask(self) -> Bool[np.ndarray, "batch source"]:
        """True = real token."""
        return np.arange(self.source.shape[1]) < self.source_lengths[:, None]


class MultilabelBatch(NamedTuple):
    """``labels`` are true where a text has the label of a class."""

    source: Int32[Any, "batch source"]
    source_lengths: Int32[Any, " batch"]
    labels: Bool[Any, "batch classes"]

    @property
    def source_mask(self) -> Bool[np.ndarray, "batch source"]:
        """True = real token."""
        return np.arange(self.source.shape[1]) < self.source_lengths[:, None]


# A row for each example, padded to the longest; and what training may be given instead.
PaddedBatch = Seq2SeqBatch | ClassifierBatch | MultilabelBatch | MaskedBatch
Batch = PaddedBatch | PackedBatch


class Sequences:
    """Token sequences of many lengths, end to end in one array.

    There may be several readings of them, in which the words of a text are split into other tokens.

    Attributes:
        lengths: tokens of each sequence, in that reading in which it has the most.
    """

    def __init__(self, *readings: Iterable[Sequence[int] | Int32[np.ndarray, " row"]]):
        arrays = [[np.array(row, np.int32) for row in rows] for rows in readings]
        lengths = np.array([[len(row) for row in rows] for rows in arrays], np.int64)
        self._tokens = np.concatenate([*itertools.chain.from_iterable(arrays), np.zeros(0, np.int32)])
        self._place(lengths.cumsum().reshape(lengths.shape) - lengths, lengths)

    def _place(self, starts: Int[np.ndarray, "readings n"], lengths: Int[np.ndarray, "readings n"]) -> None:
        self._starts, self._lengths = starts, lengths
        self.lengths: Int[np.ndarray, " n"] = lengths[0] if len(lengths) == 1 else lengths.max(axis=0)

    def reading(self, number: int) -> "Sequences":
        """One of the readings; they are taken in turns."""
        chosen = number % len(self._lengths)
        return self._view(self._starts[chosen : chosen + 1], self._lengths[chosen : chosen + 1])

    def take(self, indices: Int[np.ndarray, " taken"]) -> "Sequences":
        """The sequences of these indices."""
        return self._view(self._starts[:, indices], self._lengths[:, indices])

    def cut(self, longest: int, end: Sequence[int] = ()) -> "Sequences":
        """Each sequence without its tokens past ``longest``; those that are cut still end with the tokens ``end``."""
        view = self._view(self._starts, np.minimum(self._lengths, longest))
        last = end[-longest:]
        if last:
            view._tokens = self._tokens.copy()
            for start in self._starts[self._lengths > longest]:
                view._tokens[start + longest - len(last) : start + longest] = last
        return view

    def _view(self, starts: Int[np.ndarray, "readings n"], lengths: Int[np.ndarray, "readings n"]) -> "Sequences":
        view = copy.copy(self)
        view._place(starts, lengths)
        return view

    def padded(
        self, indices: Int[np.ndarray, " batch"], width: int, pad_id: int
    ) -> tuple[Int32[np.ndarray, "batch width"], Int32[np.ndarray, " batch"]]:
        """Rows of the first reading and their lengths; an index of -1 gives a row of padding with length 0."""
        lengths = np.where(indices == NOTHING, 0, self._lengths[0, indices])
        columns = np.arange(width)
        real = columns < lengths[:, None]
        rows = np.full(real.shape, pad_id, np.int32)
        rows[real] = self._tokens[(self._starts[0, indices][:, None] + columns)[real]]
        return rows, lengths.astype(np.int32)

    def packed(
        self, indices: Int[np.ndarray, "batch segments"], width: int, pad_id: int
    ) -> tuple[Int32[np.ndarray, "batch width"], Int32[np.ndarray, "batch width"], Int32[np.ndarray, "batch segments"]]:
        """Rows of several sequences each, the segment of each token, and the length of each segment.

        They are of the first reading. An index of -1 gives a segment of length 0.
        """
        lengths = np.where(indices == NOTHING, 0, self._lengths[0, indices])
        ends, columns = lengths.cumsum(axis=1), np.arange(width)
        segments = 1 + (columns[:, None] >= ends[:, None]).sum(axis=2)
        real = columns < ends[:, -1:]
        flat, starts = lengths.reshape(-1), self._starts[0, indices].reshape(-1)
        rows = np.full(real.shape, pad_id, np.int32)
        # In the order of the rows, their real tokens are those of one sequence after the other.
        rows[real] = self._tokens[np.repeat(starts - (flat.cumsum() - flat), flat) + np.arange(flat.sum())]
        return rows, np.where(real, segments, 0).astype(np.int32), lengths.astype(np.int32)


@dataclass(frozen=True)
class Encoded:
    """A split as token ids. ``targets`` are sequences (seq2seq), class ids, or one row of labels for each example, or
    say which tokens are masked.

    ``truncated`` counts the examples that were cut, ``dropped`` those that were left out; where there are any, ``kept``
    are the indices of the others.
    """

    sources: Sequences
    targets: Sequences | Int32[np.ndarray, " examples"] | Bool[np.ndarray, "examples classes"] | Masking
    pad_id: int
    unk_id: int
    # special tokens around texts, which word dropout leaves: token types follow from them
    frame: tuple[int, ...] = ()
    truncated: int = 0
    dropped: int = 0
    kept: Int[np.ndarray, " examples"] | None = None

    def __len__(self) -> int:
        return len(self.sources.lengths)

    @property
    def target_lengths(self) -> Int[np.ndarray, " examples"] | None:
        """Tokens of each target; None where no text is written."""
        return self.targets.lengths if isinstance(self.targets, Sequences) else None

    @property
    def labels(self) -> Int32[np.ndarray, " examples"] | Bool[np.ndarray, "examples classes"]:
        """The class ids of a classification split; or of each example and class, whether it has this label."""
        if not isinstance(self.targets, np.ndarray):
            raise TypeError(f"expected class ids or labels, got {type(self.targets).__name__}")
        return self.targets

    def reading(self, number: int) -> "Encoded":
        """The split as it is read for the ``number``th time."""
        targets = self.targets.reading(number) if isinstance(self.targets, Sequences) else self.targets
        return replace(self, sources=self.sources.reading(number), targets=targets)

    def batch(
        self, indices: Int[np.ndarray, " batch"], shape: "Shape", keys: Sequence[Key] | None = None
    ) -> PaddedBatch:
        """The examples of these indices (-1 = filler), padded to ``shape``.

        Args:
            keys: of the rows, what is masked in each follows from; from its index if not given, as in evaluation.
        """
        source, source_lengths = self.sources.padded(indices, shape.source, self.pad_id)
        if isinstance(self.targets, Masking):
            return self.targets.batch(source, source_lengths, _fixed_keys(indices) if keys is None else keys)
        if isinstance(self.targets, Sequences):
            target, target_lengths = self.targets.padded(indices, shape.target, self.pad_id)
            return Seq2SeqBatch(source, source_lengths, target, target_lengths)
        is_filler = indices == NOTHING
        if self.targets.ndim == 2:
            return MultilabelBatch(source, source_lengths, self.targets[indices] & ~is_filler[:, None])
        return ClassifierBatch(source, source_lengths, np.where(is_filler, 0, self.targets[indices]))

    def packed(
        self, indices: Int[np.ndarray, "batch segments"], shape: "Shape", keys: Sequence[Key] | None = None
    ) -> PackedBatch:
        """Rows of several examples each (-1 = none). Other arguments as of :meth:`batch`."""
        source, segments, lengths = self.sources.packed(indices, shape.source, self.pad_id)
        if isinstance(self.targets, Masking):
            keys = _fixed_keys(indices[:, 0]) if keys is None else keys
            masked = self.targets.batch(source, lengths.sum(axis=1, dtype=np.int32), keys)
            return PackedMaskedBatch(masked.source, segments, masked.positions, masked.labels, masked.counts)
        if isinstance(self.targets, Sequences):
            target, target_segments, _ = self.targets.packed(indices, shape.target, self.pad_id)
            return PackedSeq2SeqBatch(source, segments, target, target_segments)
        return PackedClassifierBatch(source, segments, lengths, np.where(indices == NOTHING, 0, self.targets[indices]))


def _fixed_keys(indices: Int[np.ndarray, " rows"]) -> list[Key]:
    """What is masked in evaluation follows from the index of a row's first example."""
    return [(0, _FIXED_MASKING, max(index, 0)) for index in indices.tolist()]


class Shape(NamedTuple):
    """Padded lengths; ``target`` is 0 where no text is written."""

    source: int
    target: int


@dataclass(frozen=True)
class Bucket:
    """Examples of like length, which share one padded shape."""

    shape: Shape
    indices: Int[np.ndarray, " examples"]


def make_buckets(encoded: Encoded, config: BatchConfig) -> list[Bucket]:
    """Cut the examples into at most ``config.buckets`` buckets with little padding, short ones first.

    The work of a bucket is its number of batches times the tokens of a padded row. Time after time, the one cut that
    saves the most work is made: at a source length or at a target length, through one of the buckets so far.
    """
    source = encoded.sources.lengths
    target = encoded.targets.lengths if isinstance(encoded.targets, Sequences) else np.zeros_like(source)
    widths = np.stack([_source_widths(source, config), _target_widths(target, config)])
    parts = [np.lexsort((source, source + target))]
    while len(parts) < config.buckets:
        cuts = [_best_cut(widths[:, part], config.size) for part in parts]
        best = max(range(len(parts)), key=lambda i: cuts[i].saving)
        if cuts[best].saving == 0:
            break
        part = parts.pop(best)
        low = widths[cuts[best].side, part] <= cuts[best].width
        parts += [part[low], part[~low]]
    buckets = [Bucket(Shape(*widths[:, part].max(axis=1).tolist()), part) for part in parts]
    return sorted(buckets, key=lambda bucket: (sum(bucket.shape), bucket.shape))


class _Cut(NamedTuple):
    """Between the rows up to ``width`` on one side (0 source, 1 target) and the wider ones."""

    saving: int
    side: int
    width: int


def _best_cut(widths: Int[np.ndarray, "2 n"], size: int) -> _Cut:
    rows = widths.shape[1]
    whole = _work(rows, int(widths.max(axis=1).sum()), size)
    best = _Cut(0, 0, 0)
    for side in range(2):
        ordered = widths[:, np.argsort(widths[side])]
        cuts = np.flatnonzero(np.diff(ordered[side])) + 1  # the numbers of rows below each possible cut
        if cuts.size == 0:
            continue
        below = np.maximum.accumulate(ordered, axis=1)[:, cuts - 1].sum(axis=0)
        above = np.maximum.accumulate(ordered[:, ::-1], axis=1)[:, rows - 1 - cuts].sum(axis=0)
        savings = whole - _work(cuts, below, size) - _work(rows - cuts, above, size)
        cut = savings.argmax()
        if savings[cut] > best.saving:
            best = _Cut(int(savings[cut]), side, int(ordered[side, cuts[cut] - 1]))
    return best


def _work(rows: Number, row_tokens: Number, size: int) -> Number:
    """Padded tokens of ``rows`` examples, the last batch's filler included."""
    return -(-rows // size) * size * row_tokens


def _source_widths(lengths: Int[np.ndarray, " n"], config: BatchConfig) -> Int[np.ndarray, " n"]:
    return np.minimum(_round_up(lengths), config.max_source_length)


def _target_widths(lengths: Int[np.ndarray, " n"], config: BatchConfig) -> Int[np.ndarray, " n"]:
    """One more than a multiple: the decoder reads all but the last token and is scored on all but the first."""
    widths = np.minimum(_round_up(lengths - 1) + 1, config.max_target_length)
    return np.where(lengths == 0, 0, widths)


def _round_up(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return -(-lengths // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE


class TrainingBatches(Sequence[Batch]):
    """The batches of a whole run, by step: ``batches[step]`` for ``step`` in ``range(len(batches))``.

    Each epoch holds every example exactly once, in ``steps_per_epoch`` batches of ``config.size`` rows, and takes the
    next of its readings. Its order follows from (seed, epoch) alone, word dropout and masking from (seed, step), so a
    resumed run sees what the uninterrupted one would have seen.

    Args:
        rows: of each batch, those to make; all of them if not given. They are the same rows whatever others are made.
    """

    def __init__(
        self,
        encoded: Encoded,
        config: BatchConfig,
        *,
        epochs: int,
        seed: int,
        rows: Int[np.ndarray, " rows"] | None = None,
    ):
        self.encoded, self._config, self._epochs, self._seed = encoded, config, epochs, seed
        self.steps_per_epoch = self._arrange()
        self._rows = np.arange(config.size) if rows is None else rows
        self._current: tuple[int, list[tuple[Shape, np.ndarray]]] = (-1, [])

    def __len__(self) -> int:
        return self.steps_per_epoch * self._epochs

    def __getitem__(self, step: int) -> Batch:
        shape, indices = self._plan(step)
        keys = [(self._seed, _MASKING, step, row) for row in self._rows.tolist()]
        encoded = self.encoded.reading(step // self.steps_per_epoch)
        return self._drop_words(self._make(encoded, indices[self._rows], shape, keys), step)

    def indices(self, step: int) -> Int[np.ndarray, " batch"]:
        """Which examples the whole batch of a step is made of; -1 is filler."""
        return self._plan(step)[1]

    def fillers(self) -> list[Batch]:
        """A batch of each shape, without any example."""
        nothing = np.full(self._config.size, NOTHING)
        return [self._make(self.encoded, nothing, bucket.shape, None) for bucket in self.buckets]

    @property
    def padding(self) -> float:
        """The share of padding in the tokens of an epoch."""
        rows = sum(len(indices) * sum(shape) for shape, indices in self._epoch_plan(0))
        encoded = self.encoded.reading(0)
        targets = encoded.target_lengths
        return 1 - float(encoded.sources.lengths.sum() + (0 if targets is None else targets.sum())) / rows

    def _arrange(self) -> int:
        """Find the shapes of the batches; return how many batches an epoch has."""
        self.buckets = make_buckets(self.encoded, self._config)
        return sum(-(-len(bucket.indices) // self._config.size) for bucket in self.buckets)

    def _make(
        self, encoded: Encoded, indices: Int[np.ndarray, " rows"], shape: Shape, keys: Sequence[Key] | None
    ) -> Batch:
        return encoded.batch(indices, shape, keys)

    def _plan(self, step: int) -> tuple[Shape, Int[np.ndarray, " batch"]]:
        if not 0 <= step < len(self):
            raise IndexError(f"expected a step in [0, {len(self)}), got {step}")
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._epoch_plan(epoch)[position]

    def _epoch_plan(self, epoch: int) -> list[tuple[Shape, np.ndarray]]:
        """Shape and indices of each batch of an epoch. The current epoch's is kept."""
        current, plan = self._current
        if current != epoch:
            plan = self._shuffled(np.random.default_rng((self._seed, _ORDER, epoch)))
            self._current = (epoch, plan)
        return plan

    def _shuffled(self, rng: np.random.Generator) -> list[tuple[Shape, np.ndarray]]:
        plan = [
            (bucket.shape, indices)
            for bucket in self.buckets
            for indices in chunks(rng.permutation(bucket.indices), self._config.size)
        ]
        return [plan[i] for i in rng.permutation(len(plan))]

    def _drop_words(self, batch: Batch, step: int) -> Batch:
        if self._config.word_dropout == 0:
            return batch
        rng = np.random.default_rng((self._seed, _WORD_DROPOUT, step))
        # Drawn for the whole batch, so that a row's words do not depend on which other rows are made.
        draws = rng.random((self._config.size, batch.source.shape[1]))[self._rows]
        is_word = batch.source_mask & ~np.isin(batch.source, self.encoded.frame)
        dropped = (draws < self._config.word_dropout) & is_word
        return batch._replace(source=np.where(dropped, np.int32(self.encoded.unk_id), batch.source))


def evaluation_batches(
    encoded: Encoded, config: BatchConfig
) -> Iterator[tuple[Int[np.ndarray, " batch"], PaddedBatch]]:
    """Every example once, short ones first, with the index of each row (-1 for filler)."""
    for bucket in make_buckets(encoded, config):
        for indices in chunks(bucket.indices, config.size):
            yield indices, encoded.batch(indices, bucket.shape)


def chunks(indices: Int[np.ndarray, " n *segments"], size: int) -> Int[np.ndarray, "chunks size *segments"]:
    """Batches of ``size`` rows, the last one completed with filler."""
    count = -(-len(indices) // size)
    filler = np.full((count * size - len(indices), *indices.shape[1:]), NOTHING)
    return np.concatenate([indices, filler]).reshape(count, size, *indices.shape[1:])
