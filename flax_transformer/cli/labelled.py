"""Labelled texts to score a run on: a split of its own, or any files."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flax_transformer.config import OWN_DATA, OwnData
from flax_transformer.errors import UserError, warn

if TYPE_CHECKING:
    from flax_transformer.data.examples import Examples
    from flax_transformer.training.run import Run


@dataclass(frozen=True)
class LabelledFlags:
    """Which texts."""

    split: Literal["validation", "test"] = "test"
    """examples to score the run on"""
    file: tuple[str, ...] = ()
    """any labelled files to score it on instead, with the columns of the run"""
    delimiter: str | None = None
    """of a CSV, such as ; or tab; recognized if not given"""
    encoding: str | None = None
    """of a text file, such as cp1252; recognized if not given"""


def labelled(run: "Run", flags: LabelledFlags, *, may_differ: bool = True) -> "Examples":
    """The examples that flags name.

    Args:
        may_differ: whether a split may be another than the run was made with.

    Raises:
        UserError: they cannot be read, or the run was trained on most of them, or they differ and must not.
    """
    from flax_transformer.data.fingerprint import check_evaluation_data
    from flax_transformer.data.tasks import load_splits

    if flags.file:
        return _of_files(run, flags)
    splits = load_splits(run.config.data, run.config.seed, run.classes)
    check_evaluation_data(run.folder, splits, flags.split, may_differ=may_differ)
    return getattr(splits, flags.split)


def _of_files(run: "Run", flags: LabelledFlags) -> "Examples":
    from flax_transformer.data.fingerprint import load_record, trained_on
    from flax_transformer.data.own import load_examples

    data = run.config.data
    if not isinstance(data, OwnData):
        data = OWN_DATA[data.architecture]()  # of a task of its own files, whose columns are not named
    data = replace(data, delimiter=flags.delimiter, encoding=flags.encoding)
    examples = load_examples(data, flags.file, run.classes)
    _require_json(run, examples)
    record = load_record(run.folder)
    seen = len(trained_on(record, examples)) if record else 0
    if seen:
        warn(
            f"{seen:,} of {len(examples):,} texts are among those that the run was trained on, which flatters the score"
        )
    return examples


def _require_json(run: "Run", examples: "Examples") -> None:
    """Raises :class:`UserError` where the task writes JSON objects and some target is none."""
    from flax_transformer.data.scoring import parse_json
    from flax_transformer.data.tasks import TASKS

    if TASKS[run.config.data.task].schema is None:
        return
    for target, place in zip(examples.targets, examples.places, strict=True):
        if not parse_json(target):
            task = run.config.data.task
            raise UserError(f"{place}: expected a JSON object with fields, as {task} writes them, got {target[:60]!r}")
