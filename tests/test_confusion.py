"""Precision, recall, F1 and the confusion matrix, by hand; and what evaluate says of any labelled file."""

from pathlib import Path

import numpy as np
import pytest

from flax_transformer.cli import main as cli
from flax_transformer.data.confusion import confusion_matrix, lines, macro_f1, precision_recall_f1
from flax_transformer.training.run import Run

# Of class 0 two of three are found; one of class 1 is taken for 0; class 2 has no texts, class 3 is always right.
TARGETS, PREDICTIONS = [0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 0, 3]


def test_rows_are_labels_and_columns_predictions():
    matrix = confusion_matrix(PREDICTIONS, TARGETS, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_each_class_has_its_own_precision_recall_and_f1():
    matrix = confusion_matrix([0, 0, 0, 1], [0, 0, 1, 1], 2)
    precision, recall, f1 = precision_recall_f1(matrix)
    np.testing.assert_allclose(precision, [2 / 3, 1])
    np.testing.assert_allclose(recall, [1, 1 / 2])
    np.testing.assert_allclose(f1, [0.8, 2 / 3])
    assert macro_f1(matrix) == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_class_that_does_not_occur_is_no_part_of_the_mean():
    matrix = confusion_matrix(PREDICTIONS, TARGETS, 4)
    assert precision_recall_f1(matrix)[:, 2].tolist() == [0, 0, 0]
    assert macro_f1(matrix) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)


def test_the_table_names_every_class_and_many_have_no_matrix():
    names = ("good", "poor\nand odd", "x" * 99, "")
    text = "\n".join(lines(confusion_matrix(PREDICTIONS, TARGETS, 4), names))
    assert "macro f1 72.2%" in text
    assert "poor and odd" in text
    assert "x" * 25 not in text
    assert "confusion" in text
    many = [str(i) for i in range(30)]
    assert "confusion" not in "\n".join(lines(confusion_matrix([0], [0], 30), many))


def test_evaluate_scores_any_labelled_file(
    classifier_run: Run,
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    run = str(classifier_run.folder)
    Path("other.csv").write_text("label;text\ngood;a film not seen\npoor;loud\ngood;long\n", encoding="utf-8")
    Path("wrong.csv").write_text("label,text\nodd,a film\n", encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["evaluate", run, "--file", "other.csv"]) == 0
    said = capsys.readouterr()
    assert "macro f1" in said.out
    assert said.err == ""
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[-1] for row in rows if row and row[0] in ("good", "poor") and "%" in " ".join(row)] == ["2", "1"]
    Path("others.csv").write_text("Mark;Mail\ngood;a film not seen\npoor;loud\ngood;long\n", encoding="utf-8")
    assert cli.main(["evaluate", run, "--file", "others.csv", "--text-column", "mail", "--label-column", "mark"]) == 0
    assert capsys.readouterr().out == said.out
    assert cli.main(["evaluate", run, "--file", str(reviews)]) == 0
    assert "texts are among those that the run was trained on" in capsys.readouterr().err
    assert cli.main(["evaluate", run, "--file", "wrong.csv"]) == 2
    assert "expected one of the 2 classes good, poor, got 'odd'" in capsys.readouterr().err
