"""What is wrong with users' files: one clear line for each malformed file, and broken rows stop no others."""

import bz2
import gzip
import json
import lzma

import pytest
from small_tables import COLUMNS, write

from flax_transformer.data.files import Reading, read_table
from flax_transformer.errors import UserError

MISTAKES = [
    ("rows.csv", "", "expected at least one row, got an empty file"),
    ("rows.csv", "\n\n", "expected one column 'text', got none in an empty line"),
    ("rows.parquet", b"", "expected at least one row, got an empty file"),
    ("rows.csv", "label,text\n", "expected at least one row"),
    ("rows.jsonl", "\n", "expected at least one row"),
    ("rows.json", "[]", "expected at least one row"),
    (
        "rows.csv",
        "label,title\na,b\n",
        "expected one column 'text', got none in label, title \\(the first line, separated by commas\\)$",
    ),
    ("rows.csv", "label,text,text\na,b,c\n", "expected one column 'text', got 2 of them"),
    ("rows.csv", "label,Text,TEXT\na,b,c\n", "expected one column 'text', got 2 of them"),
    ("rows.csv", 'label,text\na,"b\n', "line 2: expected the quote that opens here to be closed"),
    ("rows.csv", b"label,text\na,b\na,\xff\n", "line 3: expected UTF-8, got byte 0xff"),
    ("rows.jsonl.gz", b'{"label": "\xe9", "text": ""}', "line 1: expected UTF-8"),
    ("rows.jsonl", "[" * 100_000, "line 1: expected a JSON object"),
    (
        "rows.json",
        '[{"label": 1,\n "text": "a"},\n {"label" 2}]',
        "line 3: expected a JSON object on each line, or one",
    ),
    ("rows.csv", "a,b\nc,d\n", "expected one column 'text', got none in a, b \\(the first line"),
    ("rows.json", "[{'text': 'a', 'label': 1}]", "line 1: expected a JSON object on each line, or one array"),
    ("rows.json", '[{"text": "a", "label": 1},]', "line 1: expected a JSON object on each line, or one array"),
    ("rows.jsonl", '{"text": "a", "label": 1}{"text": "b", "label": 2}\n', "line 1: expected a JSON object on each"),
    ("rows.json", '{"text": "a"\n', "line 1: expected a JSON object on each line, or one array"),
    ("rows.jsonl", '{"label": 1, "title": ""}\n', "expected one column 'text', got none in label, title"),
    ("rows.txt", "a\n", r"expected a table with columns, a name in \.csv, \.tsv, \.json"),
    ("rows", "a\n", "expected a table with columns"),
    (".gz", "a\n", "expected a table with columns"),
    ("rows.parquet.gz", b"", "expected .parquet, which is packed already"),
    ("rows.xlsx", b"PK", r"got \.xlsx; save the sheet as CSV"),
    ("rows.csv.zip", b"PK", r"got \.zip; unpack it"),
    ("rows.parquet", b"PAR1", "expected a Parquet file"),
    # Names that do not tell what is in a file.
    (
        "rows.csv",
        b"PK\x03\x04\x14\0\x06\0\x08\0",
        "expected text, got a zip archive or an Excel sheet; .* save the sheet as",
    ),
    ("rows.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "expected text, got an old Excel sheet; save it as CSV"),
    ("rows.tsv", b"PAR1\x15\x04\x15", r"expected text, got a Parquet file; name it \.parquet"),
    ("rows.csv", bz2.compress(b"text,label\n"), r"got an archive of bzip2; unpack it, or pack it as \.gz"),
    ("rows.jsonl", lzma.compress(b"{}"), "got an archive of xz"),
    ("rows.csv", b"\x28\xb5\x2f\xfd\x04\x58", "got an archive of Zstandard"),
    ("rows.csv.gz", gzip.compress(b"text,label\n", mtime=0), "got an archive of gzip; unpack it"),
    ("rows.csv.gz", b"%PDF-1.4\n", "expected text, got a PDF file"),
    (
        "rows.parquet",
        b"version https://git-lfs.github.com/spec/v1\noid",
        "a Parquet file, got a pointer of Git LFS; fetch",
    ),
    ("rows.csv", b"version https://git-lfs.github.com/spec/v1\noid", "expected text, got a pointer of Git LFS; fetch"),
    ("rows.parquet", b"PK\x03\x04", "expected a Parquet file, got a zip archive"),
    ("rows.json", "<!DOCTYPE html>\n<html>", r"line 1: .* the file begins with '<!DOCTYPE html>'"),
    ("rows.json", "text,label\na,b\n", r"line 1: .* the file begins with 'text,label'"),
    ("rows.csv", b"kind,body\na,sch\xf6n\n", "expected one column 'text', got none in kind, body"),
    # What stands above a table, or in place of its header.
    ("rows.csv", "Report of 2024\n\nlabel;text\na;b\n", "; line 3 has such names: delete the lines above it"),
    ("rows.csv", "# made by hand\nid,Label,Text\n1,a,b\n", "; line 2 has such names: delete the lines above it"),
    ("rows.csv", "word " * 9_999 + ",a\n", r"got none in (word )+\.\.\., a \(the first line"),
    ("rows.csv", '{"text": "a"}\n', r"expected a line of column names, got a JSON object; name the file \.jsonl"),
    ("rows.json", '[{"data": {"Text": "a"}, "label": 1}]', r"got none in data, label; is 'data\.Text' meant\?"),
    ("rows.csv", '"a\nb",label\nx,y\n', r"got none in a b, label \(the first line"),
    (
        "rows.csv",
        "label,text\ra,b\rc,d\ne,f\n",
        "expected column names, got a line that holds a carriage return outside",
    ),
    ("rows.tsv", '"label"\t"text"\n"a"\t"b"\n', r"separated by tabs; quotes are letters in a TSV: name it \.csv\)"),
]


@pytest.mark.parametrize(("name", "content", "message"), MISTAKES)
def test_a_malformed_file_is_a_users_mistake(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path, COLUMNS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dashes_are_a_text_like_any_other(tmp_path):
    """Unless they stand right below the names, in every column."""
    path = write(tmp_path / "rows.csv", "label,text\na,---\n---,---\n")
    assert [row.values for row in read_table(path, COLUMNS)] == [("---", "a"), ("---", "---")]
    assert read_table(write(tmp_path / "one.csv", "text\n---\n"), ("text",))[0].values == ("---",)
    assert read_table(write(tmp_path / "blank.csv", "label,text\n,\na,b\n"), COLUMNS)[0].values == ("", "")


# What is wrong with one row, which stops no other.
BROKEN_ROWS = [
    ("rows.csv", "label,text\na,b\na,b,c\nd,e\n", "line 3", "has 3 columns, not 2 as the first line has"),
    ("rows.csv", "label,text\na,b\na\nd,e\n", "line 3", "has 1 columns, not 2"),
    ("rows.csv", 'label,text\na,b\na,"b" c\nd,e\n', "line 3", "is not well-formed"),
    ("rows.csv", "label,text\na,b\nlabel,text\nd,e\n", "line 3", "repeats the names of the columns"),
    ("rows.csv", "\ufefflabel;text\na;b\n\ufefflabel;text\nd;e\n", "line 3", "repeats the names of the columns"),
    ("rows.tsv", "label\ttext\na\tb\na\nd\te\n", "line 3", "has 1 columns"),
    ("rows.csv", "| label | text |\n|:---|---:|\n|a|b|\n|d|e|\n", "line 2", "is a rule of dashes"),
    ("rows.csv", "label,text\na,b\na,b\rc\nd,e\n", "line 3", "holds a carriage return outside quotes"),
    ("rows.jsonl", '{"label": "a", "text": "b"}\n{"label": 1\n{"label": "d", "text": "e"}', "line 2", "is not JSON"),
    ("rows.jsonl", '{"label": "a", "text": "b"}\n[1]\n{"label": "d", "text": "e"}', "line 2", "holds an array"),
    ("rows.jsonl", '{"label": "a", "text": "b"}\n{"text": 1}\n{"label": "d", "text": "e"}', "line 2", "has no 'label'"),
    ("rows.jsonl", '{"label": 1\n{"label": "a", "text": "b"}\n{"label": "d", "text": "e"}', "line 1", "is not JSON"),
    (
        "rows.jsonl",
        '{"label": "a", "text": "b"}\n' + "[" * 100_000 + '\n{"label": "d", "text": "e"}',
        "line 2",
        "too deep",
    ),
    ("rows.json", '[{"label": "a", "text": "b"}, 3, {"label": "d", "text": "e"}]', "item 2", "holds a number"),
    ("rows.json", '[{"label": "a", "text": "b"}, "text", {"label": "d", "text": "e"}]', "item 2", "holds a text"),
    (
        "rows.jsonl",
        '{"label": "a", "text": "b"}\n{"label": 1, "text": "x", "text": "y"}\n{"label": "d", "text": "e"}',
        "line 2",
        "has 'text' twice",
    ),
    (
        "rows.json",
        '[{"label": "a", "text": "b"}, {"label": 1, "label": 1, "text": "x"}, {"label": "d", "text": "e"}]',
        "item 2",
        "has 'label' twice",
    ),
]


@pytest.mark.parametrize(("name", "content", "place", "problem"), BROKEN_ROWS)
def test_a_broken_row_stops_no_other(tmp_path, name, content, place, problem):
    path = write(tmp_path / name, content)
    rows = read_table(path, COLUMNS)
    (broken,) = (row for row in rows if row.problem)
    assert broken.where == f"{path}, {place}"
    assert problem in broken.problem
    assert [row.values for row in rows if not row.problem] == [("b", "a"), ("e", "d")]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows.parquet"])
def test_a_missing_file_and_a_folder_are_users_mistakes(tmp_path, name):
    with pytest.raises(UserError, match=name):
        read_table(tmp_path / name, COLUMNS)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=name):
        read_table(tmp_path / name, COLUMNS)


def test_a_broken_archive_is_a_users_mistake(tmp_path):
    whole = gzip.compress(json.dumps({"label": 1, "text": "b" * 1000}).encode())
    for data in (whole[:-9], b"no archive", whole[:20] + b"\xff" * 20 + whole[40:]):
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(UserError, match="expected a file that can be read"):
            read_table(path, COLUMNS)


QUOTES = [
    ('label,text\na,b\nc,"open\nd,e\nf,g\n', 3),
    ('label,text\na,"one\ntwo"\nc,"open\nd,e\n', 4),
    ('label,text\na,"he said ""hi"""\nc,"a ""b"\nd,"open ""\ne,f\n', 4),
    ('label,text\n"a\nb","open\nd,e\nf,g\n', 3),
    ('label,text\nc,"open\nd,"good"\nf,g\n', 2),
    ('label,text\na,x "inner" y\nc,"open\nd,e\n', 3),
    ('label,text\n"a",""\nb,"""quoted"""\nc,"open\nd,e\n', 4),
    ('label;text\r\nc;"open\r\nd;e\r\n', 2),
    ('"label,text\na,b\n', 1),
]


@pytest.mark.parametrize(("content", "line"), QUOTES)
def test_an_unclosed_quote_is_named_where_it_opens(tmp_path, content, line):
    path = write(tmp_path / "rows.csv", content)
    with pytest.raises(UserError, match=f"line {line}: expected the quote that opens here to be closed"):
        read_table(path, COLUMNS)


def test_a_missing_column_names_what_was_seen_and_the_flags(tmp_path):
    path = write(tmp_path / "rows.csv", "review;sentiment\na;b\n")
    with pytest.raises(UserError) as caught:
        read_table(path, COLUMNS, Reading(columns_flags="--data.text-column and --data.label-column"))
    assert str(caught.value) == (
        f"{path}: expected one column 'text', got none in review, sentiment (the first line, "
        "separated by semicolons); "
        "name yours with --data.text-column and --data.label-column"
    )
