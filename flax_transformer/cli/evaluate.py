"""``flax-transformer evaluate``: score the best checkpoint of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flax_transformer.cli.common import RunFlags, load_constraint, load_run
from flax_transformer.config import OWN_DATA, OwnData
from flax_transformer.errors import UserError, warn

if TYPE_CHECKING:
    from flax_transformer.data.examples import Examples
    from flax_transformer.training.run import Run


@dataclass(frozen=True)
class EvaluateFlags(RunFlags):
    split: Literal["validation", "test"] = "test"
    """examples to score the run on"""
    file: tuple[str, ...] = ()
    """any labelled files to score it on instead, with the columns of the run"""
    delimiter: str | None = None
    """of a CSV, such as ; or tab; recognized if not given"""
    encoding: str | None = None
    """of a text file, such as cp1252; recognized if not given"""


def evaluate(arguments: Sequence[str]) -> int:
    """Score the best checkpoint of a run."""
    run, flags = load_run(EvaluateFlags, "evaluate", evaluate.__doc__, arguments)

    import numpy as np

    from flax_transformer.data import confusion, label_scores
    from flax_transformer.distributed.memory import require_memory
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.evaluate import Evaluator, format_counts
    from flax_transformer.training.report import format_table
    from flax_transformer.training.run import Run

    if not isinstance(run, Run):
        raise UserError(f"{flags.run}: expected a run, got an export, which does not know what it is to be scored on")
    constraint = load_constraint(run, flags)
    set_up_jax()
    config = replace(run.config, batch=replace(run.config.batch, size=flags.batch_size))
    if flags.batch_size != run.config.batch.size:
        require_memory(config.model, flags.batch_size)
    examples = _examples(run, flags)
    evaluator = Evaluator(examples, run.tokenizer, config, flags.generation, constraint)
    if evaluator.counts:
        warn(f"{', '.join(flags.file) or flags.split}: {format_counts(evaluator.counts, config.batch)}")
    thresholds = run.thresholds()
    predictions, scores = evaluator.evaluate(run.best_model(), thresholds=thresholds)
    print("\n".join(format_table(scores, evaluator.examples.groups)))
    if thresholds:
        counts = label_scores.count(np.array(predictions), np.array(evaluator.examples.targets))
        print("\n".join(label_scores.lines(counts, run.classes, thresholds)))
    elif run.classes:
        matrix = confusion.confusion_matrix(predictions, evaluator.examples.targets, len(run.classes))
        print("\n".join(confusion.lines(matrix, run.classes)))
    return 0


def _examples(run: "Run", flags: EvaluateFlags) -> "Examples":
    """Of a split of the run, or of files."""
    from flax_transformer.data.fingerprint import check_evaluation_data, load_record, trained_on
    from flax_transformer.data.own import load_examples
    from flax_transformer.data.tasks import load_splits

    data = run.config.data
    if not flags.file:
        splits = load_splits(data, run.config.seed, run.classes)
        check_evaluation_data(run.folder, splits, flags.split)
        return getattr(splits, flags.split)
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
