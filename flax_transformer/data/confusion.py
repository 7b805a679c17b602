"""How a classifier errs: which class it takes for which, and precision, recall and F1 of each."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_SHOWN = 20  # classes whose confusion is readable
_WIDTH = 24  # characters of a name


def confusion_matrix(
    predictions: Sequence[Any], targets: Sequence[int], classes: int
) -> Int[np.ndarray, "{classes} {classes}"]:
    """``matrix[i, j]``: texts of class i that were predicted to be of class j."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(targets, int), np.asarray(predictions, int)), 1)
    return matrix


def precision_recall_f1(matrix: Int[np.ndarray, "classes classes"]) -> Float[np.ndarray, "3 classes"]:
    """Of each class; 0 where nothing is of it or was predicted to be, as in scikit-learn."""
    hits = np.diag(matrix).astype(float)
    predicted, actual = matrix.sum(axis=0), matrix.sum(axis=1)
    return np.stack(
        [hits / np.maximum(predicted, 1), hits / np.maximum(actual, 1), 2 * hits / np.maximum(predicted + actual, 1)]
    )


def macro_f1(matrix: Int[np.ndarray, "classes classes"]) -> float:
    """The mean of F1 over the classes that occur, as labels or as predictions."""
    occurs = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    return float(precision_recall_f1(matrix)[2, occurs].mean())


def lines(matrix: Int[np.ndarray, "classes classes"], classes: Sequence[str]) -> Iterator[str]:
    """Macro F1, a table by class, and the confusion matrix where the classes are few."""
    names = [" ".join(name.split())[:_WIDTH] for name in classes]
    width = max(5, *map(len, names))
    yield f"macro f1 {macro_f1(matrix):.1%}"
    yield f"\n{'class':<{width}}  precision  recall      f1  texts"
    for name, values, count in zip(names, precision_recall_f1(matrix).T, matrix.sum(axis=1), strict=True):
        precision, recall, f1 = (f"{value:.1%}" for value in values)
        yield f"{name:<{width}}  {precision:>9}  {recall:>6}  {f1:>6}  {count:>5}"
    if len(classes) <= _SHOWN:
        columns = [max(len(name), len(str(matrix.max()))) for name in names]
        yield "\nconfusion (rows: label, columns: prediction)"
        yield f"{'':<{width}}  " + "  ".join(f"{name:>{column}}" for name, column in zip(names, columns, strict=True))
        for name, row in zip(names, matrix, strict=True):
            cells = (f"{count:>{column}}" for count, column in zip(row, columns, strict=True))
            yield f"{name:<{width}}  " + "  ".join(cells)
