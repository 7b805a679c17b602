"""Training on generated manifests, with a clock on the input."""

import time
from dataclasses import replace
from statistics import mean
from typing import Any

import jax

from flax_transformer.bench.flax_side import set_up
from flax_transformer.bench.worker import Candidate
from flax_transformer.config import ManifestsData, TrainConfig
from flax_transformer.data.batches import TrainingBatches
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.tasks import load_splits
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.training.input import prefetch
from flax_transformer.training.loop import with_vocabulary
from flax_transformer.training.step import TrainStep

_EXAMPLES = 2_000


class Input(Candidate):
    def __init__(self, config: TrainConfig) -> None:
        set_up(config)
        data = ManifestsData(train_size=_EXAMPLES, validation_size=1, test_size=1)
        splits = load_splits(data, config.seed)
        tokenizer = train_tokenizer(config.tokenizer, [*splits.train.sources, *map(str, splits.train.targets)])
        encoded = encode_examples(splits.train, tokenizer, config.batch, training=True)
        self.config = with_vocabulary(replace(config, data=data), tokenizer, splits.classes)
        self.batches = TrainingBatches(encoded, config.batch, epochs=1_000, seed=config.seed)

    def measure(self, steps: int) -> dict[str, float]:
        """Each step is waited for before its successor's batch is asked for, so that no wait can hide behind a step."""
        step = TrainStep(self.config, len(self.batches))
        state = step.init()
        some: list[Any] = [self.batches[i] for i in range(self.batches.steps_per_epoch)]
        for batch in {tuple(array.shape for array in batch): batch for batch in some}.values():
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        feed = prefetch(self.batches)
        next(feed)  # starts the thread
        waits, start = [], time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(feed)
            waits.append(time.perf_counter() - asked)
            state, _ = step(state, batch)
            jax.block_until_ready(state)
        total = time.perf_counter() - start
        start = time.perf_counter()
        for i in range(steps):
            self.batches[i]
        making = (time.perf_counter() - start) / steps
        return {
            "step_seconds": total / steps,
            "wait_seconds": mean(waits),
            "longest_wait_seconds": max(waits),
            "share": sum(waits) / total,
            "making_seconds": making,
        }
