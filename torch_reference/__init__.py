"""The PyTorch twin of flax_transformer: what it is proved against, and what a PyTorch shop deploys."""

import os
from pathlib import Path

from torch_reference.decoding.generate import generate, read_tokens
from torch_reference.decoding.labels import decide_labels, label_probabilities
from torch_reference.interop.export import load_export
from torch_reference.nn.models import Classifier, MaskedLM, Model, Seq2Seq

__all__ = [
    "Classifier",
    "MaskedLM",
    "Seq2Seq",
    "decide_labels",
    "generate",
    "label_probabilities",
    "load",
    "read_tokens",
]


def load(directory: str | os.PathLike[str]) -> Model:
    """The PyTorch model of an export folder (config.json, model.safetensors), in evaluation mode."""
    return load_export(Path(directory))
