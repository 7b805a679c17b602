"""Files that a run is scored on, whose columns are not called as those that it learned from."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flax_transformer.cli.labelled import LabelledFlags, labelled
from flax_transformer.config import ClassificationData, ImdbData, MaskedData, MultilabelData, Seq2SeqData
from flax_transformer.data.examples import Examples
from flax_transformer.errors import UserError

BINARY = MultilabelData(label_columns=("insult", "toxic"))


def run_of(data: Any, *classes: str) -> Any:
    config = SimpleNamespace(data=data, seed=0)
    return SimpleNamespace(config=config, train_config=config, classes=classes, folder=Path("no_run"))


def read(run: Any, content: str, tmp_path: Path, **flags: Any) -> Examples:
    name = "rows.jsonl" if content.startswith("{") else "rows.csv"
    (tmp_path / name).write_text(content, encoding="utf-8")
    return labelled(run, LabelledFlags(file=(str(tmp_path / name),), **flags))


def test_the_columns_of_other_files_are_named(tmp_path: Path):
    run = run_of(ClassificationData(text_column=("body",), label_column="kind"), "bad", "good")
    found = read(run, "mail;mark;kind\na;good;x\nb;bad;x\n", tmp_path, column=("mail",), label_column="mark")
    assert (found.sources, found.targets) == (["a", "b"], [1, 0])
    imdb = read(
        run_of(ImdbData(), "neg", "pos"), "Review,Mark\na,pos\n", tmp_path, column=("review",), label_column="mark"
    )
    assert (imdb.sources, imdb.targets) == (["a"], [1])
    row = json.dumps({"mail": {"body": "a"}, "order": {"n": 1}, "source": "x", "target": "y"})
    pairs = read(run_of(Seq2SeqData()), row, tmp_path, column=("mail.body",), label_column="order")
    assert (pairs.sources, pairs.targets) == (["a"], ['{"n":1}'])
    assert read(run_of(MaskedData()), "x,y\na,b\n", tmp_path, column=("y",)).sources == ["b"]


def test_a_pair_of_texts_stays_one(tmp_path: Path):
    run = run_of(ClassificationData(text_column=("premise", "hypothesis")), "no", "yes")
    found = read(run, "a,b,label\nx,y,yes\n", tmp_path, column=("a", "b"))
    assert (found.sources, found.targets) == ([("x", "y")], [1])
    with pytest.raises(UserError, match=r"--column: expected 2, as many as the run reads, got a$"):
        read(run, "a,label\nx,yes\n", tmp_path, column=("a",))
    with pytest.raises(UserError, match=r"--column: expected 1, as many as the run reads, got a, b$"):
        read(run_of(ClassificationData(), "no"), "a,b,label\nx,y,no\n", tmp_path, column=("a", "b"))


@pytest.mark.parametrize("data", [MultilabelData(), MultilabelData(label_separator="/"), BINARY])
def test_labels_stand_in_other_files_in_another_way(data: MultilabelData, tmp_path: Path):
    """In cells, of a separator that is recognized or named, or in columns; whatever the run itself has learned from."""
    run, expected = run_of(data, "insult", "toxic"), [(True, True), (False, True), (False, False)]
    cells = "text,tags\na,insult & toxic\nb,toxic\nc,\n"
    named = read(run, cells, tmp_path, label_column="tags", label_separator=" & ")
    columns = read(run, "text,Toxic,insult\na,1,1\nb,1,0\nc,0,0\n", tmp_path, label_columns=("toxic", "insult"))
    assert named.targets == columns.targets == expected
    if data.label_separator is None:
        recognized = read(run, cells.replace(" &", ";"), tmp_path, label_column="tags")
        assert recognized.targets == expected


@pytest.mark.parametrize(
    ("data", "flags", "message"),
    [
        (
            BINARY,
            {"label_columns": ("toxic",)},
            "--label-columns: expected one for each of the 2 classes insult, toxic",
        ),
        (BINARY, {"label_columns": ("toxic", "insult"), "label_column": "x"}, "label_column: expected 'labels' with"),
        (BINARY, {"label_separator": ";"}, "label_separator: expected None with label_columns"),
        (BINARY, {"label_column": "tags"}, "--text-column and --label-column, or --label-columns for several"),
        (
            ClassificationData(),
            {"label_columns": ("a",)},
            "--label-columns: expected none of it, since the run is one of",
        ),
        (
            ClassificationData(),
            {"label_column": "a"},
            "'a', got none .*; name yours with --text-column and --label-column",
        ),
        (ClassificationData(), {"encoding": "horse"}, "encoding: expected an encoding by its name"),
        (Seq2SeqData(), {"label_separator": ";"}, "--label-separator: expected none of it"),
        (Seq2SeqData(), {}, "expected one column 'source', .*; name yours with --source-column and --target-column"),
        (MaskedData(), {"label_column": "a"}, "--label-column: expected none of it"),
    ],
)
def test_columns_that_cannot_be_are_refused(data: Any, flags: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        read(run_of(data, "insult", "toxic"), "text,toxic,insult\na,1,0\n", tmp_path, **flags)


@pytest.mark.parametrize(
    "name", ["column", "label_column", "label_columns", "label_separator", "delimiter", "encoding"]
)
def test_flags_of_files_without_a_file_are_refused(name: str):
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(UserError, match=f"^{flag}: expected --file, of which it is said, got none$"):
        labelled(run_of(ClassificationData()), replace(LabelledFlags(), **{name: "tab"}))


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        (ClassificationData, "--text-column and --label-column"),
        (MultilabelData, "--text-column and --label-column, or --label-columns for several of 0 and 1"),
        (Seq2SeqData, "--source-column and --target-column"),
        (MaskedData, "--text-column"),
    ],
)
def test_a_lost_column_of_the_run_s_own_file_is_told_with_flags_of_this_command(data: Any, flags: str, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("body;kind\na;b\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        labelled(run_of(data((str(tmp_path / "rows.csv"),)), "bad", "good"), LabelledFlags())
    told = (
        "got none in body, kind (the first line, separated by semicolons); bring it back, or name a file to score with"
    )
    assert str(caught.value).endswith(f"{told} --file, and its columns with {flags}")


def test_a_split_and_files_are_not_scored_together():
    with pytest.raises(UserError, match=r"^expected --split or --file, got both: validation and rows.csv$"):
        labelled(run_of(ClassificationData()), LabelledFlags("validation", ("rows.csv",)))
