"""Random tables in every format, encoding and delimiter: each row comes back, or the file is refused by name."""

import csv
import gzip
import io
import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flax_transformer.config import ClassificationData, Seq2SeqData
from flax_transformer.data import files
from flax_transformer.data.examples import Examples
from flax_transformer.data.files import Reading, read_table
from flax_transformer.data.tasks import load_splits
from flax_transformer.data.text_files import numbered_lines
from flax_transformer.errors import UserError

COLUMNS = ("text", "label")
# What is likely to break: delimiters, quotes, line ends of every kind, blanks, and letters of several encodings.
TEXTS = st.text(st.sampled_from("ab ,;\t|\"'\\\r\n\u2028\x85\x0b\u00e9\u20ac\u4e2d\U0001f600\u00a0#{}[]:0"), max_size=8)
ROWS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)
HEADERS = st.permutations(["id", "text", "label"])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252", "gb18030"])


def as_csv(rows, header, delimiter, *, states):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    entries = [{"id": i, "text": text, "label": label} for i, (text, label) in enumerate(rows)]
    writer.writerows([header, *([entry[name] for name in header] for entry in entries)])
    return (f"sep={delimiter}\r\n" if states else "") + file.getvalue()


def write(path, text, encoding):
    """False where the encoding has no letter for a character."""
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        return False
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return True


@settings(deadline=None, max_examples=100)
@given(ROWS, HEADERS, st.sampled_from(",;\t|"), ENCODINGS, st.booleans(), st.sampled_from(["csv", "CSV.gz"]))
def test_csv(tmp_path_factory, rows, header, delimiter, encoding, states, suffix):
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    if not write(path, as_csv(rows, header, delimiter, states=states), encoding):
        return
    found = read_table(
        path, COLUMNS, Reading(encoding=None if encoding in ("utf-8-sig", "utf-16", "utf-32") else encoding)
    )
    assert [(row.values, row.problem) for row in found] == [(row, "") for row in rows]


@settings(deadline=None, max_examples=100)
@given(ROWS, ENCODINGS, st.sampled_from(["array", "lines", "pretty", "wrapped", "columns"]), st.booleans())
def test_json(tmp_path_factory, rows, encoding, form, escaped):
    path = tmp_path_factory.getbasetemp() / "any.json"
    entries = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    values = {
        "wrapped": {"version": 1, "data": entries},
        "columns": {name: [entry[name] for entry in entries] for name in COLUMNS},
    }
    value = values.get(form, entries)
    lines = "\n".join(json.dumps(entry, ensure_ascii=escaped) for entry in entries)
    text = lines if form == "lines" else json.dumps(value, ensure_ascii=escaped, indent=2 if form == "pretty" else None)
    if not write(path, text, encoding):
        return
    found = read_table(
        path, COLUMNS, Reading(encoding=None if encoding in ("utf-8-sig", "utf-16", "utf-32") else encoding)
    )
    assert [(row.values, row.problem) for row in found] == [(row, "") for row in rows]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS), min_size=1, max_size=8))
def test_parquet(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    schema = pyarrow.schema([(name, pyarrow.string()) for name in COLUMNS])
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema=schema), path
    )
    assert [row.values for row in read_table(path, COLUMNS)] == rows


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=6), min_size=1, max_size=8))
def test_plain_text(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    try:
        found = read_table(path, ("text",))
    except UserError as error:
        assert "zero bytes" in str(error) and "\0" in "".join(lines)  # noqa: PT017, PT018
        return
    # A mark at the start of a file is no part of its text.
    assert [row.values[0] for row in found] == [lines[0].removeprefix("\ufeff"), *lines[1:]]


def test_a_reader_that_drops_blank_lines_is_seen(tmp_path, monkeypatch):
    """The planted mistake."""
    path = tmp_path / "any.txt"
    path.write_text("one\n\ntwo\n")
    assert len(read_table(path, ("text",))) == 3

    def without_blanks(path, reading):
        return ((number, line) for number, line in numbered_lines(path, reading) if line.strip())

    monkeypatch.setattr(files, "numbered_lines", without_blanks)
    assert len(read_table(path, ("text",))) == 2


MARKS = [b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b", b"\0", b"\xe9", b"PAR1"]
WORDS = [b"text", b"label", b"sep=", b"1", b"null", b"\\ud800", *(bytes([byte]) for byte in b'",;\t\r\n{}[]:')]
PIECES = st.sampled_from(MARKS + WORDS)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=30),
    st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet", "txt", "csv.gz"]),
    st.sampled_from([None, "cp1252", "utf-16"]),
)
@example(b"text\r\xef\xbb\xbf,label\n", "csv", None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data, suffix, encoding):
    path = tmp_path_factory.getbasetemp() / f"bytes.{suffix}"
    path.write_bytes(data)
    try:
        rows = read_table(path, ("text",), Reading(encoding=encoding, flags="--data."))
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert all(row.problem or len(row.values) == 1 for row in rows)


VALUES = st.sampled_from(
    ["a text", "b text", "c", "", " ", None, 3, 1.5, float("nan"), True, ["w", "x"], [1], {"k": [None]}, "\ud800", {}]
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30), st.booleans(), st.integers(0, 3), st.booleans())
def test_every_row_is_in_one_split_or_counted(tmp_path_factory, rows, is_classification, seed, numbers):
    """Blanks, nulls, copies and whatever JSON holds: rows in = rows out + rows told, whatever the seed."""
    path = tmp_path_factory.getbasetemp() / "mixed.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    if is_classification:
        config = ClassificationData(path=(str(path),), numbers_as_text=numbers)
    else:
        config = Seq2SeqData((str(path),), source_column="text", target_column="label", numbers_as_text=numbers)
    with pytest.MonkeyPatch.context() as patch:
        told = []
        for module in ("own", "pairs", "labels"):
            patch.setattr(f"flax_transformer.data.{module}.warn", told.append)
        try:
            splits = load_splits(config, seed)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return
    parts = (splits.train, splits.validation, splits.test)
    left_out = next((line for line in told if "left out" in line), f"{path}: 0 of")
    assert sum(map(len, parts)) + int(left_out.removeprefix(f"{path}: ").split()[0]) == len(rows)
    places = [place for part in parts for place in part.places]
    assert len(set(places)) == len(places)
    assert all(isinstance(part, Examples) and len(part) for part in parts)


@pytest.mark.parametrize("name", ["DATA.md", "RESULTS.md"])
def test_the_tables_of_the_docs_name_tests_that_there_are(name):
    tests = Path(__file__).parent
    defined = {
        found for path in tests.glob("test_*.py") for found in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    named = re.findall(r"`(test_\w+)(\.py)?`", (tests.parent / "docs" / name).read_text("utf-8"))
    assert len(named) > 20
    assert [word for word, is_file in named if not is_file and word not in defined] == []
    assert [word for word, is_file in named if is_file and not (tests / f"{word}.py").exists()] == []
