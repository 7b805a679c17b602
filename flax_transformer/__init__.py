"""An encoder/decoder Transformer in JAX/Flax NNX, proved equal to its PyTorch twin."""

import os
import typing

if typing.TYPE_CHECKING:
    from flax_transformer.nn.models import Classifier, Seq2Seq


def load(directory: str | os.PathLike[str]) -> "Classifier | Seq2Seq":
    """The Flax model of an export folder (config.json, model.safetensors)."""
    from pathlib import Path

    from flax_transformer.interop.export import load_export  # here, so that importing the package does not load jax

    return load_export(Path(directory))
