"""The input of a comparison: a config, weights and batches, all numpy, all a function of a seed."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int32

from flax_transformer.config import (
    OWN_DATA,
    BatchConfig,
    ModelConfig,
    MultilabelData,
    OptimizerConfig,
    TrainConfig,
)
from flax_transformer.data.batches import ClassifierBatch, MaskedBatch, MultilabelBatch, PaddedBatch, Seq2SeqBatch
from flax_transformer.parity.measure import Arrays
from torch_reference.nn import models


@dataclass(frozen=True)
class Sizes:
    """Of a batch; a row of length 0 and one of length 1 are among the rows."""

    rows: int = 4
    source: int = 11
    target: int = 8


@dataclass(frozen=True, eq=False)
class Case:
    """One comparison.

    Args:
        config: the training run that the case belongs to; its model is compared.
        weights: in PyTorch's names and layouts.
        seed: of the batches.
    """

    config: TrainConfig
    weights: Arrays
    seed: int
    sizes: Sizes = Sizes()

    @property
    def model(self) -> ModelConfig:
        return self.config.model

    @property
    def dtype(self) -> str:
        return self.model.dtype

    @cached_property
    def batch(self) -> Any:
        return self.batch_of_step(0)

    def batch_of_step(self, step: int) -> PaddedBatch:
        """Ragged rows: one full, one of a single token, one that is all padding, the others of any length."""
        rng = np.random.default_rng((self.seed, step))
        rows, config = self.sizes.rows, self.model
        source_lengths = _ragged(rng, rows, self.sizes.source)
        source = _tokens(rng, source_lengths, self.sizes.source, config.source_vocab_size, config.pad_id)
        if config.token_types:
            source = _in_parts(rng, source, source_lengths, config.eos_id)
        if isinstance(self.config.data, MultilabelData):
            return MultilabelBatch(source, source_lengths, rng.random((rows, config.num_classes)) < 0.4)
        if config.architecture == "classifier":
            labels = rng.integers(config.num_classes, size=rows).astype(np.int32)
            return ClassifierBatch(source, source_lengths, labels)
        if config.architecture == "masked":
            return _masked(rng, source, source_lengths, config.source_vocab_size)
        target_lengths = np.where(source_lengths == 0, 0, np.maximum(_ragged(rng, rows, self.sizes.target), 2))
        target_lengths[0] = self.sizes.target
        target_lengths = target_lengths.astype(np.int32)
        target = _tokens(rng, target_lengths, self.sizes.target, config.target_vocab_size, config.pad_id)
        target[target_lengths > 0, 0] = config.bos_id
        target[target_lengths > 0, target_lengths[target_lengths > 0] - 1] = config.eos_id
        return Seq2SeqBatch(source, source_lengths, target, target_lengths)


def make_case(
    model: ModelConfig, seed: int, sizes: Sizes = Sizes(), weights: Arrays | None = None, **training: object
) -> Case:
    """A case with fresh weights, or with given ones. ``training`` are further fields of :class:`TrainConfig`.

    Attention is written out on both sides (``xla``), so that its weights can be compared.
    """
    if model.writes_weights:
        model = dataclasses.replace(model, attention_backend="xla")
    weights = random_weights(model, seed) if weights is None else weights
    longest = max(sizes.source, sizes.target)
    fields: dict = {
        "data": OWN_DATA[model.architecture](),
        "model": dataclasses.replace(model, max_length=max(model.max_length, longest)),
        "batch": BatchConfig(size=sizes.rows, max_source_length=sizes.source, max_target_length=sizes.target),
        "optimizer": OptimizerConfig(schedule="inverse_sqrt", warmup_steps=4),
        "label_smoothing": 0.1,
        **training,
    }
    return Case(TrainConfig(**fields), weights, seed, sizes)


def random_weights(model: ModelConfig, seed: int) -> Arrays:
    """Fresh weights, with biases and norms moved off 0 and 1, where a mistake in them could not show."""
    rng = np.random.default_rng(seed)
    weights = {name: tensor.numpy() for name, tensor in models.create_model(model, seed).state_dict().items()}
    weights = {
        name: weight if weight.ndim > 1 else (weight + 0.1 * rng.standard_normal(weight.shape)).astype(weight.dtype)
        for name, weight in weights.items()
    }
    for name, weight in weights.items():
        if ".up_proj." in name:
            weight[0] = 0  # this hidden unit sits on the kink of a relu, whose slope there is a convention
    return weights


def _ragged(rng: np.random.Generator, rows: int, longest: int) -> Int32[np.ndarray, " rows"]:
    lengths = rng.integers(1, longest + 1, size=rows)
    lengths[:3] = np.array([longest, 1, 0])[:rows]
    return lengths.astype(np.int32)


def _tokens(
    rng: np.random.Generator, lengths: np.ndarray, width: int, vocabulary: int, pad_id: int
) -> Int32[np.ndarray, "rows width"]:
    tokens = rng.integers(3, vocabulary, size=(len(lengths), width)).astype(np.int32)
    return np.where(np.arange(width) < lengths[:, None], tokens, np.int32(pad_id))


def _masked(rng: np.random.Generator, source: np.ndarray, lengths: np.ndarray, vocabulary: int) -> MaskedBatch:
    """Half of the tokens of each row are to be predicted; what is read in their place does not matter here."""
    counts = (lengths + 1) // 2
    positions = np.stack(
        [np.pad(rng.permutation(n)[:k], (0, counts.max() - k)) for n, k in zip(lengths, counts, strict=True)]
    )
    labels = rng.integers(vocabulary, size=positions.shape)
    return MaskedBatch(source, lengths, positions.astype(np.int32), labels.astype(np.int32), counts.astype(np.int32))


def _in_parts(
    rng: np.random.Generator, tokens: np.ndarray, lengths: np.ndarray, separator: int
) -> Int32[np.ndarray, "rows width"]:
    """With a separator somewhere in each row, as between a pair of texts."""
    tokens = tokens.copy()
    real = np.flatnonzero(lengths)
    tokens[real, rng.integers(lengths[real])] = separator
    return tokens


def take_rows(batch: PaddedBatch, rows: np.ndarray) -> PaddedBatch:
    return type(batch)(*(array[rows] for array in batch))
