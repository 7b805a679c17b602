"""An epoch of IMDb as the candidates of ``bench e2e`` run it: from the file to tokens, in steps, and to metrics."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flax_transformer.config import TrainConfig
from flax_transformer.data.batches import ClassifierBatch, Encoded, PaddedBatch, TrainingBatches, evaluation_batches
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.examples import Examples
from flax_transformer.data.tasks import load_splits
from flax_transformer.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer


class Work(NamedTuple):
    """Seconds, and the real tokens that were read in them."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class Epoch:
    """All that is read off the file.

    Args:
        seconds: what reading, the tokenizer and encoding took; a tokenizer in ``folder`` is not learned again.
    """

    config: TrainConfig
    tokenizer: Tokenizer
    classes: tuple[str, ...]
    train: Encoded
    test: Encoded
    test_examples: Examples
    batches: TrainingBatches
    seconds: dict[str, float]

    @property
    def real_tokens(self) -> int:
        return int(self.train.sources.lengths.sum())

    def count_tokens(self, examples: Examples) -> int:
        """Real tokens of examples of the test split, as they are read: cut to the longest length."""
        encoded = encode_examples(examples, self.tokenizer, self.config.batch, training=False)
        return int(encoded.sources.lengths.sum())

    def waste(self) -> dict[str, float]:
        """Share of padding in the tokens of an epoch: in our buckets, and with all rows of the longest length."""
        size, longest = self.config.batch.size, self.config.batch.max_source_length
        buckets = sum(
            math.ceil(len(bucket.indices) / size) * size * bucket.shape.source for bucket in self.batches.buckets
        )
        padded = len(self.train) * longest
        return {name: 1 - self.real_tokens / tokens for name, tokens in (("buckets", buckets), ("longest", padded))}

    def shapes(self) -> list[PaddedBatch]:
        """A batch of each shape, short ones first."""
        size = self.config.batch.size
        return [self.train.batch(np.resize(bucket.indices, size), bucket.shape) for bucket in self.batches.buckets]


def read_epoch(config: TrainConfig, folder: Path) -> Epoch:
    """From the file to batches; the tokenizer is left in ``folder`` for the next candidate."""
    seconds = {}
    start = time.perf_counter()
    splits = load_splits(config.data, config.seed)
    seconds["reading"] = time.perf_counter() - start

    start = time.perf_counter()
    file = folder / "tokenizer.json"
    if file.exists():
        tokenizer = load_tokenizer(file)
    else:
        tokenizer = train_tokenizer(config.tokenizer, splits.train.sources)
        tokenizer.save(file)
        seconds["tokenizer"] = time.perf_counter() - start

    start = time.perf_counter()
    train = encode_examples(splits.train, tokenizer, config.batch, training=True)
    test = encode_examples(splits.test, tokenizer, config.batch, training=False)
    batches = TrainingBatches(train, config.batch, epochs=1, seed=config.seed)
    seconds["encoding"] = time.perf_counter() - start
    return Epoch(config, tokenizer, splits.classes, train, test, splits.test, batches, seconds)


def count_real(batch: PaddedBatch) -> int:
    return int(np.asarray(batch.source_lengths).sum())


def share(examples: Examples, fraction: float) -> Examples:
    """Evenly spaced examples of a split: this fraction of them, at least one."""
    every = max(1, round(1 / fraction))
    return Examples(examples.sources[::every], examples.targets[::every])


def bucketed(encoded: Encoded, config: TrainConfig) -> Iterator[PaddedBatch]:
    """A split for evaluation, in our buckets."""
    for _, batch in evaluation_batches(encoded, config.batch):
        yield batch


def padded(encoded: Encoded, indices: list[int], config: TrainConfig) -> ClassifierBatch:
    """What the usual collate function makes of rows: all as long as the longest that is allowed."""
    rows = np.array(indices)
    width = config.batch.max_source_length
    source, lengths = encoded.sources.padded(rows, width, encoded.pad_id)
    labels: Any = encoded.targets
    return ClassifierBatch(source, lengths, labels[rows])
