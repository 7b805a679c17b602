"""Columns of users' files -> examples: rows that cannot be used are left out, counted, and told once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flax_transformer.config import ClassificationData, MaskedData, MultilabelData
from flax_transformer.data.examples import Examples, source_of
from flax_transformer.data.files import EmptyFileError, Row, read_table
from flax_transformer.data.text_files import Reading
from flax_transformer.data.values import UnusableError, to_text
from flax_transformer.errors import UserError, warn

_NAMED = 5  # reasons that a message lists, and lines of each
# Reasons that a few rows or many may have. All others, where most rows have them, mean that the column is another.
_EMPTY = ("is missing", "is blank")
# What to do about a reason, by its end.
_ADVICE = {
    "is a number or a date, no text": "train with --data.numbers-as-text to take numbers as they are written",
    "is an object, no text": "name a value in the object, such as text.key",
    "no label": "a text has one label here; the task multilabel takes several, or name another column",
    "neither 0 nor 1": "write 1 where a text has the label, and 0 where it has not",
    "no list of labels": "write it as JSON does, or its labels with a separator",
    "as the first line has": "put quotes around texts that hold the delimiter",
    "after '\"')": "double the quotes within a text",
    "return outside quotes": "put quotes around texts with line breaks, and end all lines alike",
}


@dataclass(frozen=True)
class Column:
    """A column to read, and what its values become; where they cannot, ``convert`` raises an UnusableError."""

    name: str
    convert: Callable[[Any], Any]


def text_columns(config: ClassificationData | MultilabelData | MaskedData) -> list[Column]:
    """The one or two columns of what is read to classify it, or to learn from it."""
    return [Column(name, partial(to_text, numbers=config.numbers_as_text)) for name in config.text_column]


def read_pairs(files: Sequence[Path], columns: Sequence[Column], reading: Reading) -> Examples:
    """The rows of one part of a data set: of the last column the targets, of the one or two others the sources.

    Raises:
        UserError: a file cannot be read or lacks a column; no row can be used; or most rows hold something else.
    """
    rows, places = read_rows(files, columns, reading)
    return Examples([source_of(texts) for *texts, _ in rows], [target for *_, target in rows], places)


def read_texts(files: Sequence[Path], columns: Sequence[Column], reading: Reading) -> Examples:
    """The texts of one part of a data set, or pairs of them, without targets.

    Raises :class:`UserError` as :func:`read_pairs` does.
    """
    rows, places = read_rows(files, columns, reading)
    return Examples([source_of(texts) for texts in rows], [None] * len(rows), places)


def read_rows(files: Sequence[Path], columns: Sequence[Column], reading: Reading) -> tuple[list[list[Any]], list[str]]:
    """The values of the rows that can be used, and their places; raises :class:`UserError` as :func:`read_pairs`."""
    rows, places = [], []
    unusable: dict[str, list[str]] = {}
    for row in _read_tables(files, [column.name for column in columns], reading):
        try:
            rows.append(_convert(row, columns))
        except UnusableError as error:
            unusable.setdefault(str(error), []).append(row.where)
            continue
        places.append(row.where)
    if unusable:
        _tell(unusable, len(rows), files, columns)
    return rows, places


def _read_tables(files: Sequence[Path], columns: Sequence[str], reading: Reading) -> Iterator[Row]:
    """The rows of all files. Shards without a row are told; that all files have none is an EmptyFileError."""
    empty: list[Path] = []
    for path in files:
        try:
            yield from read_table(path, columns, reading)
        except EmptyFileError:
            empty.append(path)
            if len(empty) == len(files):
                raise
    if empty:
        names = ", ".join(map(str, empty[:_NAMED]))
        warn(f"{len(empty):,} of {len(files):,} files have no rows: {names}{' ...' if len(empty) > _NAMED else ''}")


def _convert(row: Row, columns: Sequence[Column]) -> list[Any]:
    if row.problem:
        raise UnusableError(row.problem)
    values = []
    for value, column in zip(row.values, columns, strict=True):
        try:
            values.append(column.convert(value))
        except UnusableError as error:
            raise UnusableError(f"{column.name!r} {error}") from error
    return values


def _tell(unusable: dict[str, list[str]], usable: int, files: Sequence[Path], columns: Sequence[Column]) -> None:
    """Warn of the rows that are left out, by reason, the most frequent first; or raise as :func:`read_pairs` says."""
    name = str(files[0]) if len(files) == 1 else f"{len(files)} files"
    lost = sum(map(len, unusable.values()))
    wrong = sum(len(places) for reason, places in unusable.items() if not reason.endswith(_EMPTY))
    by_number = sorted(unusable.items(), key=lambda item: -len(item[1]))
    reasons = "; ".join(f"{reason}: {_some(places, files)}" for reason, places in by_number[:_NAMED])
    if len(by_number) > _NAMED:
        reasons += f"; and {len(by_number) - _NAMED:,} other reasons"
    advice = "".join(f"; {words}" for end, words in _ADVICE.items() if any(reason.endswith(end) for reason in unusable))
    if usable == 0 or wrong > usable:
        expected = " and ".join(repr(column.name) for column in columns)
        raise UserError(
            f"{name}: expected rows with {expected}, got {lost:,} of {lost + usable:,} without ({reasons}){advice}"
        )
    warn(f"{name}: {lost:,} of {lost + usable:,} rows are left out ({reasons}){advice}")


def _some(places: Sequence[str], files: Sequence[Path]) -> str:
    """How many rows, and where the first of them are."""
    first = [place.removeprefix(f"{files[0]}, ") if len(files) == 1 else place for place in places[:_NAMED]]
    more = f" and {len(places) - _NAMED:,} more" if len(places) > _NAMED else ""
    return f"{', '.join(first)}{more}"
