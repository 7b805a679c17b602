"""An export in the place of a run: a model with its tokenizer, ready to predict."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax_transformer.config import (
    DATA_CONFIGS,
    OWN_DATA,
    BatchConfig,
    ModelConfig,
    OwnFiles,
    PredictionConfig,
    Seq2SeqData,
    TrainConfig,
    load_config,
)
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.decoding.predictable import (
    Predictable,
    limits_of_model,
    load_classes,
    load_prediction_config,
    load_tokenizer_of,
)
from flax_transformer.formats import require_own_format
from flax_transformer.interop.export import CONFIG_FILE, load_export
from flax_transformer.nn.models import Model


@dataclass(frozen=True)
class Exported(Predictable):
    """An export with its tokenizer, ready to predict."""

    folder: Path
    config: ModelConfig
    limits: PredictionConfig
    tokenizer: Tokenizer
    classes: tuple[str, ...]

    @classmethod
    def load(cls, folder: str | Path) -> "Exported":
        """
        Raises:
            UserError: ``folder`` is no whole export.
        """
        folder = Path(folder)
        require_own_format(folder)
        config = load_config(ModelConfig, folder / CONFIG_FILE)
        limits = load_prediction_config(folder)
        tokenizer = load_tokenizer_of(folder, config, limits)
        return cls(folder, config, limits or limits_of_model(config), tokenizer, load_classes(folder, config, limits))

    @property
    def model_config(self) -> ModelConfig:
        return self.config

    @property
    def prediction_config(self) -> PredictionConfig:
        return self.limits

    @property
    def train_config(self) -> TrainConfig:
        limits = self.limits
        task = limits.task or ("multilabel" if limits.thresholds else OWN_DATA[self.config.architecture].task)
        kind: Any = DATA_CONFIGS[task]
        is_seq2seq = kind is Seq2SeqData
        columns: dict[str, Any] = (
            {"source_column": limits.text_column[0]} if is_seq2seq else {"text_column": limits.text_column}
        )
        data: Any = kind(**columns) if issubclass(kind, OwnFiles) else kind()
        batch = BatchConfig(limits.batch_size, limits.max_source_length, limits.max_new_tokens + 1, limits.long)
        return TrainConfig(data=data, model=self.config, batch=batch)

    def best_model(self) -> Model:
        return load_export(self.folder)
