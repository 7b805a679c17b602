"""Files of texts with several labels: the forms that people bring, their order, their splits, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from flax_transformer.config import MultilabelData, TrainConfig, from_dict, to_dict
from flax_transformer.data.examples import Splits
from flax_transformer.data.label_scores import best_thresholds, count, macro_f1, precision_recall_f1, score_labels
from flax_transformer.data.labels import ids, positive_weights
from flax_transformer.data.tasks import TASKS, load_splits
from flax_transformer.errors import UserError
from flax_transformer.presets import PRESETS

LABELS = ["billing", "crash", "delivery"]
# Of 40 texts: none, one, two or all three.
CHOSEN = [[label for j, label in enumerate(LABELS) if i >> j & 1] for i in range(40)]


def load(path: Path, classes: tuple[str, ...] = (), **fields: Any) -> Splits:
    return load_splits(MultilabelData(path=(str(path),), **fields), 0, classes)


def found(splits: Splits) -> dict[str, list[str]]:
    """Text -> its labels, over all parts."""
    parts = (splits.train, splits.validation, splits.test)
    return {
        text: [splits.classes[i] for i in ids(target)]
        for part in parts
        for text, target in zip(part.sources, part.targets, strict=True)
    }


EXPECTED = {f"text {i}": labels for i, labels in enumerate(CHOSEN)}


def write_csv(path: Path, cells: list[str], header: str = "text,labels") -> Path:
    rows = [f'text {i},"{cell.replace(chr(34), chr(34) * 2)}"' for i, cell in enumerate(cells)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", ["|", ";", ",", "\n", " | ", "; ", ", "])
def test_separators_are_recognized(tmp_path: Path, separator: str) -> None:
    path = write_csv(tmp_path / "rows.csv", [separator.join(labels) for labels in CHOSEN])
    splits = load(path)
    assert splits.classes == tuple(LABELS)
    assert found(splits) == EXPECTED


@pytest.mark.parametrize("separator", [" ", "/", "--", "tab"])
def test_other_separators_are_named(tmp_path: Path, separator: str) -> None:
    sign = "\t" if separator == "tab" else separator
    path = write_csv(tmp_path / "rows.csv", [sign.join(labels) for labels in CHOSEN])
    assert found(load(path, label_separator=separator)) == EXPECTED


SPELLED = {
    "list": repr,
    "JSON": json.dumps,
    "array": lambda labels: str(np.array(labels, object)),
    "tuple": lambda labels: repr(tuple(labels)),
    "set": lambda labels: repr(set(labels)),
}


@pytest.mark.parametrize("kind", SPELLED)
def test_lists_that_a_library_wrote_into_a_csv(tmp_path: Path, kind: str) -> None:
    cells = [SPELLED[kind](labels) for labels in CHOSEN]
    assert found(load(write_csv(tmp_path / "rows.csv", cells))) == EXPECTED


@pytest.mark.parametrize("spell", [repr, json.dumps, ascii], ids=["list", "JSON", "ASCII"])
@pytest.mark.parametrize("label", ["Kündigung", "it's", 'a "b"', "back\\slash", "日本", "\U0001f600", "a, b"])
def test_letters_of_labels_in_lists_are_the_same_however_they_are_escaped(tmp_path: Path, spell, label: str) -> None:
    cells = [spell([label] if i % 2 else [label, "other"]) for i in range(40)]
    assert load(write_csv(tmp_path / "rows.csv", cells)).classes == tuple(sorted([label, "other"]))


@pytest.mark.parametrize("separator", [" ", "/", " / ", " and ", "\u3001", "\uff1b"])
def test_labels_that_consist_of_others_are_told(tmp_path: Path, capsys, separator: str) -> None:
    """What separates them is not recognized, since it may be part of a label."""
    load(write_csv(tmp_path / "rows.csv", [separator.join(labels) for labels in CHOSEN]))
    joined = separator.join(LABELS[:2])
    said = f"labels that consist of others: {joined!r}, "
    sign = separator.strip() if "/" in separator else separator
    warned = capsys.readouterr().err
    assert said in warned
    assert f"; if so, say --data.label-separator '{sign}'" in warned


def test_numbers_in_lists_are_labels_however_they_are_written(tmp_path: Path) -> None:
    numbers = [[1, 2.0], [10], [2], [None]] * 10
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": f"text {i}", "labels": one}) for i, one in enumerate(numbers)), encoding="utf-8"
    )
    path = write_csv(tmp_path / "rows.csv", [json.dumps(one) for one in numbers])
    assert load(path).classes == load(tmp_path / "rows.jsonl").classes == ("1", "2", "10")
    assert found(load(path)) == found(load(tmp_path / "rows.jsonl"))


def test_lists_in_json_and_parquet_are_the_same_data(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "labels": labels} for i, labels in enumerate(CHOSEN)]
    jsonl, parquet = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    jsonl.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    for path in (jsonl, parquet, tmp_path / "rows.json"):
        assert found(load(path)) == EXPECTED


@pytest.mark.parametrize("spell", [str, lambda flag: str(float(flag)), lambda flag: str(bool(flag))])
def test_columns_of_zeros_and_ones(tmp_path: Path, spell) -> None:
    """As the file of the Jigsaw challenge has them; the columns may be named in any order."""
    lines = ["id,text,crash,billing,delivery"]
    lines += [
        f"{i},text {i}," + ",".join(spell(int(label in labels)) for label in ("crash", "billing", "delivery"))
        for i, labels in enumerate(CHOSEN)
    ]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for columns in (("crash", "billing", "delivery"), ("delivery", "crash", "billing")):
        splits = load(path, label_columns=columns)
        assert splits.classes == tuple(LABELS)
        assert found(splits) == EXPECTED


def test_blank_and_repeated_labels(tmp_path: Path, capsys) -> None:
    """No label where nothing stands; a label that stands there twice counts once, and is told."""
    cells = ["; ".join(labels) for labels in CHOSEN]
    cells[3], cells[5], cells[7] = "billing; ;crash;", "delivery;billing;delivery", "  "
    splits = load(write_csv(tmp_path / "rows.csv", cells))
    assert found(splits)["text 3"] == ["billing", "crash"]
    assert found(splits)["text 5"] == ["billing", "delivery"]
    assert found(splits)["text 7"] == []
    assert "rows.csv, line 7: a label stands there more than once" in capsys.readouterr().err
    rows = [{"text": f"t{i}", "labels": [*labels, None, " "]} for i, labels in enumerate(CHOSEN)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "none", "labels": None}])) + "\n", encoding="utf-8")
    assert found(load(path))["none"] == []
    assert set(load(path).classes) == set(LABELS)


def test_commas_within_labels_are_not_cut(tmp_path: Path) -> None:
    cells = ["Billing, other", "Crash", "Delivery, late"] * 10
    with pytest.raises(UserError, match=r"line 2: expected labels, got 'Billing, other', where the comma may"):
        load(write_csv(tmp_path / "rows.csv", cells))
    splits = load(write_csv(tmp_path / "rows.csv", cells), label_separator="|")
    assert splits.classes == ("Billing, other", "Crash", "Delivery, late")
    assert len(load(write_csv(tmp_path / "rows.csv", cells), label_separator=",").classes) == 5


def test_a_run_knows_its_labels_whatever_the_file_separates_them_by(tmp_path: Path) -> None:
    classes = ("Billing, other", "Crash", "Delivery")
    cells = ["Billing, other", "Crash|Delivery", "Billing, other|Crash", ""] * 10
    assert set(load(write_csv(tmp_path / "rows.csv", cells), classes).classes) == set(classes)
    with pytest.raises(UserError, match=r"line 2: expected one of the 3 classes .*, got 'crash'; is 'Crash' meant"):
        load(write_csv(tmp_path / "rows.csv", ["crash;Delivery"] * 9), classes)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["a|b", "c;d"] * 9, r"line \d: expected one separator of labels, got bars \('a\|b'\), semicolons \('c;d'\)"),
        ([""] * 9, r"expected texts with labels in 'labels', got 9 texts without any"),
        (["[1, 2"] * 3 + ["[a b]"] * 9, r"no list of labels: line 5.*write it as JSON does"),
        (["0", "1"] * 9, r"expected labels in 'labels', got 0 and 1; name all columns"),
        (["[1, 0, 0]", "[0, 1, 1]"] * 9, r"expected labels in 'labels', got 0 and 1; .* lists of the names of labels"),
        ([f"label {i}" for i in range(60)], r"expected classes in 'labels', got 60 labels in 60 rows"),
    ],
    ids=repr,
)
def test_cells_that_hold_no_labels_are_refused(tmp_path: Path, cells: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        load(write_csv(tmp_path / "rows.csv", cells))
    assert "\n" not in str(refused.value)
    assert "rows.csv" in str(refused.value)


def test_values_that_are_neither_0_nor_1_are_left_out_with_their_lines(tmp_path: Path, capsys) -> None:
    """-1 is what the Jigsaw challenge has for texts that were not labelled."""
    rows = [f"text {i},{i % 2},{i // 2 % 2}" for i in range(20)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,a,b", *rows, "odd,-1,-1", "blank,,1"]) + "\n", encoding="utf-8")
    assert len(found(load(path, label_columns=("a", "b")))) == 20
    warned = capsys.readouterr().err
    assert "2 of 22 rows are left out ('a' is '-1', neither 0 nor 1: line 22; 'a' is blank: line 23)" in warned
    assert "write 1 where a text has the label, and 0 where it has not" in warned
    path.write_text("text,a,b\n" + "x,yes,no\n" * 9, encoding="utf-8")
    with pytest.raises(UserError, match=r"rows\.csv: .*'a' is 'yes', neither 0 nor 1: line 2"):
        load(path, label_columns=("a", "b"))


def test_nested_lists_and_objects_are_no_labels(tmp_path: Path) -> None:
    for value, reason in (
        ([["a"]], "a list of something else than labels"),
        ({"a": 1}, "an object, no list of labels"),
    ):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(json.dumps({"text": f"t{i}", "labels": value}) for i in range(9)), encoding="utf-8")
        with pytest.raises(UserError, match=reason):
            load(path)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"label_separator": ""}, "label_separator: expected at least one character"),
        ({"label_columns": ("a", "a")}, "label_columns: expected different columns"),
        ({"label_columns": ("text", "a")}, "label_columns: expected different columns, and not 'text'"),
        ({"label_columns": ("a",), "label_separator": ";"}, "label_separator: expected None with label_columns"),
        ({"label_columns": ("a",), "label_column": "b"}, "label_column: expected 'labels' with label_columns"),
    ],
)
def test_flags_that_do_not_go_together(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        MultilabelData(**fields)


def test_the_config_is_read_as_it_was_written() -> None:
    config = TrainConfig(
        data=MultilabelData(path=("a.csv",), label_columns=("x", "y")), model=PRESETS["multilabel"]["default"].model
    )
    assert from_dict(TrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_one_label_to_each_text_is_told(tmp_path: Path, capsys) -> None:
    load(write_csv(tmp_path / "rows.csv", ["a", "b"] * 20))
    assert "each text has one label; the task classification is made for that" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.sample(10)
def test_rare_labels_are_trained_and_common_ones_are_in_every_part(tmp_path: Path, seed: int) -> None:
    cells = ["common"] * 60 + ["common|often"] * 60 + ["rare|common", "often|single", ""]
    path = write_csv(tmp_path / "rows.csv", cells)
    splits = load_splits(MultilabelData(path=(str(path),)), seed)
    labels = [
        {splits.classes[i] for target in part.targets for i in ids(target)}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert labels[0] == {"common", "often", "rare", "single"}
    assert all(found >= {"common", "often"} for found in labels)


# Scores


def test_scores_by_hand() -> None:
    actual = [(True, False, False), (True, True, False), (False, False, False)]
    predicted = [(True, False, False), (True, False, False), (False, True, False)]
    scores: Any = score_labels(predicted, actual)
    # Hits 2, said 3, there 3; by label: 1, 0, and the third occurs nowhere.
    assert scores["micro_f1"] == pytest.approx(4 / 6)
    assert scores["macro_f1"] == pytest.approx(0.5)
    assert scores["subset_accuracy"] == pytest.approx(1 / 3)
    perfect, wrong = score_labels(actual, actual), score_labels([(False, False, True)] * 3, actual)
    assert (perfect["micro_f1"], perfect["macro_f1"], perfect["subset_accuracy"]) == (1, 1, 1)
    assert wrong["micro_f1"] == 0
    assert TASKS["multilabel"].metric == "micro_f1"
    assert score_labels([(False,)], [(False,)]) == {"micro_f1": 0, "macro_f1": 0, "subset_accuracy": 1}


def test_each_label_has_precision_recall_and_f1() -> None:
    counts = count(np.array([[1, 0], [1, 1], [1, 0]], bool), np.array([[1, 0], [0, 0], [1, 0]], bool))
    assert precision_recall_f1(counts).tolist() == [[2 / 3, 0], [1, 0], [0.8, 0]]
    assert macro_f1(counts) == pytest.approx(0.4)


def test_thresholds_give_the_highest_f1_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        probabilities = rng.choice([0.05, 0.1, 0.3, 0.5, 0.8, 0.97], size=(rng.integers(1, 12), 1))
        actual = rng.random(probabilities.shape) < 0.4
        (threshold,) = best_thresholds(probabilities, actual)

        def f1(threshold: float, probabilities=probabilities, actual=actual) -> float:
            return float(precision_recall_f1(count(probabilities >= threshold, actual))[2, 0])

        assert f1(threshold) == max(f1(value) for value in np.linspace(0.01, 0.99, 99))
        if not actual.any():
            assert threshold == 0.5
        nearest = np.abs(probabilities - threshold).min()
        assert nearest > 1e-3 or threshold == 0.5  # halfway, so that rounding moves no text across it


def test_a_threshold_is_halfway_and_of_equal_ones_the_nearest_to_a_half() -> None:
    probabilities = np.array([[0.9], [0.7], [0.2], [0.1]])
    assert best_thresholds(probabilities, np.array([[True], [True], [False], [False]])) == pytest.approx([0.45])
    # F1 of saying the first two, or all four, is 2/3.
    assert best_thresholds(probabilities, np.array([[True], [False], [False], [True]])) == pytest.approx([0.8])
    assert best_thresholds(np.full((3, 1), 0.4), np.array([[True], [False], [False]])) == pytest.approx([0.2])


def test_weights_of_the_positives() -> None:
    truths = np.array([[True, True, False], [False, True, False], [False, True, False]])
    assert positive_weights(truths).tolist() == [2, 1, 1]


def test_messages_name_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("body,tags\nx,a\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape("name yours with --data.text-column and --data.label-column, or")):
        load(path)
