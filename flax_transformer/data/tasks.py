"""The tasks by their configs: what each one reads, and how its predictions are scored."""

from collections.abc import Sequence
from typing import Any, assert_never

from flax_transformer.config import (
    ClassificationData,
    DataConfig,
    ImdbData,
    ManifestsData,
    Multi30kData,
    Seq2SeqData,
    SnipsData,
)
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.imdb import load_imdb
from flax_transformer.data.manifests.task import MANIFEST_SCHEMA, load_manifests, score_manifests
from flax_transformer.data.multi30k import load_multi30k
from flax_transformer.data.own import load_classification, load_seq2seq
from flax_transformer.data.scoring import mean, score_translations
from flax_transformer.data.snips import FRAME_SCHEMA, load_snips, score_frames


def load_splits(config: DataConfig, seed: int, classes: Sequence[str] = ()) -> Splits:
    """A dataset in three parts.

    Args:
        classes: those of a run that exists, whose class ids these are. Without them the data decides.

    Raises :class:`UserError` for files that are missing, malformed or empty, for labels that are not among the classes,
    and a hub that cannot be reached.
    """
    match config:
        case ManifestsData():
            return load_manifests(config, seed)
        case ImdbData():
            return load_imdb(config, seed)
        case Multi30kData():
            return load_multi30k(config)
        case SnipsData():
            return load_snips(config, seed)
        case ClassificationData():
            return load_classification(config, seed, classes)
        case Seq2SeqData():
            return load_seq2seq(config, seed)
    assert_never(config)


def score(config: DataConfig, predictions: Sequence[Any], examples: Examples) -> dict[str, float | str]:
    """Predictions in the order of ``examples``, texts or class ids. Rates lie in [0, 1], BLEU and chrF in [0, 100].

    Raises ``ValueError`` where the two differ in number.
    """
    if len(predictions) != len(examples):
        raise ValueError(f"expected a prediction for each of {len(examples)} examples, got {len(predictions)}")
    outcomes = [one == other for one, other in zip(predictions, examples.targets, strict=True)]
    if config.architecture == "classifier":
        return {"accuracy": mean(outcomes)}
    match config:
        case ManifestsData():
            return score_manifests(predictions, examples.targets)
        case SnipsData():
            return score_frames(predictions, examples.targets)
        case Multi30kData():
            return score_translations(predictions, examples.targets)
    return {"exact_match": mean(outcomes), **score_translations(predictions, examples.targets)}


def primary_metric(config: DataConfig) -> str:
    """The key of :func:`score` by which the best checkpoint is kept; higher is better."""
    if config.architecture == "classifier":
        return "accuracy"
    return "bleu" if isinstance(config, Multi30kData) else "exact_match"


def json_schema(config: DataConfig) -> dict[str, Any] | None:
    """Of the targets; None for a task whose targets are not JSON, or not known to be."""
    match config:
        case ManifestsData():
            return MANIFEST_SCHEMA
        case SnipsData():
            return FRAME_SCHEMA
    return None
