"""How well the labels of texts are told, and from which probability on a text is said to have one."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

DEFAULT_THRESHOLD = 0.5
_WIDTH = 24  # characters of a name

Truths = Bool[np.ndarray, "texts classes"]


def score_labels(predictions: Sequence[Sequence[bool]], references: Sequence[Sequence[bool]]) -> dict[str, float | str]:
    """F1 of all pairs of a text and a label (micro), the mean of the labels' own F1 (macro), and the share of texts
    whose labels are all right and complete."""
    predicted, actual = np.array(predictions, bool), np.array(references, bool)
    counts = count(predicted, actual)
    return {
        "micro_f1": float(precision_recall_f1(counts.sum(axis=1, keepdims=True))[2, 0]),
        "macro_f1": macro_f1(counts),
        "subset_accuracy": float((predicted == actual).all(axis=1).mean()),
    }


def count(predicted: Truths, actual: Truths) -> Int[np.ndarray, "3 classes"]:
    """Of each label: texts that rightly got it, that got it, and that have it."""
    return np.stack([(predicted & actual).sum(axis=0), predicted.sum(axis=0), actual.sum(axis=0)])


def precision_recall_f1(counts: Int[np.ndarray, "3 classes"]) -> Float[np.ndarray, "3 classes"]:
    """Of each label; 0 where no text has it or got it, as in scikit-learn."""
    hits, predicted, actual = counts
    return np.stack(
        [hits / np.maximum(predicted, 1), hits / np.maximum(actual, 1), 2 * hits / np.maximum(predicted + actual, 1)]
    )


def macro_f1(counts: Int[np.ndarray, "3 classes"]) -> float:
    """The mean of F1 over the labels that occur, as labels or as predictions; 0 where none does."""
    occurs = counts[1] + counts[2] > 0
    return float(precision_recall_f1(counts)[2, occurs].mean()) if occurs.any() else 0.0


def best_thresholds(probabilities: Float[np.ndarray, "texts classes"], actual: Truths) -> tuple[float, ...]:
    """Of each label, the probability from which on saying it gives the highest F1 on these texts.

    It lies halfway between the last probability that is to be said and the next one that is not, so that rounding moves
    no text across it. Of cuts with the same F1 it is the nearest to 0.5, and 0.5 where no text has the label.
    """
    columns = zip(np.asarray(probabilities, np.float64).T, actual.T, strict=True)
    return tuple(_best_threshold(column, has) for column, has in columns)


def as_scores(thresholds: Sequence[float], classes: Sequence[str]) -> dict[str, float | str]:
    """Thresholds as they stand among the scores of the split that they were chosen on."""
    return {f"threshold/{name}": value for name, value in zip(classes, thresholds, strict=True)}


def thresholds_in(scores: Mapping[str, float], classes: Sequence[str]) -> tuple[float, ...]:
    """The inverse of :func:`as_scores`; 0.5 for labels that the scores do not name."""
    return tuple(scores.get(f"threshold/{name}", DEFAULT_THRESHOLD) for name in classes)


def _best_threshold(probabilities: Float[np.ndarray, " texts"], has: Bool[np.ndarray, " texts"]) -> float:
    if not has.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    descending = np.append(probabilities[order], 0.0)
    ends = np.flatnonzero(descending[:-1] > descending[1:])  # a cut between equal ones is none
    if not ends.size:
        return DEFAULT_THRESHOLD
    said = ends + 1
    f1 = 2 * np.cumsum(has[order])[ends] / (said + has.sum())
    middles = (descending[ends] + descending[said]) / 2
    best = np.flatnonzero(f1 == f1.max())
    return float(middles[best[np.abs(middles[best] - DEFAULT_THRESHOLD).argmin()]])


def lines(counts: Int[np.ndarray, "3 classes"], classes: Sequence[str], thresholds: Sequence[float]) -> Iterator[str]:
    """A table by label."""
    names = [" ".join(name.split())[:_WIDTH] for name in classes]
    width = max(5, *map(len, names))
    yield f"\n{'label':<{width}}  precision  recall      f1  texts  threshold"
    rows = zip(names, precision_recall_f1(counts).T, counts[2], thresholds, strict=True)
    for name, values, texts, threshold in rows:
        precision, recall, f1 = (f"{value:.1%}" for value in values)
        yield f"{name:<{width}}  {precision:>9}  {recall:>6}  {f1:>6}  {texts:>5}  {threshold:>9.3f}"
