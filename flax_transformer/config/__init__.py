"""What a run is: one frozen dataclass per subject, checked when it is made. Standard library only.

Every field carries a comment, which is also its ``--help`` text. A wrong value fails at construction with a
:class:`~flax_transformer.errors.UserError` that names the field, what was expected and what came.
"""

from flax_transformer.config.data import (
    DATA_CONFIGS,
    OWN_DATA,
    ClassificationData,
    DataConfig,
    ImdbData,
    ManifestsData,
    MaskedData,
    Multi30kData,
    MultilabelData,
    OwnData,
    OwnFiles,
    Seq2SeqData,
    SnipsData,
    TokenizerConfig,
)
from flax_transformer.config.generation import GenerationConfig, LengthPenalty, Long, PredictionConfig, Strategy
from flax_transformer.config.json_files import from_dict, load_config, load_json, save_config, to_dict
from flax_transformer.config.model import (
    Activation,
    Architecture,
    AttentionBackend,
    FloatDtype,
    HeadHidden,
    Initialization,
    Mixer,
    ModelConfig,
    Norm,
    Pooling,
    Positions,
    Remat,
    SharedTables,
)
from flax_transformer.config.training import BatchConfig, MeshConfig, OptimizerConfig, TrainConfig

__all__ = [
    "DATA_CONFIGS",
    "OWN_DATA",
    "Activation",
    "Architecture",
    "AttentionBackend",
    "BatchConfig",
    "ClassificationData",
    "DataConfig",
    "FloatDtype",
    "GenerationConfig",
    "HeadHidden",
    "ImdbData",
    "Initialization",
    "LengthPenalty",
    "Long",
    "ManifestsData",
    "MaskedData",
    "MeshConfig",
    "Mixer",
    "ModelConfig",
    "Multi30kData",
    "MultilabelData",
    "Norm",
    "OptimizerConfig",
    "OwnData",
    "OwnFiles",
    "Pooling",
    "Positions",
    "PredictionConfig",
    "Remat",
    "Seq2SeqData",
    "SharedTables",
    "SnipsData",
    "Strategy",
    "TokenizerConfig",
    "TrainConfig",
    "from_dict",
    "load_config",
    "load_json",
    "save_config",
    "to_dict",
]
