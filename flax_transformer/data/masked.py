"""Texts whose tokens are to be masked: of files that hold nothing else, or those of another task."""

from dataclasses import fields, replace

from flax_transformer.config import ClassificationData, ImdbData, MaskedData, OwnFiles
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.imdb import load_imdb
from flax_transformer.data.own import load_classification, load_texts


def load_masked(config: MaskedData, seed: int) -> Splits:
    """Texts without their labels, in the splits of the task that they are of.

    With the seed of a run of that task, the training texts of both are the same, and so are those set aside.

    Raises :class:`UserError` as the loader of the task does.
    """
    match config.of:
        case "texts":
            return load_texts(config, seed)
        case "imdb":
            path = config.path[0] if config.path else None
            return _without_labels(load_imdb(ImdbData(path, config.split), seed))
        case "classification":
            return _without_labels(load_classification(_labelled(config), seed))


def _labelled(config: MaskedData) -> ClassificationData:
    shared = {field.name: getattr(config, field.name) for field in fields(OwnFiles)}
    return ClassificationData(**shared, text_column=config.text_column, label_column=config.label_column)


def _without_labels(splits: Splits) -> Splits:
    train, validation, test = (
        Examples(part.sources, [None] * len(part), part.places)
        for part in (splits.train, splits.validation, splits.test)
    )
    return replace(splits, train=train, validation=validation, test=test, classes=())
