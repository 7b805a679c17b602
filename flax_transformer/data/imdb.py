"""Large Movie Review Dataset (Maas et al., ACL 2011): review -> negative or positive."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flax_transformer.config import ImdbData
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.files import read_rows
from flax_transformer.data.hub import load_hub
from flax_transformer.data.splitting import first_of_each, set_aside
from flax_transformer.errors import UserError

HUB_ID = "stanfordnlp/imdb"
CLASSES = ("negative", "positive")
_ASSIGNMENT_TRAIN, _ASSIGNMENT_VALIDATION = 15_000, 10_000
_OFFICIAL_VALIDATION_SHARE = 10  # one in ten of the training reviews
_LINE_BREAKS = re.compile(r"(?:<br\s*/?>\s*)+")

Reviews = list[tuple[str, int]]


def load_imdb(config: ImdbData, seed: int) -> Splits:
    """Reviews without HTML line breaks, split as ``config.split`` says; no text stands in two splits.

    assignment: distinct reviews only, 15,000 train, 10,000 validation and the rest test. official: the 25,000 test
    reviews as published; copies within train and of test reviews are dropped from train, and a tenth of train is
    validation.
    """
    train, test = _read_file(Path(config.path)) if config.path is not None else _read_hub()
    split = (
        _assignment_split(train + test, seed) if config.split == "assignment" else _official_split(train, test, seed)
    )
    return replace(split, files=(Path(config.path),)) if config.path is not None else split


def clean_review(text: str) -> str:
    """29,200 of the 50,000 reviews hold ``<br />`` where the writer began a new line."""
    return _LINE_BREAKS.sub("\n", text)


def _read_file(path: Path) -> tuple[Reviews, Reviews]:
    reviews: dict[str, Reviews] = {"train": [], "test": []}
    for row in read_rows(path, ("split", "label", "text")):
        split, label = row.values[:2]
        if split not in reviews or str(label) not in ("0", "1"):
            raise UserError(f"{row.where}: expected split train or test and label 0 or 1, got {split!r} and {label!r}")
        reviews[split].append((clean_review(row.text(2)), int(label)))
    for split, rows in reviews.items():
        if not rows:
            raise UserError(f"{path}: expected reviews of the split {split!r}, got none")
    return reviews["train"], reviews["test"]


def _read_hub() -> tuple[Reviews, Reviews]:
    splits = load_hub(HUB_ID, ("train", "test"), ("text", "label"))
    train, test = ([(clean_review(text), label) for text, label in rows] for rows in splits)
    return train, test


def _assignment_split(reviews: Reviews, seed: int) -> Splits:
    distinct = _distinct(reviews)
    parts = set_aside([text for text, _ in distinct], (_ASSIGNMENT_TRAIN, _ASSIGNMENT_VALIDATION), seed)
    train, validation, test = (_examples([distinct[i] for i in part]) for part in parts)
    return Splits(train, validation, test, CLASSES)


def _official_split(train: Reviews, test: Reviews, seed: int) -> Splits:
    distinct = _distinct(train, exclude=[text for text, _ in test])
    parts = set_aside([text for text, _ in distinct], [len(distinct) // _OFFICIAL_VALIDATION_SHARE], seed)
    validation, rest = (_examples([distinct[i] for i in part]) for part in parts)
    return Splits(rest, validation, _examples(test), CLASSES)


def _distinct(reviews: Reviews, exclude: Sequence[str] = ()) -> Reviews:
    return [reviews[i] for i in first_of_each([text for text, _ in reviews], exclude)]


def _examples(reviews: Reviews) -> Examples:
    return Examples([text for text, _ in reviews], [label for _, label in reviews])
