"""The user's own files: labelled texts, pairs of texts, and texts alone."""

import itertools
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flax_transformer.config import ClassificationData, MaskedData, MultilabelData, OwnData, Seq2SeqData
from flax_transformer.data import labels, multilabel
from flax_transformer.data.examples import Examples, Splits, texts_of
from flax_transformer.data.files import TABLES, find_files
from flax_transformer.data.label_sets import SEPARATORS, cut, is_list
from flax_transformer.data.pairs import Column, read_pairs, read_texts, text_columns
from flax_transformer.data.splitting import folded, split_by_content
from flax_transformer.data.text_files import Reading
from flax_transformer.data.values import shown, to_label, to_target, to_text
from flax_transformer.errors import UserError, warn

# The flags that name columns, with what their names begin with left open.
_COLUMN_FLAGS: dict[type[OwnData], str] = {
    ClassificationData: "{0}text-column and {0}label-column",
    MultilabelData: "{0}text-column and {0}label-column, or {0}label-columns for several of 0 and 1",
    Seq2SeqData: "{0}source-column and {0}target-column",
    MaskedData: "{0}text-column",
}


def load_classification(config: ClassificationData, seed: int, classes: Sequence[str] = ()) -> Splits:
    """Labelled texts.

    Args:
        classes: those of a run that exists. Without them they are the labels of the training files, in order.

    Raises :class:`UserError` for a label that is not among the classes, where there is only one class, and for a column
    that holds no labels.
    """
    files, parts = _read(config)
    names = tuple(classes) or _classes(config, parts[0].targets)
    splits = _split(config, [_with_ids(part, names) for part in parts], seed, names, files)
    if not classes:
        _tell_contradictions(parts[0])
        _tell_untested(splits)
    return splits


def load_multilabel(config: MultilabelData, seed: int, classes: Sequence[str] = ()) -> Splits:
    """Texts with any number of labels each.

    Args:
        classes: those of a run that exists. Without them they are the labels of the training files, in order.

    Raises :class:`UserError` for a label that is not among the classes, where there is none at all, and for a column
    that holds no labels.
    """
    files, parts = _read(config)
    parts = multilabel.separated(config, parts, classes)
    names = tuple(classes) or multilabel.find_classes(config, parts[0].targets)
    splits = _split(config, [multilabel.with_truths(part, names) for part in parts], seed, names, files)
    if not classes:
        _tell_untested(splits)
    return splits


def load_seq2seq(config: Seq2SeqData, seed: int) -> Splits:
    """Pairs of texts; targets that are objects become JSON."""
    files, parts = _read(config)
    return _split(config, parts, seed, (), files)


def load_texts(config: MaskedData, seed: int) -> Splits:
    """Texts whose tokens are to be masked."""
    files, parts = _read(config)
    return _split(config, parts, seed, (), files)


def load_examples(config: OwnData, names: Sequence[str], classes: Sequence[str]) -> Examples:
    """All rows of some files, to score a run on; ``classes`` are those of the run, empty for seq2seq.

    Raises :class:`UserError` as :func:`load_classification` does.
    """
    if isinstance(config, MultilabelData):
        multilabel.require_columns(config, classes)
    examples = _read_files(config, find_files(names), reading_of(config, "--"))
    if isinstance(config, MultilabelData):
        return multilabel.with_truths(multilabel.separated(config, [examples], classes)[0], classes)
    return _with_ids(examples, classes) if classes else examples


def reading_of(config: OwnData, flags: str = "--data.") -> Reading:
    """How the files of a config are read, and the flags that change it, whose names begin with ``flags``."""
    return Reading(config.delimiter, config.encoding, flags, _COLUMN_FLAGS[type(config)].format(flags))


def _read_files(config: OwnData, files: Sequence[Path], reading: Reading) -> Examples:
    if isinstance(config, MaskedData):
        return read_texts(files, text_columns(config), reading)
    if isinstance(config, MultilabelData):
        return multilabel.read(config, files, reading)
    return read_pairs(files, _columns(config), reading)


def _columns(config: ClassificationData | Seq2SeqData) -> tuple[Column, ...]:
    """What is read, and what it becomes."""
    if isinstance(config, ClassificationData):
        return *text_columns(config), Column(config.label_column, to_label)
    text, target = (partial(convert, numbers=config.numbers_as_text) for convert in (to_text, to_target))
    return Column(config.source_column, text), Column(config.target_column, target)


def _read(config: OwnData) -> tuple[tuple[Path, ...], list[Examples]]:
    """The files, and what is in those of training, then in those of the other parts that have some."""
    if not config.path:
        raise UserError(f"{config.task}: expected --data.path, files to learn from, with a name in {TABLES}")
    named = [find_files(names) for names in (config.path, config.validation_path, config.test_path) if names]
    parts = [_read_files(config, files, reading_of(config)) for files in named]
    _tell_missing(parts[0], ", ".join(config.path))
    for files, part in zip(named[1:], parts[1:], strict=True):
        _tell_copies(parts[0], part, str(files[0]))
    return tuple(path for files in named for path in files), parts


def _split(
    config: OwnData, parts: Sequence[Examples], seed: int, classes: tuple[str, ...], files: tuple[Path, ...]
) -> Splits:
    """Parts without a file are set aside from the first."""
    given = iter(parts)
    train = next(given)
    missing = [not paths for paths in (config.validation_path, config.test_path)]
    groups = [labels.ids(target) for target in train.targets] if classes else [(None,)] * len(train)
    try:
        *aside, rest = split_by_content(train.sources, groups, missing, seed)
    except UserError as error:
        raise UserError(f"{', '.join(config.path)}: {error}") from error
    validation, test = (
        train.take(part) if absent else next(given) for part, absent in zip(aside, missing, strict=True)
    )
    return Splits(train.take(rest), validation, test, classes, files)


def _classes(config: ClassificationData, found: Sequence[str]) -> tuple[str, ...]:
    """The labels of the training files, once they are seen to be labels."""
    name, names = ", ".join(config.path), labels.in_order(found)
    if len(names) < 2:
        raise UserError(
            f"{name}: expected at least 2 classes in {config.label_column!r}, got {len(names)}: {', '.join(names)!r}"
        )
    labels.check(found, name, config.label_column)
    _tell_several(names, name)
    return names


def _tell_several(classes: Sequence[str], name: str) -> None:
    """Classes that are others with a separator between them, or lists: their texts have several labels."""
    known = set(classes)
    cuts = {label: [parts for mark in SEPARATORS if len(parts := cut(label, mark)) > 1] for label in classes}
    several = [label for label in classes if is_list(label) or any(known.issuperset(parts) for parts in cuts[label])]
    if several:
        listed = labels.some([repr(shown(label)) for label in several])
        warn(f"{name}: classes that hold several: {listed}; if so, take the task multilabel, which separates them")


def _with_ids(examples: Examples, classes: Sequence[str]) -> Examples:
    ids = {label: i for i, label in enumerate(classes)}
    for label, place in zip(examples.targets, examples.places, strict=True):
        if label not in ids:
            raise UserError(f"{place}: {labels.unknown(label, classes)}")
    return Examples(examples.sources, [ids[label] for label in examples.targets], examples.places)


def _tell_copies(train: Examples, other: Examples, name: str) -> None:
    known = {folded(text) for text in train.sources}
    copies = sum(folded(text) in known for text in other.sources)
    if copies:
        warn(f"{name}: {copies:,} of {len(other):,} texts are among the training texts too, which flatters the score")


def _tell_missing(train: Examples, name: str) -> None:
    """One text of that spelling may be meant, several stand for a value that is missing."""
    texts = itertools.chain.from_iterable(map(texts_of, train.sources))
    rows = Counter(text for text in texts if text.strip() in labels.MISSING)
    for text, count in rows.items():
        if count > 1:
            warn(f"{name}: {count:,} rows have the text {text!r}; if it stands for none, leave it empty there")


def _tell_contradictions(train: Examples) -> None:
    """One text with several labels: a mistake, or no text at all, such as the nan of a table that had none."""
    found: dict[str, dict[str, int]] = {}
    for i, (source, label) in enumerate(zip(train.sources, train.targets, strict=True)):
        found.setdefault(folded(source), {}).setdefault(label, i)
    several = [rows for rows in found.values() if len(rows) > 1]
    if several:
        first = list(several[0].items())[:2]
        labelled = " and ".join(f"{shown(label)!r} ({train.places[i]})" for label, i in first)
        text = " / ".join(map(shown, texts_of(train.sources[first[0][1]])))
        warn(f"{len(several):,} of {len(found):,} distinct texts have several labels, such as {text!r}: {labelled}")


def _tell_untested(splits: Splits) -> None:
    """A class of few rows may have none to be scored on; it always has one to train on."""
    rows, *others = (
        Counter(number for target in part.targets for number in labels.ids(target))
        for part in (splits.train, splits.validation, splits.test)
    )
    for name, found in zip(("validation", "test"), others, strict=True):
        absent = sorted(rows.keys() - found.keys())
        if absent:
            names = labels.some([f"{splits.classes[i]!r} ({rows[i]:,} in training)" for i in absent])
            warn(f"{len(absent):,} of {len(splits.classes):,} classes have no text in the {name} split: {names}")
