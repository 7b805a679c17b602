"""The user's own files: what each kind of row becomes, and what is said of labels that are mistakes."""

import csv
import datetime
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from flax_transformer.config import ClassificationData, MultilabelData, Seq2SeqData, from_dict, to_dict
from flax_transformer.data.examples import Examples
from flax_transformer.data.tasks import load_splits
from flax_transformer.errors import UserError


def shared_texts(splits):
    train, validation, test = (set(part.sources) for part in (splits.train, splits.validation, splits.test))
    return len(train & validation) + len(train & test) + len(validation & test)


def sizes(splits):
    return [len(part) for part in (splits.train, splits.validation, splits.test)]


def write_csv(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return (str(path),)


def write_json(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return (str(path),)


def labelled(tmp_path, names, **more):
    """Splits of JSON lines with these labels, each with a text of its own."""
    path = write_json(tmp_path / "rows.jsonl", [{"text": f"text {i}", "label": name} for i, name in enumerate(names)])
    return load_splits(ClassificationData(path=path, **more), seed=0)


def examples_of(splits):
    return {
        text: splits.classes[target] if splits.classes else target
        for part in (splits.train, splits.validation, splits.test)
        for text, target in zip(part.sources, part.targets, strict=True)
    }


def test_classification_orders_the_classes_of_the_training_file(tmp_path):
    train = write_csv(tmp_path / "train.csv", ("text", "label"), [("a", "10"), ("b", "9"), ("c", "10"), ("d", "-1")])
    other = write_csv(tmp_path / "other.csv", ("text", "label"), [("e", "9")])
    splits = load_splits(ClassificationData(path=train, validation_path=other, test_path=other), seed=0)
    assert splits.classes == ("-1", "9", "10")
    assert splits.train == Examples(["a", "b", "c", "d"], [2, 1, 2, 0])
    assert splits.validation == splits.test == Examples(["e"], [1])


def test_json_labels_may_be_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"t": f"text {i}", "l": i % 2 == 0}) + "\n" for i in range(30)))
    splits = load_splits(ClassificationData(path=(str(path),), text_column=("t",), label_column="l"), seed=0)
    assert splits.classes == ("False", "True")
    assert sum(sizes(splits)) == 30


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            [("a", "x"), ("b", "y")],
            [("c", "x"), ("d", "z")],
            r"test\.csv, line 3: .* one of the 2 classes x, y, got 'z'",
        ),
        ([("a", "x"), ("b", "")], [("c", "x")], r"expected at least 2 classes in .label., got 1: .x."),
        ([("a", "x"), ("", "y")], [("c", "x")], r"expected at least 2 classes in .label., got 1: .x."),
        ([("a", "x"), ("b", "x")], [("c", "x")], r"expected at least 2 classes in 'label', got 1"),
        ([("a", "x"), ("a", "y")], [("c", "x")], r"expected more than 1 distinct texts to split, got 1"),
    ],
)
def test_classification_mistakes(tmp_path, train, test, message):
    paths = [
        write_csv(tmp_path / name, ("text", "label"), rows) for name, rows in (("train.csv", train), ("test.csv", test))
    ]
    with pytest.raises(UserError, match=message):
        load_splits(ClassificationData(path=paths[0], test_path=paths[1]), seed=0)


@pytest.mark.parametrize("given_parts", [(), ("validation",), ("test",), ("validation", "test")])
def test_a_tenth_is_set_aside_for_each_split_without_a_file(tmp_path, given_parts):
    rows = [(f"text {i % 40}", f"target {i}") for i in range(60)]  # 20 texts stand twice
    config: dict[str, Any] = {"path": write_csv(tmp_path / "train.csv", ("source", "target"), rows)}
    for part in given_parts:
        config[f"{part}_path"] = write_csv(tmp_path / f"{part}.csv", ("source", "target"), [(part, part)])
    splits = load_splits(Seq2SeqData(**config), seed=0)
    assert shared_texts(splits) == 0
    assert sum(sizes(splits)) == 60 + len(given_parts)
    for part in ("validation", "test"):
        texts = set(getattr(splits, part).sources)
        assert texts == {part} if part in given_parts else 1 <= len(texts) <= 8


@pytest.mark.parametrize("config", [ClassificationData(), Seq2SeqData()])
def test_own_data_needs_a_path(config):
    with pytest.raises(UserError, match=rf"{config.task}: expected --data\.path"):
        load_splits(config, seed=0)


MISSING = [None, math.nan, "", " ", "\n\t", "\u00a0"]


@pytest.mark.parametrize("value", MISSING)
@pytest.mark.parametrize("column", ["text", "label"])
def test_rows_without_a_value_are_left_out_and_told_once(tmp_path, capsys, column, value):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(60)]
    for i in (3, 7, 20, 21, 22, 59):
        rows[i][column] = value
    path = write_json(tmp_path / "rows.jsonl", rows)
    splits = load_splits(ClassificationData(path=path), seed=0)
    assert sum(sizes(splits)) == 54
    reason = "is missing" if value is None or value != value else "is blank"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: {path[0]}: 6 of 60 rows are left out "
        f"({column!r} {reason}: line 4, line 8, line 21, line 22, line 23 and 1 more)"
    )


@pytest.mark.parametrize("seed", range(5))
def test_no_seed_refuses_what_another_takes(tmp_path, seed):
    """The blank rows are left out of every split, whichever they would have gone to."""
    rows = [(f"text {i}" if i % 4 else " ", f"target {i}" if i % 5 else "") for i in range(60)]
    path = write_csv(tmp_path / "rows.csv", ("source", "target"), rows)
    splits = load_splits(Seq2SeqData(path=path), seed)
    assert sum(sizes(splits)) == sum(bool(i % 4 and i % 5) for i in range(60))


BROKEN = [[1], {"a": 1}, "\ud800 half", True, 3, 2.5]


@pytest.mark.parametrize("value", BROKEN)
def test_broken_texts_are_left_out(tmp_path, capsys, value):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(60)]
    rows[5]["text"] = value
    path = write_json(tmp_path / "rows.jsonl", rows)
    assert sum(sizes(load_splits(ClassificationData(path=path), seed=0))) == 59
    assert "1 of 60 rows are left out ('text' " in capsys.readouterr().err


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, "\ud800", [], math.inf])
def test_broken_labels_are_left_out_or_refused_by_their_number(tmp_path, capsys, value):
    names = ["ab"[i % 2] for i in range(60)]
    names[8] = value
    assert sum(sizes(labelled(tmp_path, names))) == 59
    assert "1 of 60 rows are left out ('label' " in capsys.readouterr().err
    with pytest.raises(UserError, match=r"expected rows with 'text' and 'label', got 40 of 60 without \('label' "):
        labelled(tmp_path, [value] * 40 + ["a", "b"] * 10)


def test_a_file_without_any_usable_row_is_refused_with_the_reasons(tmp_path):
    with pytest.raises(UserError, match=r"got 3 of 3 without \('label' is missing: line 1, line 2; 'label' is blank: "):
        labelled(tmp_path, [None, None, ""])


def test_many_reasons_are_not_all_told(tmp_path, capsys):
    rows = [f"text {i},label" for i in range(60)] + ["a" + "," * i + "b" for i in range(4, 24)]
    (tmp_path / "rows.csv").write_text("\n".join(["source,target", *rows]))
    load_splits(Seq2SeqData(path=(str(tmp_path / "rows.csv"),)), seed=0)
    (line,) = capsys.readouterr().err.splitlines()
    assert "20 of 80 rows are left out (has 5 columns, not 2 as the first line has: line 62; " in line
    assert "; and 15 other reasons); put quotes around texts" in line


def test_numbers_are_texts_on_request(tmp_path, capsys):
    rows = [{"source": i, "target": i / 4} for i in range(60)]
    path = write_json(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=r"got 60 of 60 .* with --data\.numbers-as-text"):
        load_splits(Seq2SeqData(path=path), seed=0)
    found = examples_of(load_splits(Seq2SeqData(path=path, numbers_as_text=True), seed=0))
    assert found == {str(i): str(i / 4) for i in range(60)}


TARGETS = [
    ({"b": 1, "a": [1, {"c": None}]}, '{"b":1,"a":[1,{"c":null}]}'),
    ({"name": "Käse \u2028"}, '{"name":"Käse \u2028"}'),
    ({}, "{}"),
    ([{"a": 1}], '[{"a":1}]'),
    ([1, 2], "[1,2]"),
    ([], "[]"),
    (["two", "words"], "two words"),
    ("plain", "plain"),
]


@pytest.mark.parametrize(("value", "text"), TARGETS)
def test_targets_that_are_objects_become_json(tmp_path, value, text):
    path = write_json(tmp_path / "rows.jsonl", [{"source": f"text {i}", "target": value} for i in range(30)])
    assert set(examples_of(load_splits(Seq2SeqData(path=path), seed=0)).values()) == {text}


def test_lists_of_words_are_joined_in_every_format(tmp_path):
    rows = [{"words": ["word", str(i)], "out": {"n": i, "l": [i]}} for i in range(30)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for path in (write_json(tmp_path / "rows.jsonl", rows), (str(tmp_path / "rows.parquet"),)):
        splits = load_splits(Seq2SeqData(path=path, source_column="words", target_column="out"), seed=0)
        assert examples_of(splits) == {f"word {i}": f'{{"n":{i},"l":[{i}]}}' for i in range(30)}


def test_several_files_are_one_data_set(tmp_path):
    rows = [(f"text {i}", f"target {i}") for i in range(60)]
    parts = [write_csv(tmp_path / f"train-{i}.csv", ("source", "target"), rows[i::3])[0] for i in range(3)]
    whole = write_csv(tmp_path / "whole.tsv.csv", ("source", "target"), [*rows[0::3], *rows[1::3], *rows[2::3]])
    expected = load_splits(Seq2SeqData(path=whole), seed=0)
    for path in (tuple(parts), (str(tmp_path / "train-*.csv"),)):
        splits = load_splits(Seq2SeqData(path=path), seed=0)
        assert (splits.train, splits.validation, splits.test) == (expected.train, expected.validation, expected.test)
        assert [str(file) for file in splits.files] == parts
        assert splits.train.places[0].startswith(parts[0])


@pytest.mark.parametrize("content", [("", ""), ("source,target\n", "source,target\n")], ids=["no bytes", "no rows"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_shard_without_rows_stops_no_other(tmp_path, capsys, suffix, content):
    rows = [{"source": f"text {i}", "target": "x"} for i in range(30)]
    whole = tmp_path / f"part-1.{suffix}"
    empty = [tmp_path / f"part-{i}.{suffix}" for i in (0, 2)]
    for path, text in zip(empty, content, strict=True):
        path.write_text(text if suffix == "csv" else "")
    if suffix == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), whole)
        if content[0]:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows).slice(0, 0), empty[0])
    elif suffix == "csv":
        write_csv(whole, ("source", "target"), [tuple(row.values()) for row in rows])
    else:
        write_json(whole, rows)
    assert sum(sizes(load_splits(Seq2SeqData(path=(str(tmp_path / "part-*"),)), seed=0))) == 30
    assert f"2 of 3 files have no rows: {empty[0]}, {empty[1]}\n" in capsys.readouterr().err
    whole.unlink()
    with pytest.raises(UserError, match="expected at least one row, got an empty file"):
        load_splits(Seq2SeqData(path=(str(tmp_path / "part-*"),)), seed=0)


def test_values_that_only_parquet_has_become_the_json_of_the_same_data(tmp_path, capsys):
    target = {"n": Decimal("1.50"), "i": Decimal("3"), "d": datetime.date(2024, 1, 2), "b": "ü".encode()}
    rows: list[Any] = [{"source": f"text {i}", "target": target} for i in range(30)]
    rows[3]["target"] = target | {"b": b"\xff"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = examples_of(load_splits(Seq2SeqData(path=(str(tmp_path / "rows.parquet"),)), seed=0))
    assert set(found.values()) == {'{"n":1.5,"i":3,"d":"2024-01-02","b":"ü"}'}
    assert "1 of 30 rows are left out ('target' holds broken characters: row 4)" in capsys.readouterr().err


# Labels, and words that must or must not be said of them.
LABELS = {
    "blank behind": (["crash ", "crash", "late"] * 20, None, ("crash", "late")),
    "capitals": (["True", "true", "False"] * 20, "look like one: 'True' (20 rows), 'true' (20 rows)", None),
    "numbers": (["1", "1.0", "2"] * 20, "look like one: '1' (20 rows), '1.0' (20 rows)", None),
    "zeros": (["7", "07", "007"] * 20, "look like one: '007' (20 rows), '07' (20 rows), '7'", None),
    "inner blanks": (["card lost", "card  lost", "x"] * 20, "look like one", None),
    "unicode forms": (["caf\u00e9", "cafe\u0301", "x"] * 20, "look like one", None),
    "invisible": (["spam", "spam\u200b", "x"] * 20, "look like one", None),
    "full width": (["spam", "\uff53pam", "x"] * 20, "look like one", None),
    "emoji": (["❤", "❤\ufe0f", "x"] * 20, "look like one", None),
    "letters of another alphabet": (["spam", "sp\u0430m", "x"] * 20, "look like one", None),
    "capitals of another alphabet": (["OTTO", "\u039f\u03a4\u0422\u041e", "x"] * 20, "look like one", None),
    "quotes": (["'spam'", "“spam”", "spam"] * 20, "look like one", None),
    "underscores": (["not_spam", "not spam", "spam"] * 20, "look like one: 'not spam' (20 rows), 'not_spam'", None),
    "several in one": (["a", "b", "a; b"] * 20, "classes that hold several: 'a; b'; if so, take the task multi", None),
    "lists": (["['a']", "['a', 'b']", "[]"] * 20, "hold several: \"['a', 'b']\", \"['a']\", '[]'; if so", None),
    "a comma in a name": (["Billing, late", "Billing", "other"] * 20, None, ("Billing", "Billing, late", "other")),
    "a tag": (["[SPAM]", "C++", "C#"] * 20, None, ("C#", "C++", "[SPAM]")),
    "nan": (["nan", "a", "b"] * 20, "20 rows have the label 'nan'", None),
    "None": (["None", "a", "b"] * 20, "20 rows have the label 'None'", None),
    "a sheet's errors": (["#REF!", "a", "b"] * 20, "20 rows have the label '#REF!'", None),
    "inner tab": (["card lost", "card\tlost", "x"] * 20, "look like one", None),
    "a mark of direction": (["spam", "spam\u200f", "x"] * 20, "look like one", None),
    "large numbers": ([2**70, 2**70 + 1, 2**63] * 20, None, (str(2**63), str(2**70), str(2**70 + 1))),
    "exponents": ([1e300, 2.0, 1e15] * 20, None, ("2", "1000000000000000", "1e+300")),
    "NA is a country": (["NA", "DE", "FR"] * 20, None, ("DE", "FR", "NA")),
    "booleans": ([True, False] * 30, None, ("False", "True")),
    "floats of whole numbers": ([1.0, 0.0, 2.0] * 20, None, ("0", "1", "2")),
    "stars": ([0.5, 1.0, 1.5, 2.0] * 20, None, ("0.5", "1", "1.5", "2")),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_look_like_mistakes_are_told(tmp_path, capsys, kind):
    names, warning, classes = LABELS[kind]
    splits = labelled(tmp_path, names)
    lines = [line for line in capsys.readouterr().err.splitlines() if "have no text" not in line]
    if warning is None:
        assert lines == []
    else:
        assert any(warning in line for line in lines), lines
    if classes is not None:
        assert splits.classes == classes


def test_texts_with_several_labels_are_told(tmp_path, capsys):
    """Such as what a program wrote where there was no text, which is told by itself too."""
    rows = [{"text": "nan" if i % 4 == 0 else f"text {i}", "label": "abc"[i % 3]} for i in range(60)]
    path = write_json(tmp_path / "rows.jsonl", [*rows, {"text": "TEXT  1", "label": "c"}])
    load_splits(ClassificationData(path=path), seed=0)
    said = f"several labels, such as 'nan': 'a' ({path[0]}, line 1) and 'b' ({path[0]}, line 5)"
    warned = capsys.readouterr().err
    assert f"warning: 2 of 46 distinct texts have {said}\n" in warned
    assert f"{path[0]}: 15 rows have the text 'nan'; if it stands for none, leave it empty there" in warned


def test_an_unknown_label_of_other_capitals_is_known_again(tmp_path):
    other = write_json(tmp_path / "test.jsonl", [{"text": "x", "label": "B "}])
    with pytest.raises(UserError, match="one of the 2 classes a, b, got 'B'; is 'b' meant"):
        labelled(tmp_path, ["a", "b"] * 20, test_path=other)


def test_long_labels_are_not_told_whole(tmp_path, capsys):
    names = ["a" * 50_000, "b"] * 20
    labelled(tmp_path, names)
    other = write_json(tmp_path / "test.jsonl", [{"text": "x", "label": "c" * 50_000}])
    with pytest.raises(UserError, match=r"one of the 2 classes a+\.\.\., b, got 'c+\.\.\.'") as refused:
        labelled(tmp_path, names, test_path=other)
    assert len(str(refused.value)) < 400


def test_swapped_columns_are_refused(tmp_path):
    path = write_json(tmp_path / "rows.jsonl", [{"text": "ab"[i % 2], "label": f"a text {i}"} for i in range(60)])
    with pytest.raises(UserError, match=r"got 60 labels in 60 rows, such as .*; is it the column of the labels"):
        load_splits(ClassificationData(path=path), seed=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([i / 7 for i in range(200)], r"got 200 labels in 200 rows, .*; cut them into a few ranges"),
        ([i * 1000 for i in range(200)], r"got 200 labels in 200 rows, .*; cut them into a few ranges"),
        ([f"id-{i}" for i in range(200)], r"got 200 labels in 200 rows, .*; is it the column of the labels"),
        ([f"2024-01-{i}" for i in range(150)] + ["x"] * 50, r"got 151 labels in 200 rows"),
    ],
)
def test_a_column_that_holds_no_classes_is_refused(tmp_path, names, message):
    with pytest.raises(UserError, match=message) as caught:
        labelled(tmp_path, names)
    assert len(str(caught.value)) < 400


def test_many_numbers_as_classes_are_told(tmp_path, capsys):
    labelled(tmp_path, [i % 40 / 3 + 0.1 for i in range(400)])
    assert "40 numbers in 'label' are taken as classes" in capsys.readouterr().err


def test_a_rare_class_is_trained_and_named(tmp_path, capsys):
    splits = labelled(tmp_path, ["common"] * 58 + ["rare"] * 2)
    assert 1 in splits.train.targets
    assert "1 of 2 classes have no text in the test split: 'rare' (1 in training)" in capsys.readouterr().err


def test_copies_between_the_user_s_own_parts_are_told(tmp_path, capsys):
    train = write_csv(tmp_path / "train.csv", ("source", "target"), [(f"text {i}", "x") for i in range(20)])
    test = write_csv(tmp_path / "test.csv", ("source", "target"), [("TEXT  1", "x"), ("new", "x")])
    load_splits(Seq2SeqData(path=train, test_path=test), seed=0)
    assert f"{test[0]}: 1 of 2 texts are among the training texts too" in capsys.readouterr().err


def test_a_config_takes_one_name_for_several(tmp_path):
    config = from_dict(ClassificationData, {"path": "rows.csv", "delimiter": "tab"})
    assert (config.path, config.validation_path, config.delimiter) == (("rows.csv",), (), "\t")
    assert from_dict(ClassificationData, json.loads(json.dumps(to_dict(config)))) == config
    one: Any = "rows.csv"
    assert Seq2SeqData(path=one).path == ("rows.csv",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"delimiter": ";;"}, "delimiter: expected one character, or tab, got ';;'"),
        ({"delimiter": ""}, "delimiter: expected one character"),
        ({"delimiter": '"'}, "delimiter: expected one character"),
        ({"encoding": "klingon"}, "encoding: expected an encoding by its name in Python, .*, got 'klingon'"),
        ({"encoding": "base64"}, "encoding: expected an encoding"),
        ({"encoding": ""}, "encoding: expected an encoding"),
        ({"encoding": "a\0b"}, "encoding: expected an encoding"),
    ],
)
def test_delimiters_and_encodings_are_checked(values, message):
    with pytest.raises(UserError, match=message):
        ClassificationData(**values)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: ClassificationData(label_column="text"), "label_column"),
        (lambda: ClassificationData(text_column=("a", "b"), label_column="b"), "label_column"),
        (lambda: MultilabelData(label_column="text"), "label_column"),
        (lambda: Seq2SeqData(target_column="source"), "target_column"),
    ],
)
def test_what_is_predicted_stands_in_another_column(make, name):
    with pytest.raises(UserError, match=f"{name}: expected another column than that of the texts, got"):
        make()
    assert MultilabelData(text_column=("labels",), label_columns=("x", "y")).label_columns == ("x", "y")
