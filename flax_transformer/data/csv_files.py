"""Separated columns: CSV, quoted as RFC 4180 has it, with any delimiter; and TSV, which knows no quotes."""

import contextlib
import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from flax_transformer.data.json_files import looks_like_object
from flax_transformer.data.rows import MissingColumnError, Row, find_name, find_place
from flax_transformer.data.text_files import Reading, numbered_lines
from flax_transformer.errors import UserError, warn

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# What Excel writes above the header where the delimiter is not the one of the reader's country.
_STATED = re.compile(r'"?sep=(.)"?[\r\n]*', re.DOTALL)
# A field that holds quotes, as a CSV has it; hardly anybody writes so where quotes are letters.
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
# Below the names, as Markdown draws it.
_RULE = re.compile(r"\s*:?-{3,}:?\s*")
_PREAMBLE = 30  # lines in which column names are looked for that do not stand in the first one


def read_csv(path: Path, columns: Sequence[str], reading: Reading, *, quoted: bool) -> Iterator[Row]:
    """Rows of a file that begins with a line of column names. Blank lines are no rows, unless there is one column.

    The delimiter is the stated one, or that of a first line ``sep=;``, or the first of comma (tab without quotes),
    semicolon, tab and bar that gives the columns which are asked for.

    Raises:
        UserError: a column is missing, or a quote is not closed, so that the rows behind it are in doubt.
    """
    csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 128 KiB
    lines = _Lines(numbered_lines(path, reading))
    first = next(lines, "")
    stated = _STATED.fullmatch(first)
    if stated:
        first = next(lines, "")
    if not first:
        return
    if looks_like_object(first):
        raise UserError(f"{path}: expected a line of column names, got a JSON object; name the file .jsonl")
    delimiter = reading.delimiter or (stated[1] if stated else _delimiter(first, columns, quoted))
    quoting = csv.QUOTE_MINIMAL if quoted or delimiter != "\t" else csv.QUOTE_NONE
    lines.push_back(first)
    # As people write it by hand: a blank behind each delimiter, and then perhaps a quote.
    spaced = delimiter in first and all(name.startswith(" ") for name in first.split(delimiter)[1:])
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True, skipinitialspace=spaced)
    try:
        header = next(reader, [])
    except csv.Error as error:
        named = UserError(f"{path}: expected column names, got a line that {_reason(error)}")
        raise _broken(path, lines, delimiter, error) or named from error
    seen = f"the first line, separated by {_DELIMITERS.get(delimiter, repr(delimiter))}"
    if len(header) == 1 and reading.flags is not None:
        seen += f"; {reading.flags}delimiter names another"
    if quoting == csv.QUOTE_NONE and first.startswith('"'):
        seen += "; quotes are letters in a TSV: name it .csv"
    seen = f" ({seen})" if header else ""
    try:
        places = [find_place(path, header, column, reading, seen) for column in columns]
    except MissingColumnError as error:
        raise _below(path, columns, reading, error) from error
    named = max(i for i, name in enumerate(header, start=1) if name.strip())
    rows = wrapped = quoted_fields = 0
    while True:
        lines.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            unclosed = _broken(path, lines, delimiter, error)
            if unclosed:
                raise unclosed from error
            yield Row(f"{path}, line {lines.first_number}", problem=_reason(error))
            continue
        where = f"{path}, line {lines.first_number}"
        if not fields and len(header) > 1:
            continue
        fields = fields or [""]
        if len(fields) < named or any(fields[len(header) :]):  # a delimiter behind the last column is harmless
            yield Row(where, problem=f"has {len(fields)} columns, not {len(header)} as the first line has")
        elif len(header) > 1 and [fields[0].removeprefix("\ufeff"), *fields[1:]] == header:  # of files in a row
            yield Row(where, problem="repeats the names of the columns")
        elif rows == 0 and len(header) > 1 and _is_rule(fields):
            yield Row(where, problem="is a rule of dashes")
        else:
            values = tuple(fields[place] for place in places)
            rows += 1
            wrapped += values[0][:1] == values[0][-1:] == '"'
            quoted_fields += sum(_QUOTED.fullmatch(value) is not None for value in values)
            yield Row(where, values)
    quoted_fields = quoted_fields or (wrapped if wrapped == rows else 0)
    if quoted_fields and quoting == csv.QUOTE_NONE:
        warn(f"{path}: {quoted_fields:,} fields are quoted as in a CSV, but quotes are letters in a TSV; name it .csv?")


def _below(path: Path, columns: Sequence[str], reading: Reading, error: MissingColumnError) -> MissingColumnError:
    """The error for columns that are not there; where a line below the first one names them, it says so."""
    with contextlib.suppress(UserError):  # of a line that cannot be decoded; the columns come first
        for number, line in itertools.islice(numbered_lines(path, reading), 1, _PREAMBLE):
            for delimiter in _DELIMITERS:
                if all(find_name(_split(line.rstrip("\r\n"), delimiter), column) is not None for column in columns):
                    problem = f"{error.problem}; line {number} has such names: delete the lines above it"
                    return MissingColumnError(problem, error.advice)
    return error


class _Lines(Iterator[str]):
    """Lines for the reader of a row, which are kept until the next row begins: an error is looked for in them."""

    def __init__(self, numbered: Iterator[tuple[int, str]]) -> None:
        self._numbered, self._row, self.number = numbered, [], 0
        self._waiting: list[str] = []

    def __next__(self) -> str:
        if self._waiting:
            line = self._waiting.pop()
        else:
            self.number, line = next(self._numbered)
        self._row.append((self.number, line))
        return line

    def push_back(self, line: str) -> None:
        self._row.clear()
        self._waiting += [line] if line else []

    def begin_row(self) -> None:
        self._row.clear()

    @property
    def first_number(self) -> int:
        return self._row[0][0]

    def opening_quote(self, delimiter: str) -> int:
        """The line of the quote in this row that is not closed, or not closed before a delimiter."""
        text = "".join(line for _, line in self._row)
        before = rf"(?:(?<=[{re.escape(delimiter)}\n])|\A)"
        for field in re.finditer(before + r'"[^"]*(?:""[^"]*)*(?:"|\Z)', text):
            following = text[field.end() : field.end() + 1]
            if following not in (delimiter, "\r", "\n") or not field[0].endswith('"'):
                return self.first_number + text.count("\n", 0, field.start())
        return self.first_number


def _broken(path: Path, lines: _Lines, delimiter: str, error: csv.Error) -> UserError | None:
    """The error for a row of several lines: a quote went on too long, and what follows cannot be trusted."""
    if lines.number == lines.first_number and "unexpected end of data" not in str(error):
        return None
    return UserError(
        f"{path}, line {lines.opening_quote(delimiter)}: expected the quote that opens here to be closed, got {error} "
        f"in line {lines.number}; double the quotes within a text, or close it"
    )


def _reason(error: csv.Error) -> str:
    """Why a row is no row."""
    if "new-line character" in str(error):
        return "holds a carriage return outside quotes"
    return f"is not well-formed ({error})"


def _is_rule(fields: Sequence[str]) -> bool:
    """Whether a row holds nothing but dashes; the ends of a row of Markdown are blank."""
    return any(fields) and all(_RULE.fullmatch(field) for field in fields if field)


def looks_like_header(line: str, column: str) -> bool:
    """Whether a line names a column."""
    return any(find_name(_split(line.rstrip("\r\n"), delimiter), column) is not None for delimiter in _DELIMITERS)


def _delimiter(header: str, columns: Sequence[str], quoted: bool) -> str:
    """Of the first line; where no delimiter gives the columns, the one that gives the most."""
    candidates = sorted(_DELIMITERS, key=lambda delimiter: delimiter != ("," if quoted else "\t"))
    names = {delimiter: _split(header, delimiter) for delimiter in candidates}
    for delimiter in candidates:
        if all(find_name(names[delimiter], column) is not None for column in columns):
            return delimiter
    return max(candidates, key=lambda delimiter: len(names[delimiter]))


def _split(header: str, delimiter: str) -> list[str]:
    """The names, as far as they can be told: a line that is not well-formed is refused where it is read."""
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:  # such as a carriage return within the line
        return header.split(delimiter)
