"""Lines of predictions: one for each text that came in, whatever came, and the same from a file and from a pipe."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from random_exports import CLASSES

from flax_transformer.cli import main as cli
from flax_transformer.cli.texts import read_standard_input
from flax_transformer.data.text_files import Reading

ROOT = Path(__file__).parent.parent
# A line of each kind. Only \n ends one, with or without \r before it.
LINES = [
    "the film",
    "",
    "   ",
    "was\u2028very\u0085long\x0b\x0cand\x1c\x1eloud",
    "日本 pöor 🎬",
    "loud " * 80,  # longer than the model reads
    "the film",
]


def predict(output: Path, model: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    """The lines that are written."""
    output.unlink(missing_ok=True)
    assert cli.main(["predict", str(model), "--output", str(output), *map(str, arguments)]) == 0
    return lines_of(output)


def piped(content: bytes, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "flax_transformer", "predict", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=env, input=content, capture_output=True, check=False)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
@pytest.mark.parametrize("last", [b"", b"end"], ids=["", "open"])
def test_a_line_out_for_each_line_in(classifier: Path, tmp_path: Path, ends: bytes, mark: bytes, last: bytes):
    content = mark + b"".join(line.encode() + ends for line in LINES) + last
    file = tmp_path / "texts.txt"
    file.write_bytes(content)
    lines = predict(tmp_path / "out.jsonl", classifier, "--file", file)
    expected = [*LINES, *([last.decode()] if last else [])]
    assert [line["row"] for line in lines] == list(range(1, len(expected) + 1))
    assert [line["text"] for line in lines] == expected
    assert [line["prediction"] is None for line in lines] == [not text.strip() for text in expected]
    assert {line.get("error") for line in lines} == {None, "the text is blank"}
    assert [line["row"] for line in lines if line.get("cut")] == [6]
    assert {line["prediction"] for line in lines} <= {None, *CLASSES}
    assert lines[0]["prediction"] == lines[6]["prediction"]


def test_standard_input_and_file_give_the_same_lines(classifier: Path, tmp_path: Path):
    """Also where the locale cannot spell them; what is told in the end is told on stderr."""
    content = b"\xef\xbb\xbf" + "\r\n".join(LINES).encode() + b"\n\n"
    file = tmp_path / "texts.txt"
    file.write_bytes(content)
    lines = predict(tmp_path / "out.jsonl", classifier, "--file", file)
    result = piped(content, classifier, PYTHONIOENCODING="cp1252")
    assert result.returncode == 0, result.stderr
    assert [json.loads(line) for line in result.stdout.decode("utf-8").splitlines() if line] == lines
    assert result.stderr.decode() == "3 of 8 texts have no prediction (3 blank); 1 of 8 texts were cut to 64 tokens\n"


def test_a_table_on_standard_input_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for content, told in ((b"id,text\n1,one\n", "names a column 'text'"), (b'{"text": 1}\n', "is a JSON object")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        texts = read_standard_input(("text",), Reading())
        assert [text.text for text in texts] == content.decode().splitlines()
        said = capsys.readouterr().err
        assert f"{told}; if it is a table, name the file with --file" in said


def test_too_long_for_a_generator_is_an_error_of_its_own_line(
    generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out.jsonl"
    settings = ("--max-new-tokens", "2")
    lines = predict(output, generator, *settings, "--", *LINES)
    assert [line["row"] for line in lines if line["prediction"] is None] == [2, 3, 6]
    assert re.fullmatch(r"the text has \d+ tokens, and the model reads at most 64", lines[5]["error"])
    assert "3 of 7 texts have no prediction (2 blank, 1 too long)" in capsys.readouterr().err
    cut = predict(output, generator, *settings, "--long", "cut", "--", *LINES)
    assert [line["row"] for line in cut if line["prediction"] is None] == [2, 3]
    assert cut[5]["cut"] is True
    for flags in (["--strict"], ["--long", "error"]):
        output.unlink()
        capsys.readouterr()
        assert cli.main(["predict", str(generator), *flags, "--output", str(output), "--", *LINES[3:]]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(r"text 3 \('loud loud.*'\): expected a text to predict for, but the text has \d+ tokens", line)
        output.touch()


TABLE = [
    {"id": "a1", "text": "the film", "n": 1},
    {"id": "a2", "text": "", "n": 2},
    {"id": "日", "text": "very\nlong", "n": 3},
    {"id": "a4", "text": None, "n": None},
]


@pytest.mark.parametrize("kind", ["csv", "CSV", "csv.gz", "CSV.GZ", "tsv", "jsonl", "JSONL.gz", "json", "parquet"])
def test_a_table_gives_a_line_for_each_row_and_keeps_columns(classifier: Path, tmp_path: Path, kind: str):
    rows = [row for row in TABLE if kind != "tsv" or "\n" not in (row["text"] or "")]
    path = tmp_path / f"MAILS.{kind}"
    write_table(path, kind.lower(), rows)
    lines = predict(tmp_path / "out.jsonl", classifier, "--file", path, "--keep", "id", "n")
    assert [line["row"] for line in lines] == list(range(1, len(rows) + 1))
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [str(line["n"] or "") for line in lines] == [str(row["n"] or "") for row in rows]
    assert [line["text"] or "" for line in lines] == [row["text"] or "" for row in rows]
    assert [bool(line.get("error")) for line in lines] == [not row["text"] for row in rows]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def write_table(path: Path, kind: str, rows: Sequence[dict[str, Any]]) -> None:
    def quoted(value: Any) -> str:
        return "" if value is None else f'"{value}"' if "\n" in str(value) else str(value)

    match kind.removesuffix(".gz"):
        case "parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
            return
        case "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in rows)
        case "json":
            text = json.dumps(list(rows))
        case other:
            separator = "," if other == "csv" else "\t"
            text = "\n".join(separator.join(map(quoted, row)) for row in (rows[0].keys(), *(r.values() for r in rows)))
    data = text.encode()
    path.write_bytes(gzip.compress(data) if kind.endswith(".gz") else data)


def test_broken_rows_have_their_reason_in_their_own_lines(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "rows.jsonl"
    broken = ['{"text": "the film"}', "{", '{"text": 7}', '{"text": ["the", "film"]}', '{"text": "\\ud83d"}', "[1]"]
    path.write_text("\n".join([*broken, '{"text": "loud"}']) + "\n", encoding="utf-8")
    lines = predict(tmp_path / "out.jsonl", classifier, "--file", path)
    assert [line["row"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    assert [bool(line.get("error")) for line in lines] == [False, True, True, False, True, True, False]
    assert "4 of 7 texts have no prediction" in capsys.readouterr().err


def test_what_is_kept_is_json_whatever_its_column_holds(classifier: Path, tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    values = {"list": [1.0, float("nan")], "bytes": b"\xff ok", "struct": {"a": float("inf"), "b": [None]}}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": "the film", **values}]), tmp_path / "rows.parquet")
    output = tmp_path / "out.jsonl"
    (line,) = predict(output, classifier, "--file", tmp_path / "rows.parquet", "--keep", *values)
    assert "NaN" not in output.read_text("utf-8")
    assert [line[name] for name in values] == [[1.0, None], "\\xff ok", {"a": None, "b": [None]}]


def test_a_stopped_output_with_gaps_goes_on(classifier: Path, tmp_path: Path):
    """Rows without a prediction take no part in the count of those that have one."""
    output = tmp_path / "out.jsonl"
    texts = [*LINES * 3, "", "loud"]
    whole = predict(output, classifier, "--batch-size", "2", "--", *texts)
    content = output.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    # Behind a text, a blank one, both, a line and a half, and all but one.
    for end in (ends[0], ends[1], ends[3], ends[3] + 5, ends[-2]):
        output.write_bytes(content[:end])
        arguments = [str(classifier), "--batch-size", "2", "--output", str(output), "--resume", "--", *texts]
        assert cli.main(["predict", *arguments]) == 0
        assert output.read_bytes() == content
    assert len(whole) == len(texts)


def test_top_names_the_next_classes_with_their_probabilities(classifier: Path, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    plain = predict(output, classifier, "the film", "loud")
    for top in (2, 3, 9):
        lines = predict(output, classifier, "--top", str(top), "--", "the film", "loud")
        assert [line["prediction"] for line in lines] == [line["prediction"] for line in plain]
        for line in lines:
            ranked = [line, *line["alternatives"]]
            assert len({one["prediction"] for one in ranked}) == len(ranked) == min(top, 3)
            scores = [one["score"] for one in ranked]
            assert scores == sorted(scores, reverse=True)
            if top >= 3:
                assert sum(scores) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep", "id", "--", "x"], "--keep: expected --file"),
        (["--column", "text", "--", "x"], "--column: expected --file"),
        (["--file", "t.csv", "--keep", "score"], "--keep: expected other columns than those of the output"),
        (["--file", "t.csv", "--keep", "absent"], "expected one column 'absent', got none"),
        (["--file", "t.csv", "--column", "absent"], "expected one column 'absent', got none"),
        (["--file", "t.txt", "--keep", "id"], "expected a table with columns"),
        (
            ["--file", "t.txt", "--column", "text"],
            r"--column, --delimiter: expected a table with columns, .* got t\.txt",
        ),
        (
            ["--file", "t.txt", "--delimiter", ";"],
            r"--column, --delimiter: expected a table with columns, .* got t\.txt",
        ),
        (["--file", "empty.txt"], r"empty\.txt: expected"),
        (["--file", "absent.csv"], r"absent\.csv"),
        (["--top", "0", "--", "x"], "--top: expected at least 1"),
        (["--output", "absent/out.jsonl", "--", "x"], "expected its folder absent to exist"),
        (["--output", "t.csv/out.jsonl", "--", "x"], "expected its folder t.csv to exist"),
        (["--output", "link", "--", "x"], "link: expected a name that is not taken"),
        (["--output", "n" * 300, "--", "x"], "File name too long"),
        (["--output", "folder", "--", "x"], "folder: expected a name that is not taken"),
        (["--output", "folder", "--resume", "--", "x"], "folder: expected a name that is not taken"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    files = {"t.csv": "id,score,text\n1,2,the film\n", "t.txt": "the film\n", "empty.txt": ""}
    for name, content in files.items():
        Path(name).write_text(content, encoding="utf-8")
    Path("folder").mkdir()
    Path("link").symlink_to("nowhere")
    assert cli.main(["predict", str(classifier), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert {path.name for path in tmp_path.iterdir()} == {*files, "folder", "link"}
    assert all(Path(name).read_text(encoding="utf-8") == content for name, content in files.items())
