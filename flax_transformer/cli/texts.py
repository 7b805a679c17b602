"""What ``flax-transformer predict`` reads: the texts of the command line, of a file, or of standard input."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flax_transformer.data.examples import Source, source_of
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
    text: Source | None
    problem: str = ""
    kept: dict[str, Any] = field(default_factory=dict)


def read_file(path: Path, columns: Sequence[str], keep: Sequence[str], reading: Reading, numbers: bool) -> list[Text]:
    """A text for each row of a table or line of a text file; of two columns a pair of texts.

    Args:
        columns: with the texts.
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
    texts, number = [], len(columns)
    for row in read_table(path, [*columns, *keep], reading):
        values = row.values or (None,) * (number + len(keep))
        kept = dict(zip(keep, values[number:], strict=True))
        texts.append(_source(row.where, columns, values[:number], row.problem, kept, numbers))
    return texts


def read_standard_input(columns: Sequence[str], reading: Reading) -> list[Text]:
    """A text for each of its lines, which are cut as those of a file are.

    Args:
        columns: that a table would have, which is then told to be none.

    Raises:
        UserError: there are none, or they are not text.
    """
    where = "standard input"
    lines = [line.rstrip("\r\n") for _, line in lines_of(sys.stdin.buffer, where, reading)]
    if not lines:
        raise UserError(f"{where}: expected at least one line of text, got none")
    tell_table(lines[0], columns[0], where, "if it is a table, name the file with --file")
    return [_text(f"{where}, line {number}", line) for number, line in enumerate(lines, start=1)]


def read_arguments(arguments: Sequence[str], columns: Sequence[str]) -> list[Text]:
    """A text for each argument; where the model reads the texts of two columns, a pair for every two of them.

    Raises:
        UserError: one is left over.
    """
    number = len(columns)
    if len(arguments) % number:
        raise UserError(f"expected pairs of texts, {' and '.join(columns)}, got {len(arguments)} texts")
    groups = [arguments[start : start + number] for start in range(0, len(arguments), number)]
    kind = "text" if number == 1 else "pair"
    return [_source(f"{kind} {place}", columns, group) for place, group in enumerate(groups, start=1)]


def _source(
    where: str,
    columns: Sequence[str],
    values: Sequence[Any],
    problem: str = "",
    kept: dict[str, Any] | None = None,
    numbers: bool = False,
) -> Text:
    """A text, or a pair of them, which has no text where one of both has none."""
    texts = [_text(where, value, problem, kept, numbers) for value in values]
    if len(texts) == 1:
        return texts[0]
    found = [text.text for text in texts]
    source = None if None in found else source_of(list(map(str, found)))
    unusable = (f"{text.problem} in {name!r}" for name, text in zip(columns, texts, strict=True) if text.problem)
    return replace(texts[0], text=source, problem=texts[0].problem if problem else next(unusable, ""))


def _text(where: str, value: Any, problem: str = "", kept: dict[str, Any] | None = None, numbers: bool = False) -> Text:
    if problem:
        return Text(where, None, f"the row {problem}", kept or {})
    try:
        return Text(where, to_text(value, numbers=numbers), "", kept or {})
    except UnusableError as error:
        shown = value if isinstance(value, str) else None
        return Text(where, shown, f"the text {error}", kept or {})
