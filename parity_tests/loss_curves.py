"""A real training run on both sides: ``python -m loss_curves`` draws its two losses and says how far they part.

The same config, the same batches of manifests, the same initial weights, and dropout with the masks that JAX drew.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro
from rich.progress import track

from flax_transformer.config import BatchConfig, ManifestsData, TrainConfig
from flax_transformer.data.batches import Batch, TrainingBatches
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.tasks import load_splits
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.pages.charts import Axis, Line, chart
from flax_transformer.parity import flax_side, torch_side
from flax_transformer.parity.cases import random_weights
from flax_transformer.presets import PRESETS

DOCS = Path(__file__).parents[1] / "docs"
_COLORS = ":root { --c1: #1f6feb; --c2: #d9730d; --soft: #6b7280; --grid: #8883; }"  # readable on light and dark


def manifests(steps: int) -> tuple[TrainConfig, list[Batch]]:
    """The default manifests run, with dropout and smaller batches, and its first batches."""
    preset = PRESETS["manifests"]["default"]
    batch = BatchConfig(size=16, buckets=3, max_source_length=512)
    data = ManifestsData(train_size=20 * steps, validation_size=1, test_size=1, max_items=1)
    splits = load_splits(data, preset.seed)
    tokenizer = train_tokenizer(preset.tokenizer, [*splits.train.sources, *map(str, splits.train.targets)])
    model = dataclasses.replace(
        preset.model,
        dropout=0.1,
        attention_dropout=0.1,
        attention_backend="xla",
        source_vocab_size=tokenizer.vocab_size,
        target_vocab_size=tokenizer.vocab_size,
    )
    config = dataclasses.replace(preset, data=data, model=model, batch=batch)
    encoded = encode_examples(splits.train, tokenizer, batch, training=True)
    batches = TrainingBatches(encoded, batch, epochs=1, seed=preset.seed)
    return config, [batches[step] for step in range(steps)]


def train_both(config: TrainConfig, batches: list[Batch]) -> tuple[list[float], list[float]]:
    """The losses of both sides."""
    weights = random_weights(config.model, config.seed)
    flax = flax_side.Trainer(config, weights, len(batches))
    torch_ = torch_side.Trainer(config, weights, len(batches))
    losses: tuple[list[float], list[float]] = ([], [])
    for step, batch in enumerate(track(batches, description="training both twins")):
        keep = flax_side.keep_masks(config, batch, step)
        losses[0].append(flax(batch)["loss"])
        losses[1].append(torch_(batch, keep)["loss"])
    return losses


def main(steps: int = 300, file: Path = DOCS / "images" / "parity-loss.svg") -> None:
    """Train on both sides and draw the two curves.

    Args:
        steps: of each side.
        file: SVG to write.
    """
    flax, torch_ = train_both(*manifests(steps))
    x = range(1, steps + 1)
    lines = [Line("JAX", x, flax, 1), Line("PyTorch", x, torch_, 2, "dashed")]
    figure = chart("Loss of both twins", lines, Axis("step"), Axis("loss"), is_wide=True)
    picture = figure[figure.index("<svg") : figure.index("</svg>")]
    file.parent.mkdir(parents=True, exist_ok=True)
    alone = '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" '
    file.write_text(f"{picture.replace('<svg ', alone, 1)}<style>{_COLORS}</style></svg>\n", encoding="utf-8")
    apart = np.abs(np.subtract(flax, torch_))
    print(f"{steps} steps, loss {flax[0]:.4f} -> {flax[-1]:.4f}; largest difference {apart.max():.2e}")
    print(f"after 10, 100 and all steps: {apart[:10].max():.1e}, {apart[:100].max():.1e}, {apart.max():.1e}")


if __name__ == "__main__":
    tyro.cli(main)
