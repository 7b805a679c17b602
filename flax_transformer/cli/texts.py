"""What ``flax-transformer predict`` reads: the texts of the command line, of a file, or of standard input."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flax_transformer.data.files import read_table, tell_table
from flax_transformer.data.text_files import Reading, lines_of
from flax_transformer.data.values import UnusableError, to_text
from flax_transformer.errors import UserError

OWN_KEYS = (
    *("row", "text", "prediction", "score", "scores", "complete", "cut", "alternatives", "error"),
    *("embedding", "fields"),
)


@dataclass(frozen=True)
class Text:
    """A row or line of the input. Its ``text`` is None where it has none, and ``problem`` then says why."""

    where: str
    text: str | None
    problem: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


def read_file(path: Path, column: str, keep: Sequence[str], reading: Reading, numbers: bool) -> list[Text]:
    """A text for each row of a table or line of a text file.

    Args:
        column: with the texts.
        keep: columns to carry over to the output.
        numbers: take them for texts, as they are written.

    Raises:
        UserError: the file cannot be read, is empty, or lacks a column; or a column cannot be carried over.
    """
    taken = [name for name in keep if name in OWN_KEYS]
    if taken:
        raise UserError(
            f"--keep: expected other columns than those of the output, {', '.join(OWN_KEYS)}, got {taken[0]}"
        )
    texts = []
    for row in read_table(path, [column, *keep], reading):
        values = row.values or (None,) * (1 + len(keep))
        kept = dict(zip(keep, values[1:], strict=True))
        texts.append(_text(row.where, values[0], row.problem, kept, numbers))
    return texts


def read_standard_input(column: str, reading: Reading) -> list[Text]:
    """A text for each of its lines, which are cut as those of a file are.

    Args:
        column: that a table would have, which is then told to be none.

    Raises:
        UserError: there are none, or they are not text.
    """
    where = "standard input"
    lines = [line.rstrip("\r\n") for _, line in lines_of(sys.stdin.buffer, where, reading)]
    if not lines:
        raise UserError(f"{where}: expected at least one line of text, got none")
    tell_table(lines[0], column, where, "if it is a table, name the file with --file")
    return [_text(f"{where}, line {number}", line) for number, line in enumerate(lines, start=1)]


def read_arguments(arguments: Sequence[str]) -> list[Text]:
    """A text for each argument."""
    return [_text(f"text {number}", argument) for number, argument in enumerate(arguments, start=1)]


def _text(where: str, value: Any, problem: str = "", kept: dict[str, Any] | None = None, numbers: bool = False) -> Text:
    if problem:
        return Text(where, None, f"the row {problem}", kept or {})
    try:
        return Text(where, to_text(value, numbers=numbers), "", kept or {})
    except UnusableError as error:
        shown = value if isinstance(value, str) else None
        return Text(where, shown, f"the text {error}", kept or {})
