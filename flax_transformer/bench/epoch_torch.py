"""The PyTorch candidates of ``bench e2e``: the usual loop, padded to the longest length, and one with our buckets."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from flax_transformer.bench.epoch import Work, bucketed, count_real, padded, read_epoch, share
from flax_transformer.bench.torch_side import Torch, logits_of, place
from flax_transformer.config import TrainConfig
from flax_transformer.data.batches import Encoded, PaddedBatch
from flax_transformer.data.encoding import encode_examples

Padding = Literal["longest", "buckets"]


class TorchEpoch(Torch):
    """
    Args:
        config: with the vocabulary of the tokenizer filled in.
        padding: to the longest length, or in the very batches of the JAX candidate.
        folder: of the tokenizer; its ``weights`` are those to start from.
    """

    def __init__(self, config: TrainConfig, padding: Padding, threads: int, folder: Path) -> None:
        self.epoch = read_epoch(config, folder)
        self.padding = padding
        super().__init__(config, "torch", "train", threads, folder / "weights", self.epoch.shapes())
        generator = torch.Generator().manual_seed(config.seed)
        self.training: Any = self.epoch.batches if padding == "buckets" else self._loader(self.epoch.train, generator)
        self.feed: Iterator[PaddedBatch] = iter(self.training)

    def steps(self) -> int:
        """Of an epoch."""
        return len(self.training)

    def _loader(self, encoded: Encoded, shuffled_by: torch.Generator | None = None) -> Iterable[PaddedBatch]:
        return DataLoader(
            range(len(encoded)),  # pyright: ignore[reportArgumentType]
            self.config.batch.size,
            shuffle=shuffled_by is not None,
            generator=shuffled_by,
            collate_fn=lambda indices: padded(encoded, indices, self.config),
        )

    def warm_up(self) -> float:
        """Seconds for a step of each shape."""
        return self.time(len(self.batches))[1]

    def train(self, steps: int) -> Work:
        """The next steps of the epoch."""
        start, tokens = time.perf_counter(), 0
        for _ in range(steps):
            batch = next(self.feed)
            self._train(place(batch, self.device))
            tokens += count_real(batch)
        self._synchronize()
        return Work(time.perf_counter() - start, tokens)

    def evaluate(self, fraction: float) -> tuple[Work, float]:
        """Evenly spaced examples of the test split; also the accuracy."""
        examples = share(self.epoch.test_examples, fraction)
        part = encode_examples(examples, self.epoch.tokenizer, self.config.batch, training=False)
        self.model.eval()
        start, right = time.perf_counter(), 0
        for batch in bucketed(part, self.config) if self.padding == "buckets" else self._loader(part):
            placed = place(batch, self.device)
            with torch.inference_mode():
                predicted = logits_of(self.model, placed).argmax(dim=-1)
            right += int(((predicted == placed.labels) & (placed.source_lengths > 0)).sum())
        seconds = time.perf_counter() - start
        self.model.train()
        return Work(seconds, self.epoch.count_tokens(examples)), right / len(part)
