"""Which class is taken for which."""

import numpy as np
from jaxtyping import Int

from flax_transformer.data.confusion import confusion_matrix, macro_f1, precision_recall_f1
from flax_transformer.pages.heat_map import Cell, heat_map
from flax_transformer.pages.html import Html, element, section, table
from flax_transformer.report.answers import Answers

_FEW = 20  # classes whose whole matrix is readable
_PAIRS = 15  # most frequent confusions of many classes


def classes(answers: Answers) -> Html:
    """A section: the confusion matrix, or of many classes those confused most, and precision, recall and F1 of each."""
    names = answers.run.classes
    predicted = [prediction.class_id for prediction in answers.predictions]
    matrix = confusion_matrix(predicted, answers.examples.targets, len(names))
    busiest = np.argsort(-(matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)), kind="stable")
    shown = np.arange(len(names)) if len(names) <= _FEW else np.sort(busiest[:_FEW])
    note = "Rows are labels, columns predictions; the color is the stronger, the larger the share of the row."
    if len(names) > _FEW:
        note += f" Of the {len(names)} classes, the {_FEW} that are confused most."
    return section(
        "Classes",
        element("p", note, class_="soft"),
        element("div", _matrix(matrix, names, shown), class_="scroll"),
        _confusions(matrix, names) if len(names) > _FEW else "",
        element("p", f"Macro F1: {macro_f1(matrix):.1%}"),
        _by_class(matrix, names),
    )


def _matrix(
    matrix: Int[np.ndarray, "classes classes"], names: tuple[str, ...], shown: Int[np.ndarray, " shown"]
) -> Html:
    rows = np.maximum(matrix.sum(axis=1), 1)
    cells = [[_cell(int(matrix[i, j]), int(rows[i]), names[i], names[j], i == j) for j in shown] for i in shown]
    labels = [names[i] for i in shown]
    return heat_map(cells, "confusion matrix", size=38, rows=labels, columns=labels)


def _cell(count: int, row: int, label: str, prediction: str, is_right: bool) -> Cell:
    title = f"{label} taken for {prediction}: {count:,} of {row:,} ({count / row:.1%})"
    color = "var(--c1)" if is_right else "var(--c2)"
    return Cell(0.65 * (count / row) ** 0.5, title, f"{count}" if count else "", color)


def _confusions(matrix: Int[np.ndarray, "classes classes"], names: tuple[str, ...]) -> Html:
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    if not pairs:
        return Html()
    rows = [[names[i], names[j], f"{wrong[i, j]:,}", f"{wrong[i, j] / matrix[i].sum():.1%}"] for i, j in pairs]
    return table(["label", "taken for", "texts", "of the label's"], rows)


def _by_class(matrix: Int[np.ndarray, "classes classes"], names: tuple[str, ...]) -> Html:
    rows = zip(names, precision_recall_f1(matrix).T, matrix.sum(axis=1), strict=True)
    cells = [[name, *(f"{value:.1%}" for value in values), f"{count:,}"] for name, values, count in rows]
    return table(["class", "precision", "recall", "F1", "texts"], cells)
