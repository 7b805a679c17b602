"""Predicted JSON objects field by field, whatever their fields are."""

from collections.abc import Iterator, Sequence
from typing import Any

from flax_transformer.data.scoring import parse_json

Place = tuple[str, tuple[int, ...]]  # dotted keys, and indices of the lists passed


def field_outcomes(predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[bool]] | None:
    """Whether each value of the references is predicted, by field; None where some reference is no JSON object.

    Fields are named by their keys down to the second level, such as ``items.weight``, and list items are compared by
    place. Deeper values are compared as a whole.
    """
    outcomes: dict[str, list[bool]] = {}
    for text, reference in zip(predictions, references, strict=True):
        expected = parse_json(reference)
        if expected is None:
            return None
        found = dict(_values(parse_json(text) or {}))
        for place, value in _values(expected):
            outcomes.setdefault(place[0], []).append(place in found and found[place] == value)
    return outcomes


def _values(content: dict[str, Any]) -> Iterator[tuple[Place, Any]]:
    for key, value in content.items():
        inner = value if isinstance(value, list) else [value]
        if not (inner and all(isinstance(item, dict) for item in inner)):
            yield (key, ()), value
            continue
        for index, item in enumerate(inner):
            for name, leaf in item.items():
                yield (f"{key}.{name}", (index,)), leaf
