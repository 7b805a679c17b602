"""A model of ours -> a folder that transformers reads: ``AutoModel...``, ``AutoTokenizer`` and ``pipeline``."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from flax_transformer.config import ModelConfig, PredictionConfig
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.checkpoint import CONFIG_FILE, GENERATION_FILE, WEIGHTS_FILE
from flax_transformer.interop.huggingface.families import FAMILIES
from flax_transformer.interop.huggingface.family import MULTILABEL, Family, Settings, Weights
from flax_transformer.interop.huggingface.flags import spelled
from flax_transformer.interop.huggingface.generation import write_generation
from flax_transformer.interop.huggingface.own import in_their_terms
from flax_transformer.interop.huggingface.tokenizer import SETTINGS_FILE, TOKENIZER_FILE, tokenizer_settings
from flax_transformer.interop.huggingface.weights import to_theirs
from flax_transformer.outputs import whole_folder

# A value to train with that comes out as another one.
_TRAINED_AS = {("positions", "sinusoidal_halves"): "sinusoidal"}


def write_model(
    config: ModelConfig, weights: Weights, classes: Sequence[str] = (), model_type: str | None = None
) -> tuple[Family, Settings, Weights]:
    """The family, ``config.json`` and tensors of a model of ours.

    Args:
        weights: in PyTorch's names and layouts.
        classes: the names of the class ids, in order.
        model_type: the family to write, where several have such models; of an imported model its own.

    Raises:
        UserError: transformers has no class for such a model; the message says what to train with instead.
    """
    config, weights = in_their_terms(config, weights)
    family = _choose(config, model_type)
    if config.architecture == "seq2seq" and not config.logits_bias and _has_constant_bias(family):
        config = replace(config, logits_bias=True)
        zeros = np.zeros(config.target_vocab_size, weights["source_table.weight"].dtype)
        weights = weights | {"logits_bias": zeros}
    settings = family.write(config)
    headed = family.has_head(config)
    settings["architectures"] = [family.model_class if headed else family.bare_class]
    settings["dtype"] = str(weights["source_table.weight"].dtype)
    if family.is_encoder and headed:
        names = classes or [f"LABEL_{i}" for i in range(config.num_classes)]
        settings["id2label"] = {str(i): name for i, name in enumerate(names)}
        settings["label2id"] = {name: i for i, name in enumerate(names)}
    return family, settings, to_theirs(family, config, weights)


def save_huggingface(
    directory: Path,
    config: ModelConfig,
    weights: Weights,
    tokenizer: Tokenizer | None,
    classes: Sequence[str],
    prediction: PredictionConfig,
    model_type: str | None = None,
) -> str:
    """Write a folder that transformers reads; it is there only once it is whole.

    Args:
        directory: must not exist, or be empty.
        weights: in PyTorch's names and layouts.
        prediction: the limits that predictions follow.

    Returns:
        The class of transformers that reads it.

    Raises:
        UserError: as :func:`write_model`, and where the folder cannot be written.
    """
    family, settings, tensors = write_model(config, weights, classes, model_type)
    if prediction.thresholds:
        settings["problem_type"] = MULTILABEL
    with whole_folder(directory) as folder:
        _write_json(folder / CONFIG_FILE, settings)
        # The mark by which transformers knows a file whose tensors lie as PyTorch has them.
        safetensors.numpy.save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        if not family.is_encoder:
            _write_json(folder / GENERATION_FILE, write_generation(config, tokenizer, prediction.max_new_tokens))
        if tokenizer is not None:
            (folder / TOKENIZER_FILE).write_text(tokenizer.to_json(), encoding="utf-8")
            longest = prediction.max_source_length
            described = tokenizer_settings(tokenizer, longest, reads_types=family.reads_types)
            _write_json(folder / SETTINGS_FILE, described)
    return settings["architectures"][0]


def _choose(config: ModelConfig, model_type: str | None) -> Family:
    """The family of a model of ours.

    Raises:
        UserError: there is none; names what differs from the one that is the nearest.
    """
    of_its_kind = [family for family in FAMILIES.values() if family.is_encoder == (config.architecture == "classifier")]
    differences = {family.model_type: _differences(family, config) for family in of_its_kind}
    fitting = [name for name, found in differences.items() if not found]
    if fitting:
        return FAMILIES[model_type if model_type in fitting else fitting[0]]
    nearest = min(differences, key=lambda name: len(differences[name]))
    found = differences[nearest]
    advised = {name: _TRAINED_AS.get((name, value), value) for name, value in found.items()}
    flags = " ".join(spelled(name, value, "model.") for name, value in advised.items())
    got = ", ".join(f"{name}={getattr(config, name)!r}" for name in found)
    raise UserError(
        f"expected a model that transformers has a class for, got {got}; the nearest is "
        f"{FAMILIES[nearest].model_class}: train with {flags}"
    )


def _differences(family: Family, config: ModelConfig) -> dict[str, Any]:
    """As :meth:`Family.differences`, but a constant of zeros on the logits can be written where there is none."""
    found = family.differences(config)
    if not config.logits_bias and found.get("logits_bias"):
        del found["logits_bias"]
    return found


def _has_constant_bias(family: Family) -> bool:
    return any(rule.ours == "logits_bias" for rule in family.keys.rules)


def _write_json(path: Path, values: Settings) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
