"""Draw learning curves: ``python -m benchmarks.curves RUN [RUN ...] --output curves.png``."""

import json
from pathlib import Path

import tyro
from tyro.conf import Positional

from flax_transformer.errors import UserError


def read_curve(run: Path, name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one metric of a run.

    Raises:
        UserError: the run has no metrics, or not this one.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: expected the metrics of a run, but there are none; name a run folder")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    points = [(line["epoch"], line[name]) for line in lines if name in line]
    if not points:
        known = sorted({key for line in lines for key in line})
        raise UserError(f"{path}: expected the metric {name!r}, got {', '.join(known)}")
    epochs, values = zip(*points, strict=True)
    return list(epochs), list(values)


def draw(runs: Positional[tuple[Path, ...]], output: Path, metric: str) -> None:
    """Training and validation loss beside one validation score, over epochs.

    Args:
        runs: run folders, a colour each.
        output: the picture, .png or .svg.
        metric: a score of the validation split, such as accuracy, exact_match or bleu.
    """
    import matplotlib.pyplot as plt

    figure, (losses, scores) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for index, run in enumerate(runs):
        colour = f"C{index}"
        losses.plot(*read_curve(run, "loss"), color=colour, alpha=0.35, label=f"{run.name}, training")
        losses.plot(*read_curve(run, "validation/loss"), "o-", color=colour, label=f"{run.name}, validation")
        scores.plot(*read_curve(run, f"validation/{metric}"), "o-", color=colour, label=run.name)
    for axes, title in ((losses, "loss"), (scores, f"validation {metric.replace('_', ' ')}")):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    losses.set_yscale("log")
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    tyro.cli(draw)
