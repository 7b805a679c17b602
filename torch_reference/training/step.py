"""The training step: model -> loss -> gradients -> optimizer, from the same config and batches as the JAX twin's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from flax_transformer.config import TrainConfig
from flax_transformer.data.batches import Batch, ClassifierBatch, MaskedBatch, MultilabelBatch, Seq2SeqBatch
from flax_transformer.data.packing import PackedBatch, PackedClassifierBatch, PackedMaskedBatch, PackedSeq2SeqBatch
from flax_transformer.intermediates import Recorder, recording
from torch_reference.nn.losses import (
    binary_cross_entropy,
    binary_divergence,
    cross_entropy,
    divergence,
    shift_packed_target,
    shift_target,
    weighted_cross_entropy,
)
from torch_reference.nn.masks import padding_mask
from torch_reference.nn.models import Model, create_model
from torch_reference.training.optim import clip_by_global_norm, create_optimizer, schedule

Metrics = dict[str, float]


class Predictions(NamedTuple):
    """What a model says at each row, token or segment of a batch, what is right there, and which of them count."""

    logits: Float[Tensor, "*batch classes"]
    labels: Int[Tensor, "*batch"] | Bool[Tensor, "*batch classes"]
    real: Bool[Tensor, "*batch"]


def batch_loss(
    model: Model,
    batch: Batch,
    label_smoothing: float = 0.0,
    class_weights: Float[Tensor, " classes"] | None = None,
    r_drop: float = 0.0,
) -> tuple[Float[Tensor, ""], Num[Tensor, ""]]:
    """Summed loss of a batch, and the number of tokens, rows or labels that it is over, or the sum of their weights.

    With ``r_drop``, each row is read twice, so that both passes count. Dropout is on in training mode.
    """
    batch = type(batch)(*map(torch.as_tensor, batch))
    if r_drop:
        batch = type(batch)(*(rows.repeat_interleave(2, dim=0) for rows in batch))
    logits, labels, real = _predict(model, batch)
    if isinstance(batch, MultilabelBatch):
        loss_sum, count = binary_cross_entropy(logits, labels, real, label_smoothing, class_weights)
    elif class_weights is None:
        loss_sum, count = cross_entropy(logits, labels, real, label_smoothing)
    else:
        loss_sum, count = weighted_cross_entropy(logits, labels, real, class_weights, label_smoothing)
    if r_drop:
        between = binary_divergence if isinstance(batch, MultilabelBatch) else divergence
        loss_sum = loss_sum + r_drop * between(logits, real)
    return loss_sum, count


def _predict(model: Model, batch: Batch) -> Predictions:
    match batch:
        case ClassifierBatch() | MultilabelBatch():
            logits = model(batch.source, batch.source_lengths)
            return Predictions(logits, batch.labels, batch.source_lengths > 0)
        case MaskedBatch():
            logits = model(batch.source, batch.positions, batch.source_lengths)
            return Predictions(logits, batch.labels, padding_mask(batch.counts, batch.labels.shape[1]))
        case Seq2SeqBatch():
            decoder_input, labels, lengths = shift_target(batch.target, batch.target_lengths)
            logits = model(batch.source, decoder_input, batch.source_lengths, lengths)
            return Predictions(logits, labels, padding_mask(lengths, labels.shape[1]))
        case PackedClassifierBatch():
            segments, count = batch.source_segments, batch.labels.shape[1]
            logits = model(batch.source, source_segments=segments, num_segments=count)
            return Predictions(logits, batch.labels, batch.source_lengths > 0)
        case PackedMaskedBatch():
            logits = model(batch.source, batch.positions, source_segments=batch.source_segments)
            return Predictions(logits, batch.labels, padding_mask(batch.counts, batch.labels.shape[1]))
        case PackedSeq2SeqBatch():
            segments = batch.source_segments
            decoder_input, labels, own, real = shift_packed_target(batch.target, batch.target_segments)
            logits = model(batch.source, decoder_input, source_segments=segments, target_segments=own)
            return Predictions(logits, labels, real)


def count_tokens(batch: Batch) -> int:
    """Real tokens that a step reads, of source and target."""
    if isinstance(batch, PackedBatch):
        targets = batch.target_segments > 0 if isinstance(batch, PackedSeq2SeqBatch) else np.zeros(0)
        return int((batch.source_segments > 0).sum() + targets.sum())
    tokens = int(batch.source_lengths.sum())
    return tokens + int(batch.target_lengths.sum()) if isinstance(batch, Seq2SeqBatch) else tokens


def _split_batch(batch: Batch, parts: int) -> Iterator[Batch]:
    """The rows of a batch in ``parts`` equal parts, in order."""
    rows = len(batch.source) // parts
    for start in range(0, len(batch.source), rows):
        yield type(batch)(*(array[start : start + rows] for array in batch))


class TrainStep:
    """``metrics = step(batch)``; the model and the optimizer are changed in place, as torch has it.

    Args:
        config: the run, with the vocabulary of its tokenizer filled in.
        total_steps: length of the schedule.
        class_weights: of a classifier's classes in the loss, or of the texts that have a label; all alike if not given.
    """

    def __init__(
        self, config: TrainConfig, total_steps: int, class_weights: Float[np.ndarray, " classes"] | None = None
    ) -> None:
        self.config = config
        self._class_weights = None if class_weights is None else torch.as_tensor(class_weights)
        self.model = create_model(config.model, config.seed).train()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not config.freezes(name))
        self.optimizer = create_optimizer(config.optimizer, self.model)
        self.scheduler = schedule(self.optimizer, config.optimizer, total_steps)
        # Of the sum over a batch's tokens, which is that many times as large as their mean.
        self.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**10, growth_interval=2_000, enabled=config.model.dtype == "float16"
        )
        self._names = {id(module): path for path, module in self.model.named_modules()}

    def __call__(self, batch: Batch, keep: Sequence[Mapping[str, Tensor]] | None = None) -> Metrics:
        """One optimizer step.

        Args:
            keep: the dropout masks of each accumulated part, to be used in place of torch's own draws.

        Returns:
            ``loss`` (mean per real token or row), ``tokens``, ``grad_norm`` and ``learning_rate``. Where a gradient of
            float16 is not finite, only the scale of the loss changes.
        """
        loss_sum, count = self._accumulate(batch, keep or [{}] * self.config.gradient_accumulation_steps)
        self.scaler.unscale_(self.optimizer)
        count = torch.where(count > 0, count, 1)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        for gradient in gradients:
            gradient /= count
        metrics = {
            "loss": float(loss_sum / count),
            "tokens": float(count_tokens(batch)),
            "grad_norm": float(torch.nn.utils.get_total_norm(gradients)),
            "learning_rate": float(self.scheduler.get_last_lr()[0]),
        }
        if self.config.optimizer.max_grad_norm:
            clip_by_global_norm(self.model.parameters(), self.config.optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        before = self.scaler.get_scale()
        self.scaler.update()
        if self.scaler.get_scale() >= before:
            self.scheduler.step()
        return metrics

    def _accumulate(self, batch: Batch, keep: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """Summed loss and its count; leaves the gradient of the sum on the parameters: parts add up to the batch."""
        self.optimizer.zero_grad()
        sums, counts = [], []
        for part, masks in zip(_split_batch(batch, self.config.gradient_accumulation_steps), keep, strict=True):
            with recording(Recorder(self._names, masks)):
                loss_sum, count = batch_loss(
                    self.model, part, self.config.label_smoothing, self._class_weights, self.config.r_drop
                )
            self.scaler.scale(loss_sum).backward()
            sums.append(loss_sum.detach())
            counts.append(count)
        return torch.stack(sums).sum(), torch.stack(counts).sum()


@torch.no_grad()
def evaluate_loss(model: Model, batch: Batch) -> tuple[Float[Tensor, ""], Num[Tensor, ""]]:
    """Summed loss without dropout and smoothing, and the number of tokens or rows it is a sum over."""
    return batch_loss(model.eval(), batch)
