"""How long the texts are, what padding they take, and what a prediction costs."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from flax_transformer.data.batches import Sequences
from flax_transformer.pages.charts import Axis, Bars, chart, charts
from flax_transformer.pages.html import Html, element, section, table
from flax_transformer.report.answers import Answers, padded_batches
from flax_transformer.training.evaluate import format_counts

_BINS = 30


def lengths(answers: Answers) -> Html:
    """A section: histograms of the lengths, padding, texts too long, and time."""
    sides = _sides(answers)
    histograms = [_histogram(side, values) for side, values in sides.items()]
    counts = answers.evaluator.counts
    told = f"{format_counts(counts, answers.run.config)}." if counts else "No text is longer than the model reads."
    head, *rows = _padding(answers, sides)
    return section(
        "Lengths and cost",
        element("p", f"In tokens, of the texts that were scored. {told[0].upper()}{told[1:]}", class_="soft"),
        charts(*histograms),
        table(head, rows),
        element("p", _time(answers)),
    )


def _sides(answers: Answers) -> dict[str, Int[np.ndarray, " n"]]:
    encoded = answers.evaluator.encoded
    sides = {"source": encoded.sources.lengths}
    return sides | ({"target": encoded.targets.lengths} if isinstance(encoded.targets, Sequences) else {})


def _histogram(side: str, values: Int[np.ndarray, " n"]) -> Html:
    width = max(1, -(-int(values.max()) // _BINS))  # tokens of a bin
    edges = np.arange(0, int(values.max()) + 1 + width, width)
    counts, _ = np.histogram(values, edges)
    labels = [
        f"{low} to {high - 1} tokens: {n:,} texts" for low, high, n in zip(edges, edges[1:], counts, strict=False)
    ]
    bars = Bars("", edges.tolist(), counts.tolist(), labels)
    return chart(f"Length of the {side}", [bars], Axis("tokens"), Axis("texts"))


def _padding(answers: Answers, sides: dict[str, Int[np.ndarray, " n"]]) -> list[Sequence[str]]:
    batches = padded_batches(answers.evaluator.encoded, answers.batch)
    rows: list[Sequence[str]] = [["", "median", "95% have at most", "longest", "limit", "padding"]]
    for side, values in sides.items():
        padded = sum(getattr(shape, side) * count for shape, count in batches) * answers.batch.size
        middle, most = np.percentile(values, (50, 95))
        limit = getattr(answers.batch, f"max_{side}_length")
        share = 1 - int(values.sum()) / padded
        rows.append([side, f"{middle:.0f}", f"{most:.0f}", f"{values.max():,}", f"{limit:,}", f"{share:.1%}"])
    return rows


def _time(answers: Answers) -> str:
    rows = len(answers.examples)
    told = f"Predicting for {rows:,} texts took {answers.seconds:.1f} s in batches of {answers.batch.size}"
    if not answers.batch_seconds:
        return f"{told}, with compilation."
    each = float(np.median(answers.batch_seconds)) / answers.batch.size
    return f"{told}, with compilation; without it, {1000 * each:.1f} ms for a text (the median over batches)."
