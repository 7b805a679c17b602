"""Class names: one order in every process, and the ids of a run that exists."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.config import ClassificationData
from flax_transformer.data import labels
from flax_transformer.data.tasks import load_splits
from flax_transformer.errors import UserError

ROOT = Path(__file__).parent.parent
# Equal as numbers, not comparable as numbers, or of mixed types.
AMBIGUOUS = {
    "zeros": ["7", "07", "007"],
    "fractions": ["1", "1.0", "1.00", "01"],
    "exponents": ["1e3", "1000", "1E3", "1_000", "1000.0"],
    "signs": ["0", "-0", "+0", "0.0"],
    "nan": ["nan", "NaN", "NAN", "1", "2"],
    "infinity": ["inf", "Infinity", "1e999", "1"],
    "big": ["9007199254740993", "9007199254740992", "9007199254740992.0"],
    "digits": ["\u0667", "7", "\uff17"],
    "mixed": ["1", "one", "1.0", "True", "true", "None"],
    "unicode": ["é", "e\u0301", "E"],
}
SEEDS = ("0", "1", "2", "3", "42", "random")


def write_labelled(path: Path, names: list[str], rows: int = 60) -> str:
    lines = [json.dumps({"text": f"text {i}", "label": names[i % len(names)]}) + "\n" for i in range(rows)]
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def in_processes(program: str, *arguments: str) -> list[str]:
    """What a program prints under each hash seed."""
    return [
        subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in SEEDS
    ]


LOAD = """
import json, sys
from flax_transformer.config import ClassificationData, MultilabelData
from flax_transformer.data.tasks import load_splits
for path in sys.argv[1:]:
    config = MultilabelData if path.endswith(".csv") else ClassificationData
    splits = load_splits(config(path=(path,)), seed=0)
    parts = [[part.sources, part.targets] for part in (splits.train, splits.validation, splits.test)]
    print(json.dumps([splits.classes, parts]))
"""


def test_class_ids_and_splits_are_the_same_under_every_hash_seed(tmp_path: Path):
    paths = [write_labelled(tmp_path / f"{name}.jsonl", names) for name, names in AMBIGUOUS.items()]
    several = tmp_path / "several.csv"
    cells = ["7|07", "007|x", "é|\u0065\u0301", "1|1.0|True"] * 9
    several.write_text(
        "text,labels\n" + "".join(f"text {i},{cell}\n" for i, cell in enumerate(cells)), encoding="utf-8"
    )
    first, *others = in_processes(LOAD, *paths, str(several))
    assert len(first.splitlines()) == len(AMBIGUOUS) + 1
    assert others == [first] * len(others)


def test_processes_disagree_on_the_order_of_a_set():
    """The planted mistake: what the test above would see if ids came from a set."""
    assert len(set(in_processes("print(list({'7', '07', '007', '1', '1.0'}))"))) > 1


@pytest.mark.parametrize("names", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_the_order_is_that_of_the_labels_not_of_their_arrival(names: list[str]):
    orders = {labels.in_order(order) for order in itertools.permutations(names)}
    assert len(orders) == 1


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["7", "007", "07", "6", "8"], ("6", "007", "07", "7", "8")),
        (["2", "10", "nan"], ("10", "2", "nan")),
        (["b", "a", "10", "9"], ("10", "9", "a", "b")),
        (["1e3", "1000", "20"], ("20", "1000", "1e3")),
    ],
)
def test_numbers_by_value_and_all_else_by_spelling(names: list[str], order: tuple[str, ...]):
    assert labels.in_order(names) == order


@settings(deadline=None)
@given(st.lists(st.text(alphabet="01.e+-naif_ ", max_size=6), max_size=8), st.randoms())
def test_any_labels_have_one_order(names: list[str], random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert labels.in_order(names) == labels.in_order(shuffled)
    assert sorted(labels.in_order(names)) == sorted(set(names))


def test_the_ids_of_an_existing_run_are_its_own(tmp_path: Path):
    path = write_labelled(tmp_path / "rows.jsonl", ["a", "b", "c"])
    splits = load_splits(ClassificationData(path=(path,)), 0, ("c", "a", "unused", "b"))
    assert splits.classes == ("c", "a", "unused", "b")
    for text, target in zip(splits.train.sources, splits.train.targets, strict=True):
        assert splits.classes[target] == "abc"[int(text.split()[1]) % 3]


def test_an_unknown_label_is_named_with_its_file_and_line(tmp_path: Path):
    path = write_labelled(tmp_path / "rows.jsonl", ["crash", "billing"])
    with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "late", "label": "crush"}\n')
    with pytest.raises(UserError) as caught:
        load_splits(ClassificationData(path=(path,)), 0, ("crash", "billing"))
    assert str(caught.value) == (
        f"{path}, line 61: expected one of the 2 classes crash, billing, got 'crush'; is 'crash' meant?"
    )


def test_many_known_labels_are_not_all_printed():
    words = labels.unknown("new", [f"class {i}" for i in range(4_000)])
    assert len(words) < 250
    assert "4,000 classes class 0, class 1" in words
    assert "and 3,990 more" in words
