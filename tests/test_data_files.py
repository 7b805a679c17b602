"""Users' files: every format, plain and gzipped, and one clear line for whatever is wrong with them."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from flax_transformer.data.files import find_file, read_lines, read_rows
from flax_transformer.errors import UserError

COLUMNS = ("text", "label")
CONTENT = {
    "rows.csv": 'id,label,text\r\n1,a,"two\nlines, and a comma"\r\n\r\n2,b,"a ""quote"""\r\n',
    "rows.tsv": 'label\ttext\na\t"no quoting"\nb\tGrüße\n',
    "rows.jsonl": '{"label": "a", "text": "one\\ntwo"}\n\n{"text": "Grüße\u2028", "label": "b", "more": [1]}\n',
}
VALUES = {
    "rows.csv": [("two\nlines, and a comma", "a"), ('a "quote"', "b")],
    "rows.tsv": [('"no quoting"', "a"), ("Grüße", "b")],
    "rows.jsonl": [("one\ntwo", "a"), ("Grüße\u2028", "b")],
}


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", CONTENT)
def test_text_formats(tmp_path, name, suffix, mark):
    path = write(tmp_path / (name + suffix), mark + CONTENT[name])
    assert [row.values for row in read_rows(path, COLUMNS)] == VALUES[name]


def test_rows_know_their_place(tmp_path):
    path = write(tmp_path / "rows.csv", CONTENT["rows.csv"])
    assert [row.where for row in read_rows(path, COLUMNS)] == [f"{path}, line 3", f"{path}, line 5"]


def test_long_fields_and_upper_case_suffixes_are_read(tmp_path):
    path = write(tmp_path / "ROWS.CSV", "label,text\na," + "x" * 200_000 + "\n")
    (row,) = read_rows(path, COLUMNS)
    assert len(row.values[0]) == 200_000


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"label": [1, 0, None], "text": ["one", "", None], "more": [[1], [], []]})
    pyarrow.parquet.write_table(table, path)
    rows = read_rows(path, COLUMNS)
    assert [row.values for row in rows] == [("one", 1), ("", 0), (None, None)]
    assert rows[0].text(0) == "one"
    for row in rows[1:]:
        with pytest.raises(UserError, match=rf"{row.where}: expected a text"):
            row.text(0)
    with pytest.raises(UserError, match="expected one column 'title', got none in label, text, more"):
        read_rows(path, ("title",))


MISTAKES = [
    ("rows.csv", "", "expected one column 'text', got none in an empty file"),
    ("rows.csv", "label,text\n", "expected at least one row"),
    ("rows.jsonl", "\n", "expected at least one row"),
    ("rows.csv", "label,title\na,b\n", "expected one column 'text', got none in label, title"),
    ("rows.csv", "label,text,text\na,b,c\n", "expected one column 'text', got 2 of them"),
    ("rows.csv", 'label,text\na,"two\nlines"\na,b,c\n', "line 4: expected 2 columns .*, got 3"),
    ("rows.csv", 'label,text\na,"b" c\n', "line 2: expected well-formed columns"),
    ("rows.csv", 'label,text\na,"b\n', "line 2: expected well-formed columns"),
    ("rows.tsv", "label\ttext\na\n", "line 2: expected 2 columns .*, got 1"),
    ("rows.csv", b"label,text\na,b\na,\xff\n", "line 3: expected UTF-8"),
    ("rows.tsv", "label\ttext\na\tb\n".encode("utf-16"), "line 1: expected UTF-8"),
    ("rows.jsonl.gz", b'{"label": "\xe9", "text": ""}', "line 1: expected UTF-8"),
    ("rows.jsonl", '{"label": 1, "text": ""}\n{"label": 1\n', "line 2: expected a JSON object"),
    ("rows.jsonl", "[" * 100_000, "line 1: expected a JSON object"),
    ("rows.jsonl", "[1]\n", "line 1: expected a JSON object, got list"),
    ("rows.jsonl", '{"label": 1, "title": ""}\n', "line 1: expected a key 'text', got label, title"),
    ("rows.txt", "a\n", r"expected a name in \.csv, \.tsv, \.jsonl, \.parquet"),
    ("rows.parquet.gz", b"", "expected a name in"),
    ("rows", "a\n", "expected a name in"),
    (".gz", "a\n", "expected a name in"),
    ("rows.parquet", b"PAR1", "expected a Parquet file"),
]


@pytest.mark.parametrize(("name", "content", "message"), MISTAKES)
def test_a_malformed_file_is_a_users_mistake(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_rows(path, COLUMNS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.parquet"])
def test_a_missing_file_and_a_folder_are_users_mistakes(tmp_path, name):
    with pytest.raises(UserError, match=name):
        read_rows(tmp_path / name, COLUMNS)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=name):
        read_rows(tmp_path / name, COLUMNS)


def test_a_broken_archive_is_a_users_mistake(tmp_path):
    whole = gzip.compress(json.dumps({"label": 1, "text": "b" * 1000}).encode())
    for data in (whole[:-9], b"no archive", whole[:20] + b"\xff" * 20 + whole[40:]):
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(UserError, match="expected a file that can be read"):
            read_rows(path, COLUMNS)


def test_lines_keep_everything_but_their_ends(tmp_path):
    path = write(tmp_path / "lines.en.gz", " one \r\ntwo\u2028\x0b\n\nlast")
    assert read_lines(path) == [" one ", "two\u2028\x0b", "", "last"]


def test_a_file_is_found_plain_or_gzipped(tmp_path):
    write(tmp_path / "b.en.gz", "")
    assert find_file(tmp_path, "b.en") == tmp_path / "b.en.gz"
    plain = write(tmp_path / "b.en", "")
    assert find_file(tmp_path, "b.en") == plain
    with pytest.raises(UserError, match=r"expected a folder with a\.en or a\.en\.gz"):
        find_file(tmp_path, "a.en")
