"""Labelled texts to score a run on: a split of its own, or any files."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from flax_transformer.cli.common import TextColumns
from flax_transformer.config import OWN_DATA, ClassificationData, MaskedData, MultilabelData, OwnData, Seq2SeqData
from flax_transformer.errors import UserError, warn

if TYPE_CHECKING:
    from flax_transformer.data.examples import Examples, Splits
    from flax_transformer.interop.exported import Exported
    from flax_transformer.training.run import Run

_COLUMNS = ("column", "label_column", "label_columns", "label_separator")
# What the flags of columns are called where a run keeps how its own files were read.
_FIELDS: dict[type[OwnData], dict[str, str]] = {
    ClassificationData: {"column": "text_column", "label_column": "label_column"},
    MultilabelData: {"column": "text_column"} | {name: name for name in _COLUMNS[1:]},
    Seq2SeqData: {"column": "source_column", "label_column": "target_column"},
    MaskedData: {"column": "text_column"},
}


@dataclass(frozen=True)
class LabelledFlags:
    """Which texts."""

    split: Literal["validation", "test"] = "test"
    """examples to score the run on"""
    file: tuple[str, ...] = ()
    """any labelled files to score it on instead"""
    column: TextColumns = ()
    """of the files, with the texts, or two with the texts of pairs; the run's own if not given"""
    label_column: Annotated[str | None, tyro.conf.arg(aliases=["--target-column"])] = None
    """of the files, with the labels, or with the texts to write; the run's own if not given"""
    label_columns: tuple[str, ...] = ()
    """of several labels: in place of label-column, the columns of 0 and 1, one for each label of the run"""
    label_separator: str | None = None
    """of several labels: what separates them in a text; recognized by the labels of the run if not given"""
    delimiter: str | None = None
    """of CSV files, such as ; or tab; recognized if not given"""
    encoding: str | None = None
    """of text files, such as cp1252; recognized if not given"""


def labelled(run: "Run | Exported", flags: LabelledFlags, *, may_differ: bool = True) -> "Examples":
    """The examples that flags name; of an export, which has no splits, those of files.

    Args:
        may_differ: whether a split may be another than the run was made with.

    Raises:
        UserError: they cannot be read, or the run was trained on most of them, or they differ and must not.
    """
    from flax_transformer.data.fingerprint import check_evaluation_data
    from flax_transformer.interop.exported import Exported

    if flags.file and flags.split != LabelledFlags.split:
        raise UserError(f"expected --split or --file, got both: {flags.split} and {', '.join(flags.file)}")
    if flags.file:
        return _of_files(run, flags)
    for name in (*_COLUMNS, "delimiter", "encoding"):
        if getattr(flags, name):
            raise UserError(f"{_flag(name)}: expected --file, of which it is said, got none")
    if isinstance(run, Exported):
        raise UserError(f"{run.folder}: expected --file with labelled texts, since an export has no splits of its own")
    splits = _splits(run)
    check_evaluation_data(run.folder, splits, flags.split, may_differ=may_differ)
    return getattr(splits, flags.split)


def _splits(run: "Run") -> "Splits":
    """Those of the run's own data. A column that is lost is told with the flags of this command, not of training."""
    from flax_transformer.data.own import reading_of
    from flax_transformer.data.rows import MissingColumnError
    from flax_transformer.data.tasks import load_splits

    data = run.config.data
    try:
        return load_splits(data, run.config.seed, run.classes)
    except MissingColumnError as error:
        columns = f", and its columns with {reading_of(data, '--').columns_flags}" if isinstance(data, OwnData) else ""
        advice = f"bring it back, or name a file to score with --file{columns}"
        raise UserError(f"{error.problem}; {advice}") from error


def _of_files(run: "Run | Exported", flags: LabelledFlags) -> "Examples":
    from flax_transformer.data.fingerprint import load_record, trained_on
    from flax_transformer.data.own import load_examples

    data = run.train_config.data
    if not isinstance(data, OwnData):
        data = OWN_DATA[data.architecture]()  # of a task of its own files, whose columns are not named
    examples = load_examples(_read_as(data, flags), flags.file, run.classes)
    _require_json(run, examples)
    record = load_record(run.folder)
    seen = len(trained_on(record, examples)) if record else 0
    if seen:
        warn(
            f"{seen:,} of {len(examples):,} texts are among those that the run was trained on, which flatters the score"
        )
    return examples


def _read_as(data: OwnData, flags: LabelledFlags) -> OwnData:
    """The data of a run, with the columns of other files.

    Raises:
        UserError: there are flags of another task, or other columns of texts than the run reads.
    """
    fields = _FIELDS[type(data)]
    given = {name: getattr(flags, name) for name in _COLUMNS if getattr(flags, name)}
    if unfit := [name for name in given if name not in fields]:
        raise UserError(f"{_flag(unfit[0])}: expected none of it, since the run is one of the task {data.task}")
    changed = {fields[name]: value for name, value in given.items()}
    if flags.column:
        changed[fields["column"]] = _texts(getattr(data, fields["column"]), flags.column)
    if flags.label_columns:
        changed = {"label_column": "labels", "label_separator": None} | changed
    elif flags.label_column and isinstance(data, MultilabelData):
        changed["label_columns"] = ()
    return replace(data, delimiter=flags.delimiter, encoding=flags.encoding, **changed)


def _texts(own: str | tuple[str, ...], columns: tuple[str, ...]) -> str | tuple[str, ...]:
    """The columns in place of a run's own, of which there are as many."""
    number = 1 if isinstance(own, str) else len(own)
    if len(columns) != number:
        raise UserError(f"--column: expected {number}, as many as the run reads, got {', '.join(columns)}")
    return columns[0] if isinstance(own, str) else columns


def _require_json(run: "Run | Exported", examples: "Examples") -> None:
    """Raises :class:`UserError` where the task writes JSON objects and some target is none."""
    from flax_transformer.data.scoring import parse_json
    from flax_transformer.data.tasks import TASKS

    task = run.train_config.data.task
    if TASKS[task].schema is None:
        return
    for target, place in zip(examples.targets, examples.places, strict=True):
        if not parse_json(target):
            raise UserError(f"{place}: expected a JSON object with fields, as {task} writes them, got {target[:60]!r}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
