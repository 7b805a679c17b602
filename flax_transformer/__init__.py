"""An encoder/decoder Transformer in JAX/Flax NNX, proved equal to its PyTorch twin.

The names below are the public API. They are loaded when they are first used: importing the package loads no framework.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_transformer import doctor
    from flax_transformer.api import load, train
    from flax_transformer.config import GenerationConfig, ModelConfig, OptimizerConfig, TrainConfig
    from flax_transformer.decoding.generate import generate
    from flax_transformer.decoding.predictor import Prediction
    from flax_transformer.errors import UserError
    from flax_transformer.interop.state_dict import to_torch_state_dict
    from flax_transformer.nn.models import Classifier, MaskedLM, Seq2Seq, create_model

# Public name -> its module.
_MODULES = {
    # configs
    "ModelConfig": "config",
    "TrainConfig": "config",
    "GenerationConfig": "config",
    "OptimizerConfig": "config",
    # models
    "Seq2Seq": "nn.models",
    "Classifier": "nn.models",
    "MaskedLM": "nn.models",
    "create_model": "nn.models",
    # training and use
    "train": "api",
    "load": "api",
    "generate": "decoding.generate",
    "Prediction": "decoding.predictor",
    "to_torch_state_dict": "interop.state_dict",
    # errors that the caller can fix
    "UserError": "errors",
}
__all__ = [
    "Classifier",
    "GenerationConfig",
    "MaskedLM",
    "ModelConfig",
    "OptimizerConfig",
    "Prediction",
    "Seq2Seq",
    "TrainConfig",
    "UserError",
    "create_model",
    "doctor",
    "generate",
    "load",
    "to_torch_state_dict",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "doctor":
        return importlib.import_module("flax_transformer.doctor")
    if name not in _MODULES:
        raise AttributeError(f"module 'flax_transformer' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"flax_transformer.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("flax_transformer"):
            raise
        install = "pip install 'flax-transformer[train]'"
        raise ImportError(f"flax_transformer.{name} needs {error.name}, which is an extra: {install}") from error


def __dir__() -> list[str]:
    return __all__
