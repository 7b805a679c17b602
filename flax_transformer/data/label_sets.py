"""The labels of a text, any number of them: how a cell, a list or several columns of 0 and 1 say which they are."""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax_transformer.data.values import UnusableError, is_missing, to_label
from flax_transformer.errors import UserError

SEPARATORS = {"|": "bars", ";": "semicolons", "\n": "line breaks", ",": "commas"}
# A list, tuple or set as Python writes it, which is what pandas and numpy put into a CSV.
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_ENTRIES = rf"\s*(?:(?:{_QUOTED})(?:\s*,\s*|\s*))*"
_LIST = re.compile(rf"\[{_ENTRIES}\]|\({_ENTRIES}\)|\{{{_ENTRIES}\}}|set\(\)", re.DOTALL)
FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def to_cell(value: Any) -> str | tuple[str, ...]:
    """The labels of a list; of a text the text, to be cut at a separator that the other rows help to tell.

    A list may stand in a text, as pandas writes it to a CSV. A cell without anything is a text without labels.

    Raises:
        UnusableError: it is something else, or a list that holds something else.
    """
    if is_missing(value) or _is_blank(value):
        return ()
    if isinstance(value, list | tuple):
        return _of_list(value)
    if isinstance(value, dict):
        raise UnusableError("is an object, no list of labels")
    label = to_label(value)
    if is_list(label) or (label.startswith("[") and label.endswith("]")):
        return _of_list(_read_list(label))
    return label


def _of_list(entries: Sequence[Any]) -> tuple[str, ...]:
    if any(isinstance(entry, list | tuple | dict) for entry in entries):
        raise UnusableError("is a list of something else than labels")
    return tuple(to_label(entry) for entry in entries if not (is_missing(entry) or _is_blank(entry)))


def is_list(label: str) -> bool:
    """Whether a text is a list as Python writes it."""
    return _LIST.fullmatch(label) is not None


def to_flag(value: Any) -> bool:
    """Whether a text has the label of a column.

    Raises:
        UnusableError: the value is neither 0 nor 1, nor true or false.
    """
    if is_missing(value) or _is_blank(value):
        raise UnusableError("is blank")
    spelled = to_label(value).casefold()
    if spelled not in FLAGS:
        raise UnusableError(f"is {spelled[:20]!r}, neither 0 nor 1")
    return FLAGS[spelled]


def find_separator(cells: Mapping[str, str], classes: Sequence[str] = ()) -> str | None:
    """What separates the labels of texts, or None where each cell is one label.

    Bars, semicolons and line breaks hardly stand within labels, and are taken at their word. Commas do: they are only
    taken where they separate what also stands alone, or beside others.

    Args:
        cells: each with its place, which a message names.
        classes: of a run that exists. The separator that leaves these in most cells is the right one.

    Raises:
        UserError: without classes it could be several, or a comma may be part of a label.
    """
    if classes:
        return max((None, *SEPARATORS), key=lambda separator: _fit(cells, separator, set(classes)))
    found = {separator: next((cell for cell in cells if separator in cell), "") for separator in SEPARATORS}
    found = {separator: cell for separator, cell in found.items() if cell}
    if len(found) > 1:
        seen = ", ".join(f"{SEPARATORS[one]} ({cell[:40]!r})" for one, cell in found.items())
        place = cells[next(iter(found.values()))]
        raise UserError(
            f"{place}: expected one separator of labels, got {seen}; name it with --data.label-separator, such as ';'"
        )
    if "," in found and not _recombines(cells):
        raise UserError(
            f"{cells[found[',']]}: expected labels, got {found[',']!r}, where the comma may separate two or be part of "
            "one; say --data.label-separator , or one that stands in no label, such as '|'"
        )
    return next(iter(found), None)


def cut(cell: str, separator: str | None) -> tuple[str, ...]:
    """The labels of a cell, without outer blanks; blank ones are none."""
    labels = [cell] if separator is None else cell.split(separator)
    return tuple(label.strip() for label in labels if label.strip())


def repeated(labels: Iterable[str]) -> list[str]:
    """Labels that a text has more than once."""
    return [label for label, count in Counter(labels).items() if count > 1]


def _recombines(cells: Iterable[str]) -> bool:
    """Whether most of what commas separate also stands in another cell with other neighbors, or alone."""
    joined = Counter(label for cell in cells for label in set(cut(cell, ",")))
    separated = {label for cell in cells if "," in cell for label in cut(cell, ",")}
    return 2 * sum(joined[label] > 1 for label in separated) >= len(separated)


def _fit(cells: Iterable[str], separator: str | None, known: set[str]) -> tuple[int, int]:
    """How many cells hold nothing but known labels, and how many known labels there are in all."""
    found = [cut(cell, separator) for cell in cells]
    return sum(known.issuperset(one) for one in found), sum(label in known for one in found for label in one)


def _read_list(text: str) -> Sequence[Any]:
    """The entries of a list in a text: of JSON's, or of what Python or numpy writes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if not _LIST.fullmatch(text):
        raise UnusableError("is no list of labels")
    try:
        return [ast.literal_eval(entry) for entry in re.findall(_QUOTED, text, re.DOTALL)]
    except (ValueError, SyntaxError) as error:
        raise UnusableError("is no list of labels") from error


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str | bytes) and not value.strip())
