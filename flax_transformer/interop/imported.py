"""Between export folders and checkpoints of transformers: an imported one as an export, a trained model as theirs."""

import json
from dataclasses import replace
from pathlib import Path

import safetensors.numpy

from flax_transformer.config import PredictionConfig, load_json, save_config
from flax_transformer.data.label_scores import DEFAULT_THRESHOLD
from flax_transformer.decoding.predictable import CLASSES_FILE, Predictable, limits_of_model, save_prediction_files
from flax_transformer.errors import UserError
from flax_transformer.interop.export import CONFIG_FILE, WEIGHTS_FILE
from flax_transformer.interop.huggingface.exporting import save_huggingface
from flax_transformer.interop.huggingface.importing import Imported
from flax_transformer.interop.source import SOURCE_FILE
from flax_transformer.interop.state_dict import get_weights, to_torch
from flax_transformer.outputs import whole_folder


def save_imported(directory: Path, imported: Imported, origin: str, revision: str | None = None) -> None:
    """Write an export, which both twins load. It is there only once it is whole.

    Args:
        directory: must not exist, or be empty.
        imported: from :func:`flax_transformer.interop.huggingface.importing.import_checkpoint`.
        origin: the folder or the name on the hub, for the record.
        revision: the commit on the hub, for the record.

    Raises:
        UserError: the folder is not empty, or cannot be written.
    """
    with whole_folder(directory) as folder:
        save_config(imported.config, folder / CONFIG_FILE)
        safetensors.numpy.save_file(imported.weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        if imported.tokenizer is not None:
            if imported.config.num_classes == 0:
                (folder / CLASSES_FILE).write_text("[]\n", encoding="utf-8")
            save_prediction_files(folder, imported.tokenizer, imported.classes, _limits(imported))
        record = {"origin": origin, "revision": revision, **imported.record}
        text = json.dumps(record, ensure_ascii=False, indent=2) + "\n"
        (folder / SOURCE_FILE).write_text(text, encoding="utf-8")


def export_huggingface(trained: Predictable, directory: Path) -> str:
    """Write the best weights of a run, or those of an export, for transformers.

    Args:
        directory: must not exist, or be empty.

    Returns:
        The class of transformers that reads them.

    Raises:
        UserError: transformers has no class for the model, or the folder cannot be written.
    """
    return save_huggingface(
        directory,
        trained.model_config,
        to_torch(get_weights(trained.best_model())),
        trained.tokenizer,
        trained.classes,
        trained.prediction_config,
        model_type_of(trained.folder),
    )


def model_type_of(folder: Path) -> str | None:
    """The model type of transformers that an export or a run was imported from, or None.

    Raises:
        UserError: the record of the import is damaged.
    """
    path = folder / SOURCE_FILE
    record = load_json(path, "the record of an import") if path.is_file() else {}
    if not isinstance(record, dict):
        raise UserError(f"{path}: expected the record of an import, got {type(record).__name__}; import again")
    return record.get("model_type")


def _limits(imported: Imported) -> PredictionConfig:
    limits = limits_of_model(imported.config)
    most = min(imported.generation.get("max_new_tokens", limits.max_new_tokens), limits.max_new_tokens)
    thresholds = (DEFAULT_THRESHOLD,) * len(imported.classes) if imported.has_labels else ()
    return replace(limits, max_source_length=imported.longest, max_new_tokens=most, thresholds=thresholds)
