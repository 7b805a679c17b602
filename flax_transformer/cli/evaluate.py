"""``flax-transformer evaluate``: score the best checkpoint of a run, or an export."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flax_transformer.cli.common import RunFlags, load_rules, load_run
from flax_transformer.cli.labelled import LabelledFlags, labelled
from flax_transformer.config import DataConfig
from flax_transformer.errors import warn

if TYPE_CHECKING:
    from flax_transformer.data.examples import Examples
    from flax_transformer.decoding.predictor import Prediction


@dataclass(frozen=True)
class EvaluateFlags(LabelledFlags, RunFlags):
    """How to predict, and for which texts."""


def evaluate(arguments: Sequence[str]) -> int:
    """Score the best checkpoint of a run, or an export on labelled files."""
    run, flags = load_run(EvaluateFlags, "evaluate", evaluate.__doc__, arguments)

    import numpy as np

    from flax_transformer.data import confusion, label_scores
    from flax_transformer.data.tasks import TASKS
    from flax_transformer.distributed.memory import require_memory
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.evaluate import Evaluator, format_counts
    from flax_transformer.training.report import format_table

    constraint, copying = load_rules(run, flags)
    set_up_jax()
    config = run.train_config
    if flags.batch_size != config.batch.size:
        require_memory(config.model, flags.batch_size)
    config = replace(config, batch=replace(config.batch, size=flags.batch_size))
    examples = labelled(run, flags)
    evaluator = Evaluator(examples, run.tokenizer, config, flags.generation, constraint, copying)
    if evaluator.counts:
        warn(f"{', '.join(flags.file) or flags.split}: {format_counts(evaluator.counts, config)}")
    model, thresholds = run.best_model(), run.thresholds()
    if thresholds:
        labels, scores = evaluator.evaluate(model, thresholds=thresholds)
        counts = label_scores.count(np.array(labels), np.array(evaluator.examples.targets))
        print("\n".join(format_table(scores, evaluator.examples.groups)))
        print("\n".join(label_scores.lines(counts, run.classes, thresholds)))
        return 0
    predictions, scores = evaluator.predict(model)
    print("\n".join(format_table(scores, evaluator.examples.groups)))
    if predictions and TASKS[config.data.task].metric != "bleu":  # hardly a translation is exact
        print("\n".join(_calibration(config.data, predictions, evaluator.examples)))
    if run.classes:
        predicted = [prediction.class_id for prediction in predictions]
        matrix = confusion.confusion_matrix(predicted, evaluator.examples.targets, len(run.classes))
        print("\n".join(confusion.lines(matrix, run.classes)))
    return 0


def _calibration(data: DataConfig, predictions: "Sequence[Prediction]", examples: "Examples") -> Iterator[str]:
    """Of each group of the examples."""
    import numpy as np

    from flax_transformer.data import calibration
    from flax_transformer.data.tasks import outcomes

    scores = np.array([prediction.score for prediction in predictions])
    right = np.array(outcomes(data, [prediction.value for prediction in predictions], examples))
    groups = np.array(examples.groups or [""] * len(predictions))
    for group in sorted(set(groups.tolist())):
        chosen = groups == group
        name = f"{group or 'main'}: " if any(groups) else ""
        yield from (
            name + line for line in calibration.lines(scores[chosen], right[chosen], data.architecture == "classifier")
        )
