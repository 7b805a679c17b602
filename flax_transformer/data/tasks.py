"""The tasks: what each one reads, how its predictions are scored, and what JSON it writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flax_transformer.config import ClassificationData, DataConfig, MultilabelData
from flax_transformer.data.copying import CopyRule
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.imdb import load_imdb
from flax_transformer.data.label_scores import score_labels
from flax_transformer.data.manifests.review import review_manifest
from flax_transformer.data.manifests.task import MANIFEST_SCHEMA, load_manifests, score_manifests
from flax_transformer.data.masked import load_masked
from flax_transformer.data.multi30k import load_multi30k
from flax_transformer.data.own import load_classification, load_multilabel, load_seq2seq
from flax_transformer.data.scoring import parse_json, score_classes, score_masked, score_texts, score_translations
from flax_transformer.data.snips import FRAME_SCHEMA, load_snips, score_frames
from flax_transformer.data.tokenizer import Tokenizer

Scores = dict[str, float | str]


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        load: its config and a seed -> the dataset.
        score: predictions and targets, one for each example -> scores. Rates lie in [0, 1], BLEU and chrF in [0, 100].
        metric: the score by which the best checkpoint is kept; higher is better.
        schema: JSON schema of the targets; None where they are not JSON, or not known to be.
        review: a text, its prediction and the tokens of this with their log-probabilities -> what to trust of it.
    """

    load: Callable[[Any, int], Splits]
    score: Callable[[Sequence[Any], Sequence[Any]], Scores]
    metric: str
    schema: dict[str, Any] | None = None
    review: Callable[[str, str, Sequence[tuple[bytes, float]]], Mapping[str, Any]] | None = None


# By the names of the configs.
TASKS = {
    "manifests": Task(load_manifests, score_manifests, "exact_match", MANIFEST_SCHEMA, review_manifest),
    "imdb": Task(load_imdb, score_classes, "accuracy"),
    "multi30k": Task(lambda config, seed: load_multi30k(config), score_translations, "bleu"),
    "snips": Task(load_snips, score_frames, "exact_match", FRAME_SCHEMA),
    "classification": Task(load_classification, score_classes, "accuracy"),
    "multilabel": Task(load_multilabel, score_labels, "micro_f1"),
    "seq2seq": Task(load_seq2seq, score_texts, "exact_match"),
    "masked": Task(load_masked, score_masked, "accuracy"),
}


def load_splits(config: DataConfig, seed: int, classes: Sequence[str] = ()) -> Splits:
    """A dataset in three parts.

    Args:
        classes: those of a run that exists, whose class ids these are. Without them the data decides.

    Raises :class:`UserError` for files that are missing, malformed or empty, for labels that are not among the classes,
    and a hub that cannot be reached.
    """
    if classes and isinstance(config, ClassificationData):
        return load_classification(config, seed, classes)
    if classes and isinstance(config, MultilabelData):
        return load_multilabel(config, seed, classes)
    return TASKS[config.task].load(config, seed)


def score(config: DataConfig, predictions: Sequence[Any], examples: Examples) -> Scores:
    """Predictions in the order of ``examples``: texts, class ids or truths of labels; each group of them apart.

    Raises ``ValueError`` where the two differ in number.
    """
    if len(predictions) != len(examples):
        raise ValueError(f"expected a prediction for each of {len(examples)} examples, got {len(predictions)}")
    groups = examples.groups or [""] * len(examples)
    scores: Scores = {}
    for group in sorted(set(groups)):  # the main one, whose name is empty, comes first
        chosen = [i for i, name in enumerate(groups) if name == group]
        found = TASKS[config.task].score([predictions[i] for i in chosen], [examples.targets[i] for i in chosen])
        scores |= {f"{group}/{name}" if group else name: value for name, value in found.items()}
    return scores


def copy_rule(task: str, tokenizer: Tokenizer) -> CopyRule | None:
    """Which values of a task's outputs are copied; None where none are known to be, or tokens do not spell a text."""
    schema = TASKS[task].schema if task else None
    return CopyRule(schema, tokenizer) if schema and tokenizer.is_byte_level else None


def outcomes(config: DataConfig, predictions: Sequence[Any], examples: Examples) -> list[bool]:
    """Whether each prediction is right: what accuracy and exact match are the mean of. JSON is compared as values."""
    pairs = zip(predictions, examples.targets, strict=True)
    if TASKS[config.task].schema is None:
        return [one == other for one, other in pairs]
    return [parse_json(one) == parse_json(other) for one, other in pairs]
