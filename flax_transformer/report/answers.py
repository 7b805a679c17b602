"""What the best checkpoint makes of labelled texts: the predictions that the page is about."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from flax_transformer.config import BatchConfig
from flax_transformer.data.batches import Encoded, Shape, make_buckets
from flax_transformer.data.examples import Examples
from flax_transformer.data.tasks import outcomes
from flax_transformer.decoding.predictor import Prediction
from flax_transformer.nn.models import Model
from flax_transformer.report.facts import group_name
from flax_transformer.training.evaluate import Evaluator, Scores
from flax_transformer.training.run import Run

_MOST_CLASSES = 200  # whose probabilities are all kept


@dataclass(frozen=True)
class Answers:
    """
    Args:
        evaluator: of the texts that were scored.
        what: these texts in words: ``the test split``, or names of files.
        total: how many of them there are; those that were scored may be fewer.
        seconds: that it took, with compilation.
        batch_seconds: between each batch and the next.
    """

    run: Run
    model: Model
    evaluator: Evaluator
    batch: BatchConfig
    what: str
    total: int
    predictions: list[Prediction]
    scores: Scores
    seconds: float
    batch_seconds: list[float]

    @property
    def examples(self) -> Examples:
        return self.evaluator.examples

    @property
    def is_limited(self) -> bool:
        """Whether not all of the texts were scored."""
        return len(self.examples) + self.evaluator.counts.get("left_out", 0) < self.total

    @cached_property
    def right(self) -> Bool[np.ndarray, " n"]:
        """Which predictions are what was expected."""
        values = [prediction.value for prediction in self.predictions]
        return np.array(outcomes(self.run.config.data, values, self.examples))

    @cached_property
    def log_probabilities(self) -> Float[np.ndarray, " n"]:
        """Of each prediction as a whole."""
        scores = np.array([prediction.score for prediction in self.predictions])
        return np.log(np.maximum(scores, 1e-300)) if self.run.classes else scores

    @cached_property
    def confidence(self) -> Float[np.ndarray, " n"]:
        """The probability of each prediction as a whole, in [0, 1]: of the class, or of all tokens of the text."""
        return np.exp(np.minimum(self.log_probabilities, 0))

    @property
    def has_all_classes(self) -> bool:
        """Whether the probability of every class is known."""
        return 0 < len(self.run.classes) <= _MOST_CLASSES

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "n classes"]:
        """Of each class, where all of them are known."""
        table = np.zeros((len(self.predictions), len(self.run.classes)))
        for row, prediction in zip(table, self.predictions, strict=True):
            for one in (prediction, *prediction.alternatives):
                row[one.class_id] = one.score
        return table

    def indices(self, group: str) -> Int[np.ndarray, " chosen"]:
        """Of the examples in a group."""
        groups = np.array(self.examples.groups or [""] * len(self.examples))
        return np.flatnonzero(groups == group)

    @property
    def groups(self) -> list[str]:
        """The main one, whose name is empty, first."""
        return sorted(set(self.examples.groups) or {""})

    def group_name(self, group: str) -> str:
        """In words; empty where there is only one."""
        return "" if len(self.groups) == 1 else group_name(self.run.config.data.task, group)


def answer(
    run: Run,
    model: Model,
    examples: Examples,
    what: str,
    *,
    limit: int,
    batch_size: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """Evaluate ``limit`` evenly spaced examples, or all where there are no more.

    Args:
        on_batch: told before each batch how many are done, and how many there are.

    Raises:
        UserError: no text is left for its length, or the model's logits are not finite.
    """
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(limit, len(examples))).round().astype(int))
    config = replace(run.config, batch=replace(run.config.batch, size=batch_size))
    evaluator = Evaluator(examples.take(chosen.tolist()), run.tokenizer, config, copying=run.copy_rule)
    batches = sum(count for _, count in padded_batches(evaluator.encoded, config.batch))
    clock: list[float] = []

    def check() -> None:
        on_batch(len(clock), batches)
        clock.append(time.perf_counter())

    start = time.perf_counter()
    predictions, scores = evaluator.predict(model, check, top=min(max(1, len(run.classes)), _MOST_CLASSES))
    seconds = time.perf_counter() - start
    gaps = [after - before for before, after in pairwise(clock)]
    return Answers(run, model, evaluator, config.batch, what, len(examples), predictions, scores, seconds, gaps)


def padded_batches(encoded: Encoded, config: BatchConfig) -> list[tuple[Shape, int]]:
    """The padded shape of the rows of each bucket, and its number of batches."""
    return [(bucket.shape, -(-len(bucket.indices) // config.size)) for bucket in make_buckets(encoded, config)]
