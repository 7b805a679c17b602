"""Users' files by their kinds: CSV, TSV, JSON, Parquet and plain text, the text formats also as .gz.

Whatever is wrong with a file is a :class:`UserError` that names the file and the line; what is wrong with one row is
said in the row.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from flax_transformer.data.csv_files import looks_like_header, read_csv
from flax_transformer.data.json_files import looks_like_object, read_json
from flax_transformer.data.rows import (
    MISSING,
    EmptyFileError,
    MissingColumnError,
    Row,
    find_name,
    look_up,
    missing_column,
)
from flax_transformer.data.text_files import Reading, numbered_lines, read_lines, refuse_foreign
from flax_transformer.data.values import shown
from flax_transformer.errors import UserError, warn

__all__ = [
    "EmptyFileError",
    "MissingColumnError",
    "Reading",
    "Row",
    "file_kind",
    "find_file",
    "find_files",
    "read_lines",
    "read_table",
    "tell_table",
]

Kind = Literal["csv", "tsv", "json", "parquet", "text"]
_KINDS: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
# What people try as well, and what they can do.
_FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".bz2", ".xz", ".zst"), "unpack it, or pack it as .gz"),
    **dict.fromkeys((".pdf", ".docx", ".doc", ".odt"), "save it as plain text"),
    **dict.fromkeys((".arrow", ".feather", ".pkl", ".pickle", ".h5"), "save it as Parquet"),
}
TABLES = ", ".join(_KINDS)
# A file of a folder that belongs to one part of a data set, by its name.
_SPLIT_NAME = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test)(?:ing)?(?![a-z])", re.IGNORECASE)
_START = 64  # bytes by which a file of another kind is known
_PARQUET = b"PAR1"
_ADDRESS = re.compile(r"[a-z0-9]{2,}:")
_SHARD = re.compile(r"(.*)-\d+-of-(\d+)(.*)")


def file_kind(path: Path) -> Kind:
    """By the suffix, in any capitals and with or without .gz. A file without a suffix known here is plain text.

    Raises:
        UserError: it is of a kind that cannot be read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    is_gzipped = suffixes[-1:] == [".gz"]
    suffix = "".join(suffixes[-2:-1] if is_gzipped else suffixes[-1:])
    if suffix in _FOREIGN:
        raise UserError(f"{path}: expected {TABLES} or plain text, got {suffix}; {_FOREIGN[suffix]}")
    kind = _KINDS.get(suffix, "text")
    if kind == "parquet" and is_gzipped:
        raise UserError(f"{path}: expected .parquet, which is packed already, got .parquet.gz; unpack it")
    return kind


def read_table(path: Path, columns: Sequence[str], reading: Reading = Reading()) -> list[Row]:  # noqa: B008
    """A row for each row of a file, in its order, also for those that could not be read.

    Plain text is a table of one column, whatever its name, with a row for each line.

    Raises:
        UserError: the file cannot be read, is empty (an EmptyFileError), or lacks a column.
    """
    rows = list(_read(path, columns, reading))
    if not rows:
        raise EmptyFileError(f"{path}: expected at least one row, got an empty file")
    return rows


def _read(path: Path, columns: Sequence[str], reading: Reading) -> Iterator[Row]:
    if _ADDRESS.fullmatch(path.parts[0] if path.parts else "") and not path.exists():
        raise UserError(f"{path}: expected a file on this machine, got an address; download it first")
    kind = file_kind(path)
    match kind:
        case "csv" | "tsv":
            return read_csv(path, columns, reading, quoted=kind == "csv")
        case "json":
            return read_json(path, columns, reading)
        case "parquet":
            return _read_parquet(path, columns, reading)
    if len(columns) > 1:
        raise UserError(f"{path}: expected a table with columns, a name in {TABLES}, the text formats also with .gz")
    return _read_text(path, columns[0], reading)


def _read_text(path: Path, column: str, reading: Reading) -> Iterator[Row]:
    for number, line in numbered_lines(path, reading):
        if number == 1:
            tell_table(line, column, str(path), f"if it is a table, give it a name in {TABLES}")
        yield Row(f"{path}, line {number}", (line.rstrip("\r\n"),))


def tell_table(first: str, column: str, where: str, advice: str) -> None:
    """Warn where lines of text begin as a table does."""
    if looks_like_object(first):
        warn(f"{where}: each line is read as a text, but the first one is a JSON object; {advice}")
    elif looks_like_header(first, column):
        warn(f"{where}: each line is read as a text, but the first one names a column {column!r}; {advice}")


def _read_parquet(path: Path, columns: Sequence[str], reading: Reading) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as opened:
            start = opened.read(_START)
        if not start:
            return
        if not start.startswith(_PARQUET):
            refuse_foreign(start, path, "a Parquet file")
        with pyarrow.parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            outer = list(dict.fromkeys(_outer(path, header, column, reading) for column in columns))
            table = _with_short_floats(file.read(columns=outer))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: expected a Parquet file, but it cannot be read ({error})") from error
    for number, entry in enumerate(_entries(table), start=1):
        where = f"{path}, row {number}"
        if isinstance(entry, ValueError):
            yield Row(where, problem=f"holds a value that cannot be read ({shown(str(entry))})")
            continue
        values = tuple(look_up(entry, column) for column in columns)
        yield Row(where, tuple(None if value is MISSING else value for value in values))


def _with_short_floats(table: Any) -> Any:
    """0.1 of a column of float32 stays 0.1; as a float of Python it would be 0.10000000149011612."""
    import pyarrow

    for i, field in enumerate(table.schema):
        if field.type == pyarrow.float32():
            spelled = table.column(i).cast(pyarrow.string()).cast(pyarrow.float64())
            table = table.set_column(i, field.name, spelled)
    return table


def _entries(table: Any) -> Iterator[dict[str, Any] | ValueError]:
    """The rows of an Arrow table as Python has them, or the error of one: such as text that is no UTF-8."""
    try:
        yield from table.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError, KeyError):
        for start in range(len(table)):
            try:
                yield from table.slice(start, 1).to_pylist(maps_as_pydicts="strict")
            except (ValueError, OverflowError, KeyError) as error:
                yield ValueError(str(error))


def _outer(path: Path, header: Sequence[str], column: str, reading: Reading) -> str:
    """The column of the file that holds ``column``, which may be a path into it, such as ``translation.de``."""
    parts = column.split(".")
    for end in range(len(parts), 0, -1):
        name = find_name(header, ".".join(parts[:end]))
        if name is not None and header.count(name) == 1:
            return name
    raise missing_column(path, header, column, reading)


def find_files(names: Sequence[str]) -> list[Path]:
    """Files by their names, folders and patterns, such as ``train-*.parquet``; those of one in the order of numbers.

    Raises:
        UserError: there are none, or a folder holds several parts of a data set.
    """
    found = [path for name in names for path in _expand(name)]
    _tell_missing_shards(found)
    distinct: dict[str, Path] = {}
    for path in found:
        distinct.setdefault(os.path.realpath(path), path)
    return list(distinct.values())


def _expand(name: str) -> list[Path]:
    if not name or "\0" in name:  # an empty one would be the folder that the command runs in
        raise UserError(f"expected the name of a file, got {name!r}")
    path = Path(name)
    if path.is_dir():
        tables = sorted((file for file in path.iterdir() if _is_table(file)), key=_natural)
        if not tables:
            pattern = _pattern_within(path)
            advice = f"; name them by a pattern, such as '{pattern}'" if pattern else ""
            raise UserError(f"{path}: expected a folder with files in {TABLES}, got none{advice}")
        parts = sorted({match[1].lower() for file in tables if (match := _SPLIT_NAME.search(file.name))})
        if len(parts) > 1:
            raise UserError(
                f"{path}: expected a folder of one part, got files of {', '.join(parts)}; "
                f"name each part by a pattern, such as '{path / f'*{parts[-1]}*'}'"
            )
        return tables
    if not path.exists() and glob.has_magic(name):
        files = sorted((Path(file) for file in glob.glob(name, recursive=True) if Path(file).is_file()), key=_natural)
        if not files:
            raise UserError(f"{name}: expected a pattern of files, but there are none")
        return files
    return [path]


def _pattern_within(folder: Path) -> str:
    """That of tables one level below, or of plain text, which a folder alone does not name; empty if there are none."""
    if table := next((file for file in sorted(folder.glob("*/*")) if _is_table(file)), None):
        return str(folder / "*" / f"*{table.suffix}")
    return str(folder / "*.txt") if any(folder.glob("*.txt")) else ""


def _is_table(file: Path) -> bool:
    is_named = "".join(file.suffixes[-2:]).lower().endswith(_suffixes())
    return is_named and not file.name.startswith((".", "_")) and file.is_file()


def _suffixes() -> tuple[str, ...]:
    return tuple(suffix + packed for suffix in _KINDS for packed in ("", ".gz"))


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """shard-2 stands before shard-10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", str(path)) if part]


def _tell_missing_shards(paths: Sequence[Path]) -> None:
    counts: dict[tuple[str, ...], int] = {}
    for path in paths:
        if match := _SHARD.fullmatch(str(path)):
            counts[match.groups()] = counts.get(match.groups(), 0) + 1
    for (stem, total, suffix), count in counts.items():
        if count != int(total):
            warn(f"{stem}-*-of-{total}{suffix}: {count:,} of {int(total):,} shards are read; name all of them?")


def find_file(folder: Path, name: str) -> Path:
    """``name`` or ``name.gz`` in ``folder``."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{folder}: expected a folder with {name} or {name}.gz, but there is no such file")
