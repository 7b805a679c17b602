"""Class names: their order, which decides the class ids, and the words for a label that is not among them."""

import difflib
import math
from collections.abc import Iterable, Sequence

_NAMED = 10  # labels that a message lists


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
    similar = difflib.get_close_matches(label, classes, n=1) if len(label) < 200 else []
    hint = f"; is {similar[0]!r} meant?" if similar else ""
    return f"expected one of the {len(classes):,} classes {some(classes)}, got {label!r}{hint}"


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    listed = ", ".join(names[:_NAMED])
    return f"{listed} and {len(names) - _NAMED:,} more" if len(names) > _NAMED else listed
