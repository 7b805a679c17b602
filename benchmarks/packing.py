"""Padded rows in buckets against packed rows: ``python -m benchmarks.packing`` (a minute on two cores).

Both ways train the same small model on the same texts, in turns. What is compared is the share of padding, and the real
tokens of a second of processor time. With the folder of Multi30k's files as argument it is translation that is trained,
otherwise generated manifests. Needs ``pip install ".[train]"``.
"""

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import jax

from flax_transformer.config import BatchConfig, ManifestsData, ModelConfig, Multi30kData, TokenizerConfig, TrainConfig
from flax_transformer.data.batches import Batch, Encoded
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.packed_batches import training_batches
from flax_transformer.data.tasks import load_splits
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.training.loop import with_vocabulary
from flax_transformer.training.step import TrainStep

ROUNDS, STEPS = 3, 5
MANIFESTS = ManifestsData(train_size=600, validation_size=1, test_size=1, max_items=3)


def read(folder: str | None) -> tuple[TrainConfig, Encoded]:
    """Padded rows are those of this config; the texts are encoded once for both ways."""
    data, longest = (MANIFESTS, 512) if folder is None else (Multi30kData(path=folder), 128)
    model = ModelConfig(
        d_model=128, num_heads=4, d_ff=512, num_encoder_layers=1, num_decoder_layers=1, max_length=longest
    )
    batch = BatchConfig(size=64, max_source_length=longest, max_target_length=longest, buckets=4)
    config = TrainConfig(data=data, tokenizer=TokenizerConfig(vocab_size=4_000), model=model, batch=batch)
    train = load_splits(config.data, config.seed).train
    tokenizer = train_tokenizer(config.tokenizer, [*train.sources, *map(str, train.targets)])
    return with_vocabulary(config, tokenizer, ()), encode_examples(train, tokenizer, batch, training=True)


class Way:
    """One way to make batches, and the training on them."""

    def __init__(self, config: TrainConfig, encoded: Encoded) -> None:
        self.batches = training_batches(encoded, config.batch, epochs=1, seed=0)
        self.step = TrainStep(config, len(self.batches))
        self.state = self.step.init()
        self.feed: Iterator[Batch] = itertools.cycle(self.batches)
        shapes = {tuple(array.shape for array in batch): batch for batch in self.batches}
        self.run(list(shapes.values()))  # compiles
        self.shapes = len(shapes)

    def run(self, batches: list[Batch]) -> float:
        """Real tokens of a second of processor time."""
        start, tokens = time.process_time(), []
        for batch in batches:
            self.state, metrics = self.step(self.state, jax.device_put(batch))
            tokens.append(metrics["tokens"])
        return sum(map(int, tokens)) / (time.process_time() - start)

    def next_round(self) -> float:
        return self.run(list(itertools.islice(self.feed, STEPS)))


def main(folder: str | None = None) -> None:
    config, encoded = read(folder)
    longest = config.batch.max_source_length
    sources, targets = encoded.sources.lengths, encoded.target_lengths
    mean = float(sources.mean() if targets is None else (sources + targets).mean() / 2)
    # About as many tokens in a packed batch as in a padded one.
    rows = max(1, round(config.batch.size * mean / longest))
    packed = replace(config, batch=replace(config.batch, packing=True, size=rows))
    ways = {"buckets": Way(config, encoded), "packed": Way(packed, encoded)}
    speeds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            speeds[name].append(way.next_round())
    print(f"{len(encoded):,} pairs of {mean:.1f} tokens a side")
    for name, way in ways.items():
        speed, shape = median(speeds[name]), f"{way.shapes} shapes, {way.batches.padding:.1%} padding"
        print(f"{name:<8} {shape}, {way.batches.steps_per_epoch} steps an epoch, {speed:,.0f} tokens/s of a core")
    ratios = sorted(a / b for a, b in zip(speeds["packed"], speeds["buckets"], strict=True))
    print(f"packed / buckets: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:2])
