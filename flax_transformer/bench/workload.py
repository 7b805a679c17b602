"""What is timed: one of the preset sizes, at a batch, a length, a dtype and a dropout rate, and the batches of it."""

from dataclasses import replace
from typing import Literal

import numpy as np

from flax_transformer import presets
from flax_transformer.config import FloatDtype, ModelConfig, TrainConfig
from flax_transformer.data.batches import ClassifierBatch, PaddedBatch, Seq2SeqBatch
from flax_transformer.errors import UserError

Preset = Literal["tiny", "assignment", "base", "large"]

# Preset -> its model, and the rows and the length that a CPU can serve in seconds (large: a GPU).
SIZES: dict[Preset, tuple[ModelConfig, int, int]] = {
    "tiny": (presets.SIZES["tiny"], 16, 256),
    "assignment": (presets.SIZES["assignment"], 8, 128),
    "base": (presets.SIZES["base"], 8, 128),
    "large": (presets.SIZES["large"], 32, 512),
}


def make_config(
    preset: Preset,
    *,
    dtype: FloatDtype = "float32",
    batch: int | None = None,
    length: int | None = None,
    dropout: float = 0.1,
) -> TrainConfig:
    """The training run that is timed: AdamW with clipping, on sources (and targets) of ``length`` tokens.

    ``dropout`` acts wherever torch.nn's layers have it, on attention weights too.

    Raises:
        UserError: a value is out of its range.
    """
    model, default_batch, default_length = SIZES[preset]
    batch, length = default_batch if batch is None else batch, default_length if length is None else length
    model = replace(model, dtype=dtype, dropout=dropout, attention_dropout=dropout)
    return presets.full_rows(model, batch, length)


def make_batches(config: TrainConfig, count: int) -> list[PaddedBatch]:
    """Batches of random tokens without padding, the same for each candidate."""
    rng = np.random.default_rng(config.seed)
    return [_random_batch(rng, config) for _ in range(count)]


def _random_batch(rng: np.random.Generator, config: TrainConfig) -> PaddedBatch:
    model, sizes = config.model, config.batch
    rows = sizes.size

    def tokens(vocabulary: int, width: int) -> np.ndarray:
        return rng.integers(3, vocabulary, (rows, width)).astype(np.int32)

    source = tokens(model.source_vocab_size, sizes.max_source_length)
    source_lengths = np.full(rows, sizes.max_source_length, np.int32)
    if model.architecture == "classifier":
        return ClassifierBatch(source, source_lengths, rng.integers(model.num_classes, size=rows).astype(np.int32))
    target = tokens(model.target_vocab_size, sizes.max_target_length)
    target[:, 0] = model.bos_id
    return Seq2SeqBatch(source, source_lengths, target, np.full(rows, sizes.max_target_length, np.int32))


def require_device(preset: Preset, on_gpu: bool) -> None:
    """
    Raises:
        UserError: the preset is too large for the machine.
    """
    if preset == "large" and not on_gpu:
        raise UserError("--preset large: needs a GPU; on a CPU take base, or less")
