"""``flax-transformer evaluate``: score the best checkpoint of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flax_transformer.cli.common import RunFlags, load_constraint, load_run
from flax_transformer.errors import UserError, warn


@dataclass(frozen=True)
class EvaluateFlags(RunFlags):
    split: Literal["validation", "test"] = "test"
    """examples to score the run on"""


def evaluate(arguments: Sequence[str]) -> int:
    """Score the best checkpoint of a run."""
    run, flags = load_run(EvaluateFlags, "evaluate", evaluate.__doc__, arguments)

    from flax_transformer.data.fingerprint import check_evaluation_data
    from flax_transformer.data.tasks import load_splits
    from flax_transformer.planning.memory import require_memory
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.evaluate import Evaluator, format_counts
    from flax_transformer.training.report import format_score
    from flax_transformer.training.run import Run

    if not isinstance(run, Run):
        raise UserError(f"{flags.run}: expected a run, got an export, which does not know what it is to be scored on")
    constraint = load_constraint(run, flags)
    set_up_jax()
    config = replace(run.config, batch=replace(run.config.batch, size=flags.batch_size))
    if flags.batch_size != run.config.batch.size:
        require_memory(config.model, flags.batch_size)
    splits = load_splits(config.data, config.seed, run.classes)
    check_evaluation_data(run.folder, splits, flags.split)
    evaluator = Evaluator(getattr(splits, flags.split), run.tokenizer, config, flags.generation, constraint)
    if evaluator.counts:
        warn(f"{flags.split}: {format_counts(evaluator.counts, config.batch)}")
    _, scores = evaluator.evaluate(run.best_model())
    for name, value in scores.items():
        print(format_score(name, value))
    return 0
