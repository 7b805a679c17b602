"""What a run knows of its data: changes are told in words, refused on resume and before a score that says nothing."""

import csv
import json
import random
from pathlib import Path

import pytest

from flax_transformer.config import ClassificationData, ManifestsData, Seq2SeqData
from flax_transformer.data import fingerprint as fp
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.tasks import load_splits
from flax_transformer.errors import UserError

ROWS = [(f"text {i}", "abc"[i % 3]) for i in range(60)]


def load(path: Path, rows=None, **columns) -> Splits:
    if rows is not None:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    return load_splits(ClassificationData(path=(str(path),)), 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the record of a run on 60 rows."""
    folder = tmp_path / "run"
    folder.mkdir()
    fp.save_record(fp.fingerprint(load(tmp_path / "rows.csv", ROWS)), folder)
    return folder


def test_the_same_files_are_the_same_data(run: Path, capsys):
    splits = load(run.parent / "rows.csv")
    fp.require_same_data(run, fp.fingerprint(splits))
    fp.check_evaluation_data(run, splits, "test")
    assert capsys.readouterr().err == ""


def test_another_column_and_a_moved_file_change_nothing(run: Path):
    with (run.parent / "other.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text", "label"), *((i, *row) for i, row in enumerate(ROWS))])
    fp.require_same_data(run, fp.fingerprint(load(run.parent / "other.csv")))


CHANGES = {
    "appended": ([*ROWS, *((f"new {i}", "a") for i in range(40))], r"train: \d+ texts? added, 0 removed"),
    "a new class": ([*ROWS, ("n 1", "d"), ("n 2", "d")], r"train: [12] texts? added, 0 removed"),
    "removed": (ROWS[:-10], r"train: 0 texts added, \d+ removed"),
    "shuffled": (random.Random(1).sample(ROWS, 60), r"train: the same \d+ texts in another order"),
    "relabelled": ([(text, "b" if label == "a" else label) for text, label in ROWS], "with other targets"),
    "edited": ([(f"{text}!", label) for text, label in ROWS], r"train: \d+ texts? added, \d+ removed"),
    "capitals": ([(text.upper(), label) for text, label in ROWS], "spelled otherwise"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_resume_names_what_has_changed(run: Path, change: str):
    rows, message = CHANGES[change]
    path = run.parent / "rows.csv"
    record = fp.fingerprint(load(path, rows))
    with pytest.raises(UserError, match=message) as caught:
        fp.require_same_data(run, record)
    assert f"({path} changed)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_appended_and_shuffled_rows_are_scored_as_the_run_was_split(run: Path, capsys):
    """The faults that began this: no test text is one that was trained on."""
    path = run.parent / "rows.csv"
    before = load(path)
    for rows in (random.Random(1).sample(ROWS, 60), [*ROWS, ("n 1", "d"), ("n 2", "d")]):
        splits = load(path, rows)
        assert set(before.test.sources) <= set(splits.test.sources)
        assert fp.trained_on(fp.fingerprint(before), splits.test) == []
        fp.check_evaluation_data(run, splits, "test")
    load(path, random.Random(1).sample(ROWS, 60))
    capsys.readouterr()
    fp.check_evaluation_data(run, load(path), "test")
    assert capsys.readouterr().err == ""  # the same texts in another order have the same score


def test_a_grown_test_split_is_told(run: Path, capsys):
    path = run.parent / "rows.csv"
    fp.check_evaluation_data(run, load(path, CHANGES["appended"][0]), "test")
    assert "warning: the data is not that of the run, so neither is the score; test: " in capsys.readouterr().err


def test_texts_that_were_trained_on_are_told_or_refused(run: Path, capsys):
    splits = load(run.parent / "rows.csv")
    mixed = Examples([*splits.test.sources, splits.train.sources[0].upper()], [0] * (len(splits.test) + 1))
    fp.check_evaluation_data(run, Splits(splits.train, splits.validation, mixed, splits.classes), "test")
    assert f"1 of the {len(mixed)} texts of the test split are among those" in capsys.readouterr().err
    leaked = Splits(splits.train, splits.validation, splits.train.take(range(20)), splits.classes)
    with pytest.raises(UserError, match=r"expected texts to score that it was not trained on, but it was on 20 of"):
        fp.check_evaluation_data(run, leaked, "test")


def test_an_own_test_file_that_was_always_so_is_no_refusal(tmp_path: Path, capsys):
    path = tmp_path / "rows.csv"
    load(path, ROWS)
    splits = load_splits(ClassificationData(path=(str(path),), test_path=(str(path),)), 0)
    fp.save_record(fp.fingerprint(splits), tmp_path)
    capsys.readouterr()
    fp.check_evaluation_data(tmp_path, splits, "test")
    assert "are among those that the run was trained on" in capsys.readouterr().err


def test_a_run_without_a_record_is_told(tmp_path: Path, capsys):
    splits = load(tmp_path / "rows.csv", ROWS)
    fp.require_same_data(tmp_path, fp.fingerprint(splits))
    fp.check_evaluation_data(tmp_path, splits, "test")
    assert capsys.readouterr().err.count("has no data.json") == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": {}, "splits": 3}', "[" * 100_000, b"\xff"])
def test_a_damaged_record_is_a_users_mistake(run: Path, content):
    path = run / "data.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"data\.json: expected the record"):
        fp.require_same_data(run, {})


@pytest.mark.parametrize("damage", ["x", "AAAA", None, 7])
def test_damaged_hashes_are_a_users_mistake(run: Path, damage):
    record = json.loads((run / "data.json").read_text())
    record["splits"]["train"]["texts"] = damage
    (run / "data.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"data\.json: expected the record"):
        fp.load_record(run)


def test_targets_are_known_by_their_class_names():
    first, second = Examples(["t"], [0]), Examples(["t"], [1])
    one = Splits(first, first, first, ("a", "b"))
    permuted = Splits(second, second, second, ("b", "a"))
    other = Splits(second, second, second, ("a", "b"))
    assert fp.differences(fp.fingerprint(one), fp.fingerprint(permuted)) == {}
    assert list(fp.differences(fp.fingerprint(one), fp.fingerprint(other))) == ["train", "validation", "test"]


def test_every_kind_of_task_has_a_record(tmp_path: Path):
    splits = load_splits(ManifestsData(20, 3, 4), 0)
    record = fp.fingerprint(splits)
    assert [split["rows"] for split in record["splits"].values()] == [20, 3, 4]
    assert record["files"] == {}
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *((f"a {i}", f"b {i}") for i in range(30))])
    pairs = load_splits(Seq2SeqData(path=(str(tmp_path / "pairs.csv"),)), 0)
    assert list(fp.fingerprint(pairs)["files"]) == [str(tmp_path / "pairs.csv")]
