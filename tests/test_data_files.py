"""Users' files: every format, plain and gzipped, and how files are found."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from small_tables import COLUMNS, CONTENT, VALUES, write

from flax_transformer.data.files import file_kind, find_file, find_files, read_lines, read_table
from flax_transformer.errors import UserError


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


@pytest.mark.parametrize(
    "name", ["{}-00000-of-00001.parquet", "tickets_{}.csv", "imdb.{}.csv.gz", "2024-{}.csv", "{}ing.csv", "{}2.jsonl"]
)
def test_a_folder_of_several_parts_is_refused(tmp_path, name):
    for part in ("train", "test"):
        write(tmp_path / name.format(part), "")
    with pytest.raises(UserError, match=r"expected a folder of one part, got files of test, train; .*\*train\*'"):
        find_files([str(tmp_path)])


def test_words_that_only_contain_the_name_of_a_part_are_none(tmp_path):
    files = [write(tmp_path / f"{name}.csv", "") for name in ("constraints", "latest", "trains", "valley", "values")]
    assert find_files([str(tmp_path)]) == files


def test_a_folder_without_tables_is_refused(tmp_path):
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
