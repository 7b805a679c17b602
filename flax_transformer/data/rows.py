"""A row of a table as it was read, and how the columns that were asked for are found in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flax_transformer.data.text_files import Reading
from flax_transformer.data.values import UnusableError, plain, shown, to_text
from flax_transformer.errors import UserError

_NAMED = 12  # columns that a message lists
MISSING = object()
# What a key of an object stands for that is there several times: none of the values is known to be the right one.
TWICE = object()


@dataclass(frozen=True)
class Row:
    """The values of the columns that were asked for, and the place that a message names.

    ``problem`` says why a row could not be read; it then has no values.
    """

    where: str
    values: tuple[Any, ...] = ()
    problem: str = ""

    def text(self, column: int) -> str:
        """The text in a column, where every row must have one.

        Raises:
            UserError: this row has none.
        """
        try:
            return to_text(None if self.problem else self.values[column])
        except UnusableError as error:
            got = self.problem or f"one that {error}"
            raise UserError(f"{self.where}: expected a text, got {got}") from error


class MissingColumnError(UserError):
    """A table has no column of that name, or several. ``advice`` ends the message: which flags name another."""

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem + advice)
        self.problem, self.advice = problem, advice


class EmptyFileError(UserError):
    """A file has no rows, as some shards of a data set have none."""


def find_name(names: Iterable[str], wanted: str) -> str | None:
    """``wanted`` among the names: as it is, else the only one that looks the same, capitals and outer blanks aside."""
    if wanted in (known := list(names)):
        return wanted
    alike = [name for name in known if isinstance(name, str) and _plain(name) == _plain(wanted)]
    return alike[0] if len(alike) == 1 else None


def find_place(path: object, header: Sequence[str], wanted: str, reading: Reading, seen: str = "") -> int:
    """The index of a column.

    Raises:
        MissingColumnError: there is none of that name, or several.
    """
    name = find_name(header, wanted)
    if name is None or header.count(name) > 1:
        raise missing_column(path, header, wanted, reading, seen)
    return header.index(name)


def missing_column(
    path: object, header: Sequence[str], wanted: str, reading: Reading, seen: str = ""
) -> MissingColumnError:
    """The error for a column that is not there, or there several times."""
    number = sum(_plain(name) == _plain(wanted) for name in header)
    listed = ", ".join(map(shown, header[:_NAMED]))
    names = listed + (f" and {len(header) - _NAMED} more" if len(header) > _NAMED else "")
    advice = f"; name yours with {reading.columns_flags}" if reading.columns_flags else ""
    got = f"{number} of them" if number else "none"
    return MissingColumnError(
        f"{path}: expected one column {wanted!r}, got {got} in {names.strip() or 'an empty line'}{seen}", advice
    )


def look_up(entry: Any, column: str) -> Any:
    """A value of nested objects: by its key, else by a path such as ``translation.de``; MISSING where there is none."""
    if not isinstance(entry, Mapping):
        return MISSING
    name = find_name(entry, column)
    if name is not None:
        return entry[name]
    outer, dot, inner = column.partition(".")
    while dot:
        name = find_name(entry, outer)
        if name is not None and (value := look_up(entry[name], inner)) is not MISSING:
            return value
        more, dot, inner = inner.partition(".")
        outer = f"{outer}.{more}"
    return MISSING


def _plain(name: str) -> str:
    return plain(name).strip()
