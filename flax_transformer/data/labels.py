"""Class names: their order, which decides the class ids, and the words for a label that is not among them."""

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np
from jaxtyping import Bool, Float, Int

from flax_transformer.data.values import plain, shown
from flax_transformer.errors import UserError, warn

# Small letters of Cyrillic and Greek that look like Latin ones, they or their capitals (Unicode Technical Standard 39).
_LATIN = str.maketrans("авекмнорстухіѕјαβεζηικμνορτυχ", "abekmhopctyxisjabezhikmnoptyx")
_NAMED = 10  # labels that a message lists
_FEW = 20  # classes that a small file may have, however few rows there are of each
# How programs spell a value that is missing, and sheets one that could not be computed.
MISSING = {"nan", "NaN", "NULL", "null", "None", "N/A", "n/a", "#N/A", "<NA>", "NaT"}
MISSING |= {"#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!"}


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels: by value where all are finite numbers, else by spelling.

    A total order of the spellings: "7", "07" and "007" are the same number, and a tie would leave their order to that
    of a set, which changes from process to process.
    """
    distinct = sorted(set(labels))
    values = [number(label) for label in distinct]
    if None in values:
        return tuple(distinct)
    return tuple(label for _, label in sorted(zip(values, distinct, strict=True)))


def number(label: str) -> float | None:
    """The finite number that a label spells, or None."""
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def unknown(label: str, classes: Sequence[str]) -> str:
    """What to say of a label that is not among the classes; the likeliest of them is named."""
    alike = [name for name in classes if _visible(name) == _visible(label)]
    similar = alike or (difflib.get_close_matches(label, classes, n=1) if len(label) < 200 else [])
    hint = f"; is {shown(similar[0])!r} meant?" if similar else ""
    known = some([shown(name) for name in classes])
    return f"expected one of the {len(classes):,} classes {known}, got {shown(label)!r}{hint}"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    listed = ", ".join(names[:_NAMED])
    return f"{listed} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else listed


def ids(target: int | Sequence[bool]) -> tuple[int, ...]:
    """The class ids of an example: its one, or those of the labels that it has."""
    return (target,) if isinstance(target, int) else tuple(i for i, has in enumerate(target) if has)


def loss_weights(
    targets: Int[np.ndarray, " rows"] | Bool[np.ndarray, "rows classes"], classes: int
) -> Float[np.ndarray, " classes"]:
    """What each class weighs in the loss so that rare ones count: of one class a text, or of the texts with a label."""
    return positive_weights(targets) if targets.ndim == 2 else balanced_weights(targets, classes)


def positive_weights(truths: Bool[np.ndarray, "rows classes"]) -> Float[np.ndarray, " classes"]:
    """``texts without the label / texts with it`` for each label, as the ``pos_weight`` of torch.nn.BCEWithLogitsLoss:
    both weigh as much in all. 1 for a label that all texts or none have.

    Example:
        >>> positive_weights(np.array([[True, False], [False, False], [False, False]])).tolist()
        [2.0, 1.0]
    """
    with_it = truths.sum(axis=0)
    without = len(truths) - with_it
    return np.where((with_it > 0) & (without > 0), without / np.maximum(with_it, 1), 1.0)


def balanced_weights(ids: Int[np.ndarray, " rows"], classes: int) -> Float[np.ndarray, " classes"]:
    """``rows / (classes * rows of the class)`` for each class, as scikit-learn's "balanced"; 0 for one without rows.

    Example:
        >>> balanced_weights(np.array([0, 0, 0, 1]), 2).round(2).tolist()
        [0.67, 2.0]
    """
    counts = np.bincount(ids, minlength=classes)
    return np.where(counts > 0, len(ids) / (classes * np.maximum(counts, 1)), 0.0)


def check(labels: Sequence[str], name: str, column: str) -> None:
    """Warn of classes that look like mistakes, with the numbers of their rows.

    Raises:
        UserError: most labels stand in one row only, so that they are no classes.
    """
    rows = Counter(labels)
    single = sum(count == 1 for count in rows.values())
    if len(rows) > _FEW and 2 * single > len(labels):
        advice = "cut them into a few ranges" if None not in map(number, rows) else "is it the column of the labels?"
        raise UserError(
            f"{name}: expected classes in {column!r}, got {len(rows):,} labels in {len(labels):,} rows, "
            f"such as {some([shown(label) for label in sorted(rows)])}; {advice}"
        )
    fractions = sum("." in label and (number(label) or 0) % 1 != 0 for label in rows)
    if len(rows) > _FEW and 2 * fractions > len(rows):
        warn(
            f"{name}: {len(rows):,} numbers in {column!r} are taken as classes, which have no order; use a few ranges?"
        )
    for alike in _look_alikes(rows):
        counts = ", ".join(f"{label!r} ({rows[label]:,} rows)" for label in alike)
        warn(f"{name}: classes that look like one: {counts}; if they are, spell them alike in {column!r}")
    for label in sorted(rows.keys() & MISSING):
        warn(
            f"{name}: {rows[label]:,} rows have the label {label!r}, which is taken as a class; "
            f"if it stands for none, leave {column!r} empty there"
        )


def _look_alikes(labels: Iterable[str]) -> list[list[str]]:
    """Groups of labels that are the same number, or differ only in capitals, blanks, quotes, letters of another
    alphabet that look the same, and what is unseen."""
    groups: dict[object, list[str]] = {}
    for label in sorted(labels):
        key = _visible(label) if number(label) is None else Decimal(label)  # exact, unlike a float
        groups.setdefault(key, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _visible(label: str) -> str:
    """In Latin letters where others look like them; without blanks, quotes around it, and underscores for blanks."""
    latin = plain(label).translate(_LATIN)
    return "".join(latin.replace("_", " ").split()).strip("'\"\u2018\u2019\u201c\u201d")
