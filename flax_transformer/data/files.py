"""Users' files, line by line: CSV, TSV, JSON lines, Parquet and plain text, the text formats also as .gz.

Whatever is wrong with a file is a :class:`UserError` that names the file and the line.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax_transformer.errors import UserError


@dataclass(frozen=True)
class Row:
    """The values of the columns that were asked for, and the place that an error message names."""

    where: str
    values: tuple[Any, ...]

    def text(self, column: int) -> str:
        """Raises :class:`UserError` where the value is no text, or blank."""
        value = self.values[column]
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: expected a text, got {value!r}")
        return value


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file, of which at least one is expected.

    CSV is quoted as RFC 4180 has it, TSV not at all. Both begin with a line of column names.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])
    if kind.removesuffix(".gz") not in _READERS or kind == ".parquet.gz":
        raise UserError(f"{path}: expected a name in {', '.join(_READERS)}, the text formats also with .gz")
    rows = list(_READERS[kind.removesuffix(".gz")](path, columns))
    if not rows:
        raise UserError(f"{path}: expected at least one row, got an empty file")
    return rows


def read_lines(path: Path) -> list[str]:
    """The lines of a plain text file, without their ends."""
    return [line.rstrip("\r\n") for _, line in _numbered_lines(path)]


def find_file(folder: Path, name: str) -> Path:
    """``name`` or ``name.gz`` in ``folder``."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder}: expected a folder with {name} or {name}.gz, but there is no such file")


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    return _read_table(path, columns, delimiter=",", strict=True)


def _read_tsv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    return _read_table(path, columns, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_table(path: Path, columns: Sequence[str], **dialect: Any) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 128 KiB
    reader = csv.reader((line for _, line in _numbered_lines(path)), **dialect)
    try:
        header = next(reader, [])
        places = [_place(path, header, column) for column in columns]
        for fields in reader:
            where = f"{path}, line {reader.line_num}"
            if not fields:
                continue
            if len(fields) != len(header):
                raise UserError(f"{where}: expected {len(header)} columns as in the first line, got {len(fields)}")
            yield Row(where, tuple(fields[place] for place in places))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: expected well-formed columns ({error})") from error


def _place(path: Path, header: Sequence[str], column: str) -> int:
    if header.count(column) != 1:
        number = "none" if column not in header else f"{header.count(column)} of them"
        raise UserError(
            f"{path}: expected one column {column!r}, got {number} in {', '.join(header) or 'an empty file'}"
        )
    return header.index(column)


def _read_json_lines(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in _numbered_lines(path):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: expected a JSON object ({error})") from error
        if not isinstance(entry, dict):
            raise UserError(f"{where}: expected a JSON object, got {type(entry).__name__}")
        for column in columns:
            if column not in entry:
                raise UserError(f"{where}: expected a key {column!r}, got {', '.join(entry) or 'no keys'}")
        yield Row(where, tuple(entry[column] for column in columns))


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            for column in columns:
                _place(path, header, column)
            table = file.read(columns=list(columns))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: expected a Parquet file, but it cannot be read ({error})") from error
    values = zip(*(table.column(column).to_pylist() for column in columns), strict=True)
    for number, entry in enumerate(values, start=1):
        yield Row(f"{path}, row {number}", entry)


_READERS = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines, from 1, with their ends. A byte order mark is left out."""
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: expected UTF-8, got other bytes ({error.reason})") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected a file that can be read ({reason})") from error
