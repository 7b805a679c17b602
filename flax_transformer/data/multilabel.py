"""Users' files whose texts have any number of labels: read, separated, and set against the classes of a model."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from flax_transformer.config import MultilabelData
from flax_transformer.data import labels
from flax_transformer.data.examples import Examples, source_of
from flax_transformer.data.label_sets import FLAGS, cut, find_separator, repeated, to_cell, to_flag
from flax_transformer.data.pairs import Column, read_pairs, read_rows, text_columns
from flax_transformer.data.text_files import Reading
from flax_transformer.errors import UserError, warn

# What people write between labels, beside the separators that are recognized; the last ones of Chinese and Japanese.
_UNUSUAL = (" and ", " ", "/", "+", "&", "\u3001", "\uff1b", "\uff0c")


def read(config: MultilabelData, files: Sequence[Path], reading: Reading) -> Examples:
    """Texts, each with a tuple of its labels, or with the text that holds them and is yet to be separated."""
    texts = text_columns(config)
    if not config.label_columns:
        return read_pairs(files, (*texts, Column(config.label_column, to_cell)), reading)
    columns = [Column(name, to_flag) for name in config.label_columns]
    rows, places = read_rows(files, (*texts, *columns), reading)
    split = [(source_of(row[: len(texts)]), row[len(texts) :]) for row in rows]
    named = [tuple(name for name, has in zip(config.label_columns, flags, strict=True) if has) for _, flags in split]
    return Examples([source for source, _ in split], named, places)


def separated(config: MultilabelData, parts: Sequence[Examples], classes: Sequence[str]) -> list[Examples]:
    """The parts of a data set with tuples of labels alone; a label that a text has twice counts once, and is told.

    Raises :class:`UserError` where it cannot be told what separates the labels.
    """
    cells: dict[str, str] = {}
    for target, place in chain.from_iterable(zip(part.targets, part.places, strict=True) for part in parts):
        if isinstance(target, str):
            cells.setdefault(target, place)
    separator = config.label_separator or find_separator(cells, classes)
    return [_separate(part, separator) for part in parts]


def _separate(part: Examples, separator: str | None) -> Examples:
    found = [cut(target, separator) if isinstance(target, str) else target for target in part.targets]
    twice = [place for target, place in zip(found, part.places, strict=True) if repeated(target)]
    if twice:
        warn(f"{labels.some(twice)}: a label stands there more than once, and counts once")
    return Examples(part.sources, [tuple(dict.fromkeys(target)) for target in found], part.places)


def find_classes(config: MultilabelData, found: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The labels of the training files, once they are seen to be labels; of columns, their names.

    Raises :class:`UserError` where there are none, or nearly every text has one of its own; or a column of 0 and 1 was
    taken for one of labels.
    """
    name, occurring = ", ".join(config.path), list(chain.from_iterable(found))
    if not occurring:
        column = ", ".join(config.label_columns) or config.label_column
        raise UserError(f"{name}: expected texts with labels in {column!r}, got {len(found):,} texts without any")
    if config.label_columns:
        return labels.in_order(config.label_columns)
    if {label.casefold() for label in occurring} <= FLAGS.keys():
        raise UserError(
            f"{name}: expected labels in {config.label_column!r}, got 0 and 1; name all columns of 0 and 1, each "
            "of which is a label, with --data.label-columns, or write lists of the names of labels"
        )
    if all(len(target) == 1 for target in found):
        warn(f"{name}: each text has one label; the task classification is made for that, and compares the classes")
    labels.check(occurring, name, config.label_column)
    _tell_joined(set(occurring), name)
    return labels.in_order(occurring)


def _tell_joined(found: set[str], name: str) -> None:
    """Labels that are others with something between them, which is no separator that is recognized."""
    for separator in _UNUSUAL:
        joined = sorted(label for label in found if len(parts := cut(label, separator)) > 1 and found.issuperset(parts))
        if joined:
            listed = labels.some([repr(label) for label in joined])
            warn(f"{name}: labels that consist of others: {listed}; if so, say --data.label-separator '{separator}'")


def require_columns(config: MultilabelData, classes: Sequence[str]) -> None:
    """Raises :class:`UserError` where columns of 0 and 1 leave out a class of a run, which no text would then have."""
    if config.label_columns and {*config.label_columns} != {*classes}:
        known, got = labels.some(classes), labels.some(config.label_columns)
        raise UserError(f"--label-columns: expected one for each of the {len(classes):,} classes {known}, got {got}")


def with_truths(examples: Examples, classes: Sequence[str]) -> Examples:
    """Each target as the truth of each class, in order.

    Raises :class:`UserError` for a label that is not among the classes.
    """
    known, truths = set(classes), {}
    for target, place in zip(examples.targets, examples.places, strict=True):
        if unknown := [label for label in target if label not in known]:
            raise UserError(f"{place}: {labels.unknown(unknown[0], classes)}")
        if target not in truths:  # one tuple for all texts with the same labels
            truths[target] = tuple(name in set(target) for name in classes)
    return Examples(examples.sources, [truths[target] for target in examples.targets], examples.places)
