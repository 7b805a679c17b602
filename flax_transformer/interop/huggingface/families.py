"""The families there are, and which of them a checkpoint belongs to."""

from collections.abc import Collection

from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.encoders import (
    BERT,
    CAMEMBERT,
    DISTILBERT,
    ELECTRA,
    MPNET,
    ROBERTA,
    XLM_ROBERTA,
)
from flax_transformer.interop.huggingface.family import Family, Settings
from flax_transformer.interop.huggingface.seq2seq import BART, MARIAN, MBART, PEGASUS
from flax_transformer.interop.huggingface.t5 import T5

# In the order in which an export tries them.
FAMILIES = {
    family.model_type: family
    for family in (
        *(BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, MPNET),
        *(PEGASUS, MARIAN, BART, MBART, T5),
    )
}
_DISENTANGLED = ("deberta", "deberta-v2")


def family_of(settings: Settings) -> Family:
    """The family that ``config.json`` names.

    Raises:
        UserError: there is no table of it here.
    """
    name, classes = settings["model_type"], _classes(settings)
    if name in FAMILIES:
        return FAMILIES[name]
    known = ", ".join(FAMILIES)
    if name in _DISENTANGLED:
        raise UserError(f"model_type: expected one of {known}, got {name!r}, whose attention is disentangled")
    if any("CausalLM" in one or one.endswith("LMHeadModel") for one in classes):
        raise UserError(
            f"model_type: expected one with an encoder, one of {known}, got {name!r}, which is decoder-only"
        )
    raise UserError(f"model_type: expected one of {known}, got {name!r}")


def check_class(family: Family, settings: Settings) -> None:
    """
    Raises:
        UserError: the checkpoint is one of a class that the family's table does not describe.
    """
    classes = _classes(settings)
    if family.is_encoder:
        if any("CausalLM" in one or one.endswith("LMHeadModel") for one in classes):
            raise UserError(f"architectures: expected an encoder, got {' '.join(classes)}, which is used as a decoder")
    elif classes and not {family.model_class, *family.other_classes} & set(classes):
        raise UserError(f"architectures: expected {family.model_class}, got {' '.join(classes)}")


def has_classes(family: Family, settings: Settings, keys: Collection[str]) -> bool:
    """Whether an encoder has a head for classes of texts; the heads of other tasks are left out."""
    classes = _classes(settings)
    if not classes:
        return family.is_encoder and any(key.startswith("classifier.") for key in keys)
    return any(one.endswith("ForSequenceClassification") for one in classes)


def _classes(settings: Settings) -> list[str]:
    return list(settings.get("architectures") or [])
