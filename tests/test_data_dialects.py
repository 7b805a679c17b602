"""How text files are written: delimiters, encodings and line ends."""

import gzip

import pytest
from small_tables import COLUMNS, CONTENT, VALUES, write

from flax_transformer.data.files import Reading, read_table
from flax_transformer.errors import UserError

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


def test_another_delimiter_is_named_by_the_user(tmp_path):
    path = write(tmp_path / "rows.csv", "text:label\na:b\n")
    with pytest.raises(UserError, match=r"in text:label \(the first line, .*; --data\.delimiter names another\)"):
        read_table(path, COLUMNS, Reading(flags="--data."))
    assert [row.values for row in read_table(path, COLUMNS, Reading(delimiter=":"))] == [("a", "b")]
