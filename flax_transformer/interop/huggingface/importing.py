"""A checkpoint of transformers -> config, weights, tokenizer and names of classes of ours."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flax_transformer.config import ModelConfig
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.checkpoint import Checkpoint, read_checkpoint, sha256
from flax_transformer.interop.huggingface.families import check_class, family_of, has_classes
from flax_transformer.interop.huggingface.family import MULTILABEL, Family, Settings, Weights
from flax_transformer.interop.huggingface.generation import forced_begin, generation_settings, read_generation
from flax_transformer.interop.huggingface.tokenizer import TOKENIZER_FILE, longest_text, read_tokenizer
from flax_transformer.interop.huggingface.weights import to_ours
from flax_transformer.interop.table_rows import rows_without_token


@dataclass(frozen=True)
class Imported:
    """A checkpoint in the terms of this project.

    Attributes:
        weights: in PyTorch's names and layouts, float32.
        tokenizer: None if it was left out.
        classes: names of the class ids; empty for seq2seq and for an encoder without a head.
        has_labels: whether a text has any number of the classes, each decided by itself.
        longest: tokens of the longest text, special ones included.
        generation: fields of GenerationConfig that the checkpoint generates with.
        record: where it comes from: for ``source.json``.
    """

    config: ModelConfig
    weights: Weights
    tokenizer: Tokenizer | None
    classes: tuple[str, ...]
    has_labels: bool
    longest: int
    generation: dict[str, Any]
    record: dict[str, Any]


def read_model(checkpoint: Checkpoint) -> tuple[Family, ModelConfig, Weights, list[str]]:
    """Family, config, weights and the ignored keys of a checkpoint.

    Raises:
        UserError: it is of a family, or has settings or tensors, that are not known here.
    """
    family = family_of(checkpoint.settings)
    check_class(family, checkpoint.settings)
    settings = family.clarify(checkpoint.settings, checkpoint.weights)
    config = family.read(settings, **_head(family, settings, checkpoint.weights))
    weights, ignored = to_ours(family, config, checkpoint.weights)
    return family, config, weights, ignored


def import_checkpoint(folder: Path, *, bare: bool = False) -> Imported:
    """Read a checkpoint folder.

    Args:
        bare: leave the tokenizer out.

    Raises:
        UserError: it is no checkpoint, not whole, or one that has no place here.
    """
    try:
        checkpoint = read_checkpoint(folder)
        family, config, weights, ignored = read_model(checkpoint)
        generation = generation_settings(checkpoint.settings, checkpoint.generation)
        fields, left = read_generation(generation) if not family.is_encoder else ({}, {})
        tokenizer = None if bare else read_tokenizer(folder, config, forced_begin(generation))
    except UserError as error:
        named = str(error) if str(error).startswith(str(folder)) else f"{folder}: {error}"
        raise UserError(named) from error
    if tokenizer is not None:
        config = _with_ids(config, tokenizer)
    if left.get("suppress_tokens") == list(rows_without_token(config, tokenizer)):
        del left["suppress_tokens"]  # predictions leave these out by themselves
    record = {
        "model_type": family.model_type,
        "architectures": checkpoint.settings.get("architectures"),
        "files": checkpoint.files | ({} if bare else {TOKENIZER_FILE: sha256(folder / TOKENIZER_FILE)}),
        "stored_in": checkpoint.dtypes,
        "ignored_tensors": ignored,
        "head_hidden": _own_head_hidden(family),
        "generation": fields,
        "generation_not_carried": left,
    }
    has_classes = config.architecture == "classifier" and config.num_classes > 0
    classes = _classes(checkpoint.settings) if has_classes else ()
    has_labels = has_classes and checkpoint.settings.get("problem_type") == MULTILABEL
    return Imported(config, weights, tokenizer, classes, has_labels, longest_text(folder, config), fields, record)


def _head(family: Family, settings: Settings, weights: Weights) -> dict[str, Any]:
    """The fields of an encoder's config that say which layers follow the pooling."""
    if not family.is_encoder:
        return {}
    if has_classes(family, settings, weights):
        return {"num_classes": len(_classes(settings))}
    # Only BERT's own classes read its pooler; those of the others train a new layer.
    rules = (rule.ours for rule in family.keys.rules if not rule.theirs.startswith("/"))
    has_pooler = "hidden.{p}" in rules and any(key.endswith("pooler.dense.weight") for key in weights)
    return {"num_classes": 0} | ({} if has_pooler else {"head_hidden": "none"})


def _own_head_hidden(family: Family) -> str | None:
    """What ModelConfig.head_hidden is in the family's classifiers; None of generators."""
    return next((entry.read({}) for entry in family.fields if entry.ours == "head_hidden"), None)


def _classes(settings: Settings) -> tuple[str, ...]:
    """The names of the classes, in the order of their ids.

    Raises:
        UserError: there are none, as where the model predicts numbers.
    """
    names = settings.get("id2label") or {str(i): f"LABEL_{i}" for i in range(settings.get("num_labels") or 2)}
    kind = settings.get("problem_type")
    if kind != MULTILABEL and (kind not in (None, "single_label_classification") or len(names) < 2):
        raise UserError(
            "problem_type: expected at least two classes of which a text has one, or labels of which it has any number "
            f"({MULTILABEL}), got {kind!r} with {len(names)}"
        )
    try:
        by_id = {int(number): str(name) for number, name in names.items()}
        ordered = tuple(by_id[number] for number in range(len(names)))
    except (ValueError, KeyError) as error:
        got = ", ".join(names)[:80]
        raise UserError(f"id2label: expected the ids from 0 to {len(names) - 1} as keys, got {got}") from error
    if len(set(ordered)) != len(ordered):
        raise UserError(f"id2label: expected different names, got {', '.join(ordered)[:200]}")
    return ordered


def _with_ids(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The config with the ids that the tokenizer frames texts with."""
    return replace(config, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
