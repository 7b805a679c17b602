"""Text files -> numbered lines: encodings, byte order marks, gzip and line ends.

Whatever is wrong with a file is a :class:`UserError` that names the file, the line, and the flag that mends it.
"""

import codecs
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flax_transformer.errors import UserError, warn

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_GZIP = b"\x1f\x8b"
# What begins so is no text, whatever its name says; and what to do with it.
_FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel sheet; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel sheet; save it as CSV",
    b"PAR1\x15": "a Parquet file; name it .parquet",
    b"%PDF-": "a PDF file; save it as plain text",
    b"\xfd7zXZ\0": "an archive of xz; unpack it, or pack it as .gz",
    b"(\xb5/\xfd": "an archive of Zstandard; unpack it, or pack it as .gz",
    b"7z\xbc\xaf": "an archive of 7-Zip; unpack it, or pack it as .gz",
    _GZIP: "an archive of gzip; unpack it",
    **{b"BZh%d1AY&SY" % level: "an archive of bzip2; unpack it, or pack it as .gz" for level in range(1, 10)},
    b"SQLite format 3\0": "a database of SQLite; save the table as CSV",
    b"\x80\x04\x95": "a pickle of Python; save it as Parquet",
    b"version https://git-lfs.github.com/spec/": "a pointer of Git LFS; fetch the file itself with git lfs pull",
}
_ISO_2022 = b"\x1b$"  # Japanese follows, in bytes that are ASCII otherwise
_HEAD = 200  # bytes in which zero bytes are looked for
_SHOWN = 20  # characters on either side of a byte that cannot be decoded


@dataclass(frozen=True)
class Reading:
    """How files are to be read. What is None is recognized from the file.

    ``flags`` begins the names of the flags that change these two, ``--data.`` or ``--``; None where there are none.
    ``columns_flags`` are the flags that name columns.
    """

    delimiter: str | None = None
    encoding: str | None = None
    flags: str | None = None
    columns_flags: str = ""

    def advice(self, flag: str, value: str) -> str:
        """The end of a message: which flag mends it."""
        return "" if self.flags is None else f"; name it with {self.flags}{flag} {value}"


def read_lines(path: Path, reading: Reading = Reading()) -> list[str]:
    """The lines of a text file, without their ends."""
    return [line.rstrip("\r\n") for _, line in numbered_lines(path, reading)]


def numbered_lines(path: Path, reading: Reading = Reading()) -> Iterator[tuple[int, str]]:
    """Lines, from 1, with their ends."""
    try:
        with _open(path) as file:
            yield from lines_of(file, str(path), reading)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: expected a file that can be read ({reason})") from error


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    """A file for reading; unpacked where its name or its first bytes say that it is gzipped."""
    file = path.open("rb")
    if path.suffix.lower() != ".gz" and file.peek(2)[:2] != _GZIP:
        return file
    file.close()
    return gzip.open(path)


def lines_of(file: IO[bytes] | gzip.GzipFile, where: str, reading: Reading = Reading()) -> Iterator[tuple[int, str]]:
    """Lines of a file or of standard input, from 1, with their ends. A byte order mark is left out.

    Only a line feed ends a line, or a carriage return where there is no line feed at all: a text may hold any other
    character, such as U+2028.

    Raises:
        UserError: the bytes are not text of the encoding; ``where`` is what the message names.
    """
    first = file.readline()
    refuse_foreign(first, where, "text")
    encoding, mark = _encoding(first, where, reading)
    first = first.removeprefix(mark)
    if "\n".encode(encoding) != b"\n":  # as in UTF-16, where a byte of 10 is no line end
        text = _decode(first + file.read(), encoding, where, reading)
        yield from enumerate(io.StringIO(text, newline="\n"), start=1)
        return
    lines = itertools.chain([first], file) if first.endswith(b"\n") else first.splitlines(keepends=True)
    unusual, in_utf8, escaped = 0, list[int](), list[int]()
    for number, line in enumerate(lines, start=1):
        yield number, _decode(line, encoding, f"{where}, line {number}", reading)
        if encoding != "utf-8" and not line.isascii():
            unusual += 1
            in_utf8 += [number] if _is_utf8(line) else []
        escaped += [number] if _ISO_2022 in line and encoding == "utf-8" else []
    if escaped:
        seen = f"{len(escaped):,} lines look like Japanese in ISO-2022, the first of them line {escaped[0]:,}"
        warn(f"{where}: {seen}{reading.advice('encoding', 'iso2022_jp')}")
    if in_utf8:
        _tell_utf8(in_utf8, unusual, f"{where}: read as {encoding}", reading)


def _tell_utf8(lines: list[int], unusual: int, read: str, reading: Reading) -> None:
    """Hardly a line of another encoding with letters beyond ASCII is well-formed UTF-8 by chance."""
    if len(lines) == unusual:
        warn(f"{read}, but all of it is well-formed UTF-8; leave {reading.flags}encoding out?")
    else:
        warn(
            f"{read}, but {len(lines):,} of its {unusual:,} lines with letters beyond ASCII are well-formed UTF-8, the "
            f"first of them line {lines[0]:,}; is it of two encodings?"
        )


def refuse_foreign(start: bytes, where: object, expected: str) -> None:
    """Raises :class:`UserError` where a file begins as one of a kind that is not read."""
    for beginning, kind in _FOREIGN.items():
        if start.startswith(beginning):
            raise UserError(f"{where}: expected {expected}, got {kind}")


def _encoding(first: bytes, where: str, reading: Reading) -> tuple[str, bytes]:
    """The encoding by the reading and the first line, and the byte order mark there is."""
    mark = next((mark for mark in _MARKS if first.startswith(mark)), b"")
    marked = _MARKS.get(mark)
    if reading.encoding is None:
        if marked is None and b"\0" in first[:_HEAD]:
            raise UserError(f"{where}: expected text, got zero bytes{_wide_advice(first, reading)}")
        return marked or "utf-8", mark
    stated = codecs.lookup(reading.encoding).name.removesuffix("-sig")
    if marked is not None and not marked.startswith(stated):
        raise UserError(f"{where}: expected {stated}, but it begins with the byte order mark of {marked}")
    return marked or stated, mark


def _wide_advice(first: bytes, reading: Reading) -> str:
    """UTF-16 without a mark has a zero byte beside each Latin letter, comma or blank, always on the same side."""
    even, odd = first[0:_HEAD:2].count(0), first[1:_HEAD:2].count(0)
    is_wide = min(even, odd) == 0 and 20 * max(even, odd) > len(first[:_HEAD])
    return reading.advice("encoding", "utf-16-le" if odd else "utf-16-be") if is_wide else ""


def _decode(data: bytes, encoding: str, where: str, reading: Reading) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        got = f"{where}: expected {encoding.upper()}, got byte 0x{data[error.start]:02x} ({error.reason})"
        if encoding != "utf-8":
            raise UserError(got) from error
        before, after = data[: error.start], data[error.start :]
        shown = before.decode("utf-8")[-_SHOWN:] + after.decode("cp1252", "replace")[:_SHOWN].rstrip("\r\n")
        advice = reading.advice("encoding", "cp1252")
        raise UserError(f"{got}; as cp1252 it would read {shown!r}{advice or '; save it as UTF-8'}") from error
    except UnicodeError as error:  # of codecs that are not made for files, such as punycode
        raise UserError(f"{where}: expected {encoding}, got something else ({error})") from error


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
