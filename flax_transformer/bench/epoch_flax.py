"""The JAX candidate of ``bench e2e``: the batches, the prefetching and the evaluation of the training loop."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_transformer.bench.epoch import Work, read_epoch, share
from flax_transformer.bench.flax_side import Flax
from flax_transformer.config import TrainConfig
from flax_transformer.training.evaluate import Evaluator
from flax_transformer.training.input import prefetch
from flax_transformer.training.loop import with_vocabulary


class FlaxEpoch(Flax):
    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.epoch = read_epoch(config, folder)
        config = with_vocabulary(config, self.epoch.tokenizer, self.epoch.classes)
        super().__init__(config, "train", self.epoch.shapes())
        self.feed = prefetch(self.epoch.batches)

    def describe(self) -> dict[str, Any]:
        """What the other candidates and the record need to know."""
        epoch = self.epoch
        return {
            "config": self.config,
            "seconds": epoch.seconds,
            "train_tokens": epoch.real_tokens,
            "test_tokens": int(epoch.test.sources.lengths.sum()),
            "waste": epoch.waste(),
            "shapes": [batch.source.shape for batch in self.batches],
        }

    def steps(self) -> int:
        """Of an epoch."""
        return len(self.epoch.batches)

    def warm_up(self) -> float:
        """Seconds for a step of each shape, compilation included."""
        return self.time(len(self.batches))[1]

    def train(self, steps: int) -> Work:
        """The next steps of the epoch, as the training loop takes them."""
        start, tokens = time.perf_counter(), []
        for _ in range(steps):
            self.state, metrics = self.step(self.state, next(self.feed))
            tokens.append(metrics["tokens"])
        jax.block_until_ready(self.state)
        return Work(time.perf_counter() - start, int(sum(map(int, tokens))))

    def evaluate(self, fraction: float) -> tuple[Work, float]:
        """Evenly spaced examples of the test split; also the accuracy. A pass before it compiles."""
        examples = share(self.epoch.test_examples, fraction)
        evaluator = Evaluator(examples, self.epoch.tokenizer, self.config)
        model = self.step.model(self.state)
        evaluator.evaluate(model)
        start = time.perf_counter()
        predictions, _ = evaluator.evaluate(model)
        seconds = time.perf_counter() - start
        accuracy = np.mean(np.array(predictions) == np.array(examples.targets))
        return Work(seconds, self.epoch.count_tokens(examples)), float(accuracy)
