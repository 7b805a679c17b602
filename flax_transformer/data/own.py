"""The user's own files: labelled texts and pairs of texts."""

from collections.abc import Sequence
from pathlib import Path

from flax_transformer.config import ClassificationData, Seq2SeqData
from flax_transformer.data import labels
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.files import Row, read_rows
from flax_transformer.data.splitting import split_by_content
from flax_transformer.errors import UserError

OwnData = ClassificationData | Seq2SeqData


def load_classification(config: ClassificationData, seed: int, classes: Sequence[str] = ()) -> Splits:
    """Labelled texts.

    Args:
        classes: those of a run that exists. Without them they are the labels of the training file, in order.

    Raises :class:`UserError` for a label that is not among the classes, and where there is only one class.
    """
    files = _read_files(config, (config.text_column, config.label_column))
    names = tuple(classes) or labels.in_order(_label(row) for row in files[0])
    if len(names) < 2:
        raise UserError(f"{config.path}: expected at least 2 classes in {config.label_column!r}, got {len(names)}")
    ids = {label: i for i, label in enumerate(names)}
    examples = [Examples([row.text(0) for row in rows], [_class_id(row, ids) for row in rows]) for rows in files]
    return Splits(*_split(config, examples, seed), names, _paths(config))


def load_seq2seq(config: Seq2SeqData, seed: int) -> Splits:
    """Pairs of texts."""
    files = _read_files(config, (config.source_column, config.target_column))
    examples = [Examples([row.text(0) for row in rows], [row.text(1) for row in rows]) for rows in files]
    return Splits(*_split(config, examples, seed), files=_paths(config))


def _read_files(config: OwnData, columns: Sequence[str]) -> list[list[Row]]:
    """The rows of the training file, then of the other files that there are."""
    if config.path is None:
        raise UserError(f"{config.task}: expected --data.path, a .csv, .tsv, .jsonl or .parquet file to learn from")
    return [read_rows(path, columns) for path in _paths(config)]


def _paths(config: OwnData) -> tuple[Path, ...]:
    return tuple(Path(path) for path in (config.path, config.validation_path, config.test_path) if path is not None)


def _split(config: OwnData, files: list[Examples], seed: int) -> tuple[Examples, Examples, Examples]:
    """Train, validation and test; those without a file are set aside from train."""
    given = iter(files)
    train = next(given)
    missing = [path is None for path in (config.validation_path, config.test_path)]
    groups = train.targets if config.architecture == "classifier" else [None] * len(train)
    *aside, rest = split_by_content(train.sources, groups, missing, seed)
    validation, test = (
        train.take(part) if absent else next(given) for part, absent in zip(aside, missing, strict=True)
    )
    return train.take(rest), validation, test


def _label(row: Row) -> str:
    """The label as text: JSON lines and Parquet may hold numbers."""
    value = row.values[1]
    if value is None or not str(value).strip():
        raise UserError(f"{row.where}: expected a label, got {value!r}")
    return str(value)


def _class_id(row: Row, ids: dict[str, int]) -> int:
    label = _label(row)
    if label not in ids:
        raise UserError(f"{row.where}: {labels.unknown(label, list(ids))}")
    return ids[label]
