"""Users' files: every format, plain and gzipped, and one clear line for whatever is wrong with them."""

import bz2
import gzip
import json
import lzma
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from flax_transformer.data.files import Reading, file_kind, find_file, find_files, read_lines, read_table
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
    assert [row.values for row in read_table(path, COLUMNS)] == VALUES[name]


def test_a_tsv_with_the_quotes_of_a_csv_is_told(tmp_path, capsys):
    content = 'label\ttext\na\t"he said ""hi"""\nb\t"no quoting"\n'
    (first, _) = read_table(write(tmp_path / "rows.tsv", content), COLUMNS)
    assert first.values == ('"he said ""hi"""', "a")
    assert "1 fields are quoted as in a CSV, but quotes are letters in a TSV; name it .csv?" in capsys.readouterr().err
    (first, _) = read_table(write(tmp_path / "rows.csv", content), COLUMNS)
    assert first.values == ('he said "hi"', "a")
    assert capsys.readouterr().err == ""
    read_table(write(tmp_path / "all.tsv", 'label\ttext\na\t"one"\nb\t"two"\n'), COLUMNS)
    assert "2 fields are quoted as in a CSV" in capsys.readouterr().err
    read_table(write(tmp_path / "some.tsv", 'label\ttext\na\t"one"\nb\ttwo\n'), COLUMNS)
    assert capsys.readouterr().err == ""


def test_rows_know_their_place(tmp_path):
    path = write(tmp_path / "rows.csv", CONTENT["rows.csv"])
    assert [row.where for row in read_table(path, COLUMNS)] == [f"{path}, line 2", f"{path}, line 5"]


def test_long_fields_and_upper_case_suffixes_are_read(tmp_path):
    path = write(tmp_path / "ROWS.CSV", "label,text\na," + "x" * 200_000 + "\n")
    (row,) = read_table(path, COLUMNS)
    assert len(row.values[0]) == 200_000


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"label": [1, 0, None], "text": ["one", "", None], "more": [[1], [], []]})
    pyarrow.parquet.write_table(table, path)
    rows = read_table(path, COLUMNS)
    assert [row.values for row in rows] == [("one", 1), ("", 0), (None, None)]
    assert rows[0].text(0) == "one"
    for row in rows[1:]:
        with pytest.raises(UserError, match=rf"{row.where}: expected a text"):
            row.text(0)
    with pytest.raises(UserError, match="expected one column 'title', got none in label, text, more"):
        read_table(path, ("title",))


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


PARQUET: dict[str, Any] = {
    "dictionary": (pyarrow.array(["b", "e"]).dictionary_encode(), ["b", "e"]),
    "null": (pyarrow.nulls(2), [None, None]),
    "large text": (pyarrow.array(["b", "e"], pyarrow.large_string()), ["b", "e"]),
    "bytes": (pyarrow.array([b"b", b"\xff"]), [b"b", b"\xff"]),
    "map": (pyarrow.array([[("k", "v")], None], pyarrow.map_(pyarrow.string(), pyarrow.string())), [{"k": "v"}, None]),
    "list of maps": (
        pyarrow.array([[[("k", 1)]], []], pyarrow.list_(pyarrow.map_(pyarrow.string(), pyarrow.int8()))),
        [[{"k": 1}], []],
    ),
    "float32": (pyarrow.array([0.1, None], pyarrow.float32()), [0.1, None]),
    "decimal": (pyarrow.array([Decimal("1.50"), None], pyarrow.decimal128(9, 2)), [Decimal("1.50"), None]),
}


@pytest.mark.parametrize("kind", PARQUET)
def test_columns_that_only_parquet_has(tmp_path, kind):
    column, values = PARQUET[kind]
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "rows.parquet")
    assert [row.values for row in read_table(tmp_path / "rows.parquet", ("text",))] == [(value,) for value in values]


def test_a_value_of_parquet_that_cannot_be_read_stops_no_other_row(tmp_path):
    """Text that is no UTF-8; twice the same key of a map."""
    text = pyarrow.array([b"b", b"\xff", b"e"]).view(pyarrow.string())
    keys = pyarrow.array([[("k", 1)], [("k", 1), ("k", 2)], []], pyarrow.map_(pyarrow.string(), pyarrow.int8()))
    for column, values in ((text, ["b", "e"]), (keys, [{"k": 1}, {}])):
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "rows.parquet")
        rows = read_table(tmp_path / "rows.parquet", ("text",))
        assert [row.values for row in rows if not row.problem] == [(value,) for value in values]
        assert rows[1].where.endswith("row 2")
        assert "holds a value that cannot be read" in rows[1].problem


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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("MAILS.CSV", "csv"), ("x.Csv.GZ", "csv"), ("x.csv.gz", "csv"), ("a.b.tsv", "tsv"), ("X.TSV.gz", "tsv")),
        *(
            ("x.json", "json"),
            ("x.JSONL", "json"),
            ("x.ndjson", "json"),
            ("x.Json.Gz", "json"),
            ("x.PARQUET", "parquet"),
        ),
        *(
            ("x.txt", "text"),
            ("x.TXT.GZ", "text"),
            ("x", "text"),
            ("test.en", "text"),
            ("csv", "text"),
            ("x.gz", "text"),
        ),
    ],
)
def test_one_function_tells_the_kind(name, kind):
    assert file_kind(Path("folder.csv") / name) == kind


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id\ttext\n1\tone\n", "the first one names a column 'text'"),
        ("Text\none\n", "the first one names a column 'text'"),
        ('{"text": "one"}\n', "the first one is a JSON object"),
        ("the text\n", ""),
        ("{text}\n", ""),
    ],
)
def test_plain_text_that_begins_as_a_table_is_told(tmp_path, capsys, content, told):
    read_table(write(tmp_path / "x.txt", content), ("text",))
    said = capsys.readouterr().err
    assert told in said
    assert bool(said) == bool(told)


def test_plain_text_is_a_table_of_one_column(tmp_path):
    path = write(tmp_path / "x.txt", "one\n\n three\u2028\x85\x0c\r\n\n")
    assert [row.values for row in read_table(path, ("any",))] == [("one",), ("",), (" three\u2028\x85\x0c",), ("",)]
    assert [row.where for row in read_table(path, ("any",))][-1] == f"{path}, line 4"


WANTED = [("Grüße; hier, dort", "Käse"), ("zwei\nZeilen", "b")]
DIALECTS = {
    "semicolons": 'label;text\nKäse;"Grüße; hier, dort"\nb;"zwei\nZeilen"\n',
    "tabs": 'label\ttext\nKäse\tGrüße; hier, dort\nb\t"zwei\nZeilen"\n',
    "bars": 'label|text\nKäse|Grüße; hier, dort\nb|"zwei\nZeilen"\n',
    "stated": 'sep=;\nlabel;text\nKäse;"Grüße; hier, dort"\nb;"zwei\nZeilen"\n',
    "stated and quoted": '"sep=|"\r\nlabel|text\r\nKäse|"Grüße; hier, dort"\r\nb|"zwei\nZeilen"\r\n',
    "stated tab": 'sep=\t\nlabel\ttext\nKäse\tGrüße; hier, dort\nb\t"zwei\nZeilen"\n',
    "other capitals": '"LABEL ";Text\nKäse;"Grüße; hier, dort"\nb;"zwei\nZeilen"\n',
    "blanks in the header": 'label, text\nKäse,"Grüße; hier, dort"\nb,"zwei\nZeilen"\n',
    "a comma in another column's name": '"id, old";label;text\n1;Käse;"Grüße; hier, dort"\n2;b;"zwei\nZeilen"\n',
    "an unnamed index": ',label,text\n0,Käse,"Grüße; hier, dort"\n1,b,"zwei\nZeilen"\n',
    "a blank behind each delimiter": 'label, text\nKäse, "Grüße; hier, dort"\nb, "zwei\nZeilen"\n',
    "unseen letters in the header": 'la\u200bbel;\ufeffte\u00adxt\nKäse;"Grüße; hier, dort"\nb;"zwei\nZeilen"\n',
    "full width": '\uff4cabel;\uff34ext\nKäse;"Grüße; hier, dort"\nb;"zwei\nZeilen"\n',
    "carriage returns before each line end": 'label;text\r\r\nKäse;"Grüße; hier, dort"\r\r\nb;"zwei\nZeilen"\r\r\n',
    "a delimiter behind the last name": 'label,text,\nKäse,"Grüße; hier, dort",\nb,"zwei\nZeilen"\n',
    "a delimiter behind the last value": 'label,text\nKäse,"Grüße; hier, dort",\nb,"zwei\nZeilen"\n',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_delimiters_and_byte_order_marks_are_recognized(tmp_path, dialect, encoding):
    path = write(tmp_path / "rows.csv", DIALECTS[dialect].encode(encoding))
    assert [row.values for row in read_table(path, COLUMNS)] == WANTED


@pytest.mark.parametrize(
    "encoding", ["cp1252", "latin-1", "mac-roman", "cp437", "utf-16-le", "utf-16-be", "cp1250", "cp500"]
)
def test_other_encodings_are_named_by_the_user(tmp_path, encoding):
    path = write(tmp_path / "rows.csv", DIALECTS["semicolons"].encode(encoding))
    assert [row.values for row in read_table(path, COLUMNS, Reading(encoding=encoding))] == WANTED
    with pytest.raises(UserError, match=r"rows\.csv.*; name it with --data\.encoding \w+"):
        read_table(path, COLUMNS, Reading(flags="--data."))


@pytest.mark.parametrize("encoding", ["iso2022_jp", "utf-7"])
def test_encodings_that_pass_for_ascii_are_read_and_those_of_japanese_told(tmp_path, capsys, encoding):
    path = write(tmp_path / "rows.csv", "label,text\na,東京\n".encode(encoding))
    assert read_table(path, COLUMNS, Reading(encoding=encoding))[0].values == ("東京", "a")
    assert capsys.readouterr().err == ""
    read_table(path, COLUMNS, Reading(flags="--data."))
    told = "1 lines look like Japanese in ISO-2022, the first of them line 2; name it with --data.encoding iso2022_jp"
    assert (told in capsys.readouterr().err) == (encoding == "iso2022_jp")


def test_a_codec_that_is_made_for_no_files_is_a_users_mistake(tmp_path):
    path = write(tmp_path / "rows.csv", "label,text\na,b\n")
    with pytest.raises(UserError, match="expected punycode, got something else"):
        read_table(path, COLUMNS, Reading(encoding="punycode"))


def test_the_message_shows_the_line_as_it_was_meant(tmp_path):
    path = write(tmp_path / "rows.csv", "label,text\na,sehr schön\n".encode("cp1252"))
    with pytest.raises(UserError) as caught:
        read_table(path, COLUMNS, Reading(flags="--data."))
    assert str(caught.value) == (
        f"{path}, line 2: expected UTF-8, got byte 0xf6 (invalid start byte); as cp1252 it would read 'a,sehr schön'; "
        "name it with --data.encoding cp1252"
    )


def test_a_stated_encoding_that_is_not_the_file_s(tmp_path, capsys):
    path = write(tmp_path / "rows.csv", "label,text\na,sehr schön\n")
    read_table(path, COLUMNS, Reading(encoding="cp1252", flags="--data."))
    assert "read as cp1252, but all of it is well-formed UTF-8" in capsys.readouterr().err
    write(path, "\ufefflabel,text\na,b\n".encode("utf-16"))
    with pytest.raises(UserError, match="expected cp1252, but it begins with the byte order mark of utf-16-le"):
        read_table(path, COLUMNS, Reading(encoding="cp1252"))


@pytest.mark.parametrize("encoding", ["cp1252", "cp1251", "gb18030"])
def test_a_file_of_two_encodings_is_told(tmp_path, capsys, encoding):
    letters = {"cp1252": "schön", "cp1251": "привет", "gb18030": "很好"}[encoding]
    lines = [f"a,{letters} {i}\n".encode("utf-8" if i in (4, 7) else encoding) for i in range(9)]
    path = write(tmp_path / "rows.csv", b"label,text\n" + b"".join(lines))
    assert len(read_table(path, COLUMNS, Reading(encoding=encoding, flags="--data."))) == 9
    said = (
        f"read as {encoding}, but 2 of its 9 lines with letters beyond ASCII are well-formed UTF-8, the first of them "
    )
    assert f"{said}line 6; is it of two encodings?" in capsys.readouterr().err
    write(path, b"label,text\n" + b"".join(line for i, line in enumerate(lines) if i not in (4, 7)))
    assert len(read_table(path, COLUMNS, Reading(encoding=encoding, flags="--data."))) == 7
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("first", ["label,text", "类,文"])
def test_utf_16_without_a_mark_is_named(tmp_path, first, order):
    """Also where there is a single letter of ASCII in the first line."""
    path = write(tmp_path / "rows.csv", f"{first}\na,b\n".encode(f"utf-16-{order}"))
    with pytest.raises(UserError, match=f"got zero bytes; name it with --data.encoding utf-16-{order}"):
        read_table(path, COLUMNS, Reading(flags="--data."))


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.txt"])
def test_line_ends_of_old_macs(tmp_path, name):
    path = write(tmp_path / name, CONTENT["rows.tsv"].replace("\t", "," if "csv" in name else "\t").replace("\n", "\r"))
    rows = read_table(path, ("text",))
    assert [row.values[0] for row in rows][-1].endswith("Grüße")
    assert len(rows) == (3 if "txt" in name else 2)


def test_a_gzipped_file_without_the_suffix(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(gzip.compress(CONTENT["rows.csv"].encode()))
    assert [row.values for row in read_table(path, COLUMNS)] == VALUES["rows.csv"]


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


def test_another_delimiter_is_named_by_the_user(tmp_path):
    path = write(tmp_path / "rows.csv", "text:label\na:b\n")
    with pytest.raises(UserError, match=r"in text:label \(the first line, .*; --data\.delimiter names another\)"):
        read_table(path, COLUMNS, Reading(flags="--data."))
    assert [row.values for row in read_table(path, COLUMNS, Reading(delimiter=":"))] == [("a", "b")]


JSON = {
    "array": '[{"text": "a", "label": 1}, {"text": "b", "label": 2}]',
    "pretty array": '[\n  {\n    "text": "a",\n    "label": 1\n  },\n  {"text": "b", "label": 2}\n]\n',
    "lines": '{"text": "a", "label": 1}\n{"text": "b", "label": 2}',
    "lines with blanks": '\n{"text": "a", "label": 1}\r\n\n{"Text": "b", "LABEL": 2}\n',
    "wrapped": '{"version": "1", "data": [{"text": "a", "label": 1}, {"text": "b", "label": 2}]}',
    "columns": '{"text": ["a", "b"], "label": [1, 2]}',
    "pandas by row": '{"0": {"text": "a", "label": 1}, "1": {"text": "b", "label": 2}}',
    "pandas split": '{"columns": ["i", "text", "label"], "index": [0, 1], "data": [[7, "a", 1], [8, "b", 2]]}',
    "one of two arrays": '{"names": [{"of": "text"}], "rows": [{"text": "a", "label": 1}, {"text": "b", "label": 2}]}',
    "pandas": '{"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 2}}',
}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "ROWS.JSON.GZ"])
@pytest.mark.parametrize("form", JSON)
def test_json_as_people_have_it(tmp_path, form, name):
    path = write(tmp_path / name, JSON[form])
    if name.endswith("GZ"):
        path.write_bytes(gzip.compress(JSON[form].encode()))
    assert [row.values for row in read_table(path, COLUMNS)] == [("a", 1), ("b", 2)]


def test_one_row_of_json(tmp_path):
    for content in ('{"text": "a", "label": 1}', '{\n "text": "a",\n "label": 1\n}', '[{"text": "a", "label": 1}]'):
        assert [row.values for row in read_table(write(tmp_path / "x.json", content), COLUMNS)] == [("a", 1)]


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_dotted_columns(tmp_path, kind):
    entries = [
        {"translation": {"de": "ein", "en": "a"}, "a.b": "x"},
        {"translation": {"de": "zwei", "en": None}, "a.b": "y"},
    ]
    path = tmp_path / f"rows.{kind}"
    if kind == "json":
        path.write_text(json.dumps(entries))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(entries), path)
    rows = read_table(path, ("translation.de", "Translation.EN", "a.b"))
    assert [row.values for row in rows] == [("ein", "a", "x"), ("zwei", None, "y")]
    with pytest.raises(UserError, match=r"expected one column 'title\.de'"):
        read_table(path, ("title.de", "a.b"))


def test_files_by_folder_pattern_and_name(tmp_path):
    names = [f"train-{i}.csv" for i in (10, 2, 1)]
    for name in (*names, ".hidden.csv", "notes.md"):
        write(tmp_path / name, "")
    in_order = [tmp_path / f"train-{i}.csv" for i in (1, 2, 10)]
    assert find_files([str(tmp_path)]) == in_order
    assert find_files([str(tmp_path / "train-*.csv")]) == in_order
    assert find_files([str(tmp_path / "train-2.csv"), str(tmp_path)]) == [in_order[1], in_order[0], in_order[2]]
    (tmp_path / "link.csv").symlink_to(tmp_path / "train-2.csv")
    assert find_files([str(tmp_path / name) for name in ("train-2.csv", "link.csv")]) == [in_order[1]]
    (tmp_path / "link.csv").unlink()
    write(tmp_path / "[a].csv", "")
    assert find_files([str(tmp_path / "[a].csv")]) == [tmp_path / "[a].csv"]
    with pytest.raises(UserError, match="expected a pattern of files, but there are none"):
        find_files([str(tmp_path / "*.parquet")])
    for name in ("", "a\0b.csv"):
        with pytest.raises(UserError, match="expected the name of a file, got "):
            find_files([name])


def test_a_folder_of_several_parts_is_refused(tmp_path):
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        write(tmp_path / name, "")
    with pytest.raises(UserError, match=r"expected a folder of one part, got files of test, train; .*train\*'"):
        find_files([str(tmp_path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"expected a folder with files in .* got none$"):
        find_files([str(tmp_path / "empty")])
    (tmp_path / "empty" / "train").mkdir()
    write(tmp_path / "empty" / "train" / "a.csv", "")
    with pytest.raises(UserError, match=r"got none; name them by a pattern, such as '.*empty/\*/\*\.csv'"):
        find_files([str(tmp_path / "empty")])
    write(tmp_path / "empty" / "train" / "b.txt", "")
    (tmp_path / "empty" / "train" / "a.csv").unlink()
    with pytest.raises(UserError, match=r"got none; name them by a pattern, such as '.*train/\*\.txt'"):
        find_files([str(tmp_path / "empty" / "train")])


def test_an_address_is_no_file():
    for name in ("https://a.b/rows.csv", "s3://a/rows.parquet", "hf://datasets/a/b.jsonl"):
        with pytest.raises(UserError, match="expected a file on this machine, got an address; download it first"):
            read_table(find_files([name])[0], COLUMNS)


def test_missing_shards_are_told(tmp_path, capsys):
    for i in (0, 2):
        write(tmp_path / f"train-0000{i}-of-00003.parquet", "")
    assert len(find_files([str(tmp_path / "train-*.parquet")])) == 2
    assert "2 of 3 shards are read" in capsys.readouterr().err
