"""JSON as people have it: lines of objects, arrays of objects, and columns as pandas writes them."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flax_transformer.data.rows import MISSING, TWICE, Row, find_name, look_up, missing_column
from flax_transformer.data.text_files import Reading, numbered_lines
from flax_transformer.data.values import shown
from flax_transformer.errors import UserError

Entry = tuple[str, Any, str]  # the place, the value, and why it could not be read


def read_json(path: Path, columns: Sequence[str], reading: Reading) -> Iterator[Row]:
    """Rows of JSON lines, or of a file that is one JSON value: an array, an object with one, or an object of columns.

    Raises:
        UserError: it is neither, or no row has one of the columns.
    """
    absent = set(columns)
    first: dict[str, Any] = {}
    for where, value, problem in _entries(path, columns, reading):
        if problem or not isinstance(value, dict):
            yield Row(where, problem=problem or f"holds {_kind(value)} where an object is expected")
            continue
        found = [look_up(value, column) for column in columns]
        missing = [column for column, entry in zip(columns, found, strict=True) if entry is MISSING]
        absent &= set(missing)
        first = first or value
        twice = [column for column, entry in zip(columns, found, strict=True) if entry is TWICE]
        if missing or twice:
            yield Row(where, problem=f"has no {missing[0]!r}" if missing else f"has {twice[0]!r} twice")
        else:
            yield Row(where, tuple(found))
    if first and absent:
        column = next(column for column in columns if column in absent)
        inner = [f"{name}.{key}" for name, value in first.items() if (key := _key(value, column))]
        meant = f"; is {inner[0]!r} meant?" if inner else ""
        raise missing_column(path, list(first), column, reading, meant)


def _key(value: Any, column: str) -> str | None:
    return find_name(value, column) if isinstance(value, dict) else None


def _entries(path: Path, columns: Sequence[str], reading: Reading) -> Iterator[Entry]:
    lines = ((number, line) for number, line in numbered_lines(path, reading) if line.strip())
    start = list(itertools.islice(lines, 2))
    if len(start) == 2 and isinstance(_parse(start[0][1])[0], dict):
        yield from _lines(path, itertools.chain(start, lines))
        return
    rest = [*start, *lines]
    try:
        whole = _load("".join(line for _, line in rest) or "[]")
    except (ValueError, RecursionError) as error:
        entries = list(_lines(path, rest))
        if any(isinstance(value, dict) for _, value, _ in entries):
            yield from entries
            return
        index = error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
        place = f"{path}, line {rest[min(index, len(rest) - 1)][0]}"
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        seen = shown(rest[0][1])
        raise UserError(
            f"{place}: expected a JSON object on each line, or one array ({reason}); the file begins with {seen!r}"
        ) from error
    items = _items(whole, columns)
    if len(items) == 1 and items[0] is whole:
        yield f"{path}, line {rest[0][0]}", whole, ""
        return
    for number, value in enumerate(items, start=1):
        yield f"{path}, item {number}", value, ""


def _lines(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Entry]:
    for number, line in lines:
        value, problem = _parse(line)
        yield f"{path}, line {number}", value, problem


def _parse(line: str) -> tuple[Any, str]:
    try:
        return _load(line), ""
    except ValueError:
        return None, "is not JSON"
    except RecursionError:
        return None, "is JSON that is nested too deep"


def looks_like_object(line: str) -> bool:
    """Whether a line is one row of JSON."""
    return line.lstrip().startswith("{") and isinstance(_parse(line)[0], dict)


def _load(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_to_object)


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        values |= {name: TWICE for name, count in Counter(name for name, _ in pairs).items() if count > 1}
    return values


def _items(whole: Any, columns: Sequence[str]) -> Sequence[Any]:
    """The rows in a JSON value that is a whole file."""
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict):
        return [whole]
    values = [look_up(whole, column) for column in columns]
    if MISSING not in values:
        return _transposed(values, columns) or [whole]
    names, data = whole.get("columns"), whole.get("data")
    if isinstance(names, list) and isinstance(data, list):  # as pandas splits a table
        return [dict(zip(names, row, strict=False)) if isinstance(row, list) else row for row in data]
    lists = [value for value in whole.values() if isinstance(value, list) and any(isinstance(e, dict) for e in value)]
    by_key = [list(whole.values())] if whole and all(isinstance(value, dict) for value in whole.values()) else []
    fitting = [rows for rows in lists + by_key if all(look_up(rows[0], column) is not MISSING for column in columns)]
    return next((found[0] for found in (fitting, lists) if len(found) == 1), [whole])


def _transposed(values: Sequence[Any], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of columns that are lists of one length, or objects with the same keys; none where they are not."""
    if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
        values = [list(value.values()) for value in values]
    if all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
        return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
    return []


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a text", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "null")
