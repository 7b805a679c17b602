"""What to trust of a manifest that was read from a text: confidence, place and flags of each of its values."""

import datetime
import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypedDict

from flax_transformer.data.manifests.freight import CARRIERS, PACKAGES, PORTS, UNITS, is_container_number
from flax_transformer.data.scoring import parse_json

_CODES = {"carrier": CARRIERS, "pol": PORTS, "pod": PORTS, "kind": PACKAGES, "unit": UNITS}
_COPIED = {"shipper", "consignee", "container", "packages", "goods", "weight", "un", "imo"}
_NUMBERS = {"packages", "weight", "un", "imo"}
_SEPARATORS = {"container": r"[\s/-]*", "packages": r"[.,' ]?", "weight": r"[.,' ]?"}
_BLANKS = re.compile(r"\s*")
_PARTIES = {"shipper", "consignee"}
# Wrong values have a lower confidence, nearly all of them (docs/RESULTS.md).
_SURE, _SURE_OF_A_PARTY = 0.95, 0.98


class FieldReview(TypedDict):
    """Of one value.

    Args:
        confidence: the probability of its tokens, the one that ends it included.
        place: where it first stands in the text, from and to which character; None where it does not, or was made a
            code.
        flags: what is wrong with it: ``not in text``, ``check digit``, ``not in list``, ``not a date``; ``not unique``,
            where a party stands in the text several times, as words of labels do and names seldom; or ``unsure``, where
            the confidence is below 0.95, or that of a party below 0.98.
    """

    value: Any
    confidence: float
    place: tuple[int, int] | None
    flags: list[str]


class Leaf(NamedTuple):
    """A value in JSON that holds no others, such as ``items.0.goods``, and its place, in characters."""

    path: str
    value: Any
    start: int
    end: int


def review_manifest(text: str, output: str, pieces: Sequence[tuple[bytes, float]]) -> dict[str, FieldReview]:
    """Each value of a predicted manifest, by its path; none where the output is no JSON object.

    Args:
        text: that was read.
        output: that was predicted.
        pieces: the bytes of each token of the output, and their log-probability.
    """
    if parse_json(output) is None:
        return {}
    ends = list(accumulate(len(piece) for piece, _ in pieces))
    reviews = {}
    for leaf in leaves(output):
        # One byte more: the token behind a number is what ends it.
        start, end = (len(output[:place].encode()) for place in (leaf.start, leaf.end + 1))
        inside = (
            score for (piece, score), last in zip(pieces, ends, strict=True) if last > start and last - len(piece) < end
        )
        field, confidence = leaf.path.rpartition(".")[2], math.exp(sum(inside))
        places = _places(text, field, leaf.value)
        flags = _flags(field, leaf.value, len(places), confidence)
        first = places[0] if places else None
        reviews[leaf.path] = FieldReview(value=leaf.value, confidence=round(confidence, 4), place=first, flags=flags)
    return reviews


def leaves(text: str) -> Iterator[Leaf]:
    """The values of valid JSON that hold no others, in order."""
    yield from _walk(text, _skip(text, 0), "")


def _walk(text: str, at: int, path: str) -> Iterator[Leaf]:
    """The leaves of the value that begins at ``at``."""
    if text[at] not in "{[":
        value, end = json.JSONDecoder().raw_decode(text, at)
        yield Leaf(path, value, at, end)
        return
    closing, number = {"{": "}", "[": "]"}[text[at]], 0
    at = _skip(text, at + 1)
    while text[at] != closing:
        name: Any = number
        if closing == "}":
            name, at = json.JSONDecoder().raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # over the colon
        yield from _walk(text, at, f"{path}.{name}" if path else str(name))
        _, at = json.JSONDecoder().raw_decode(text, at)
        at = _skip(text, at)
        at = _skip(text, at + 1) if text[at] == "," else at
        number += 1


def _skip(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    assert found is not None  # it matches nothing, too
    return found.end()


def _places(text: str, field: str, value: Any) -> list[tuple[int, int]]:
    """Where a copied value stands as a whole: as it is, but for separators within numbers and breaks between words."""
    if field not in _COPIED or value is None or value == "":
        return []
    between = _SEPARATORS.get(field, "")
    pattern = between.join(re.escape(character) for character in str(value))
    if not between:
        pattern = re.sub(r"(\\ )+", r"[\\s>]+", pattern)
    elif field == "weight":
        pattern = pattern.replace(r"\.", "[.,]")
    inner = r"\d" if field in _NUMBERS else r"\w"
    return [found.span() for found in re.finditer(rf"(?<!{inner}){pattern}(?!{inner})", text)]


def _flags(field: str, value: Any, places: int, confidence: float) -> list[str]:
    is_party = field in _PARTIES
    wrong = {
        "not in text": field in _COPIED and not places,
        "not unique": is_party and places > 1,
        "check digit": field == "container" and not is_container_number(str(value)),
        "not in list": field in _CODES and value not in _CODES[field],
        "not a date": field == "etd" and not _is_date(value),
        "unsure": confidence < (_SURE_OF_A_PARTY if is_party else _SURE),
    }
    return [flag for flag, is_so in wrong.items() if is_so]


def _is_date(value: Any) -> bool:
    try:
        return bool(datetime.date.fromisoformat(value))
    except (TypeError, ValueError):
        return False
