"""Predictions for a split and their score: classification and masked tokens by the most probable one, labels by their
thresholds, seq2seq by real generation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import GenerationConfig, TrainConfig
from flax_transformer.data.batches import (
    ClassifierBatch,
    Encoded,
    MaskedBatch,
    MultilabelBatch,
    PaddedBatch,
    evaluation_batches,
)
from flax_transformer.data.copying import CopyRule
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.examples import Examples
from flax_transformer.data.generation import Constraint
from flax_transformer.data.label_scores import as_scores, best_thresholds
from flax_transformer.data.tasks import TASKS, score
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.decoding.labels import decide_labels, logistic
from flax_transformer.decoding.predictor import Output, Prediction, Predictor, one_behind, require_finite
from flax_transformer.errors import UserError
from flax_transformer.nn.losses import binary_cross_entropy, cross_entropy
from flax_transformer.nn.masks import padding_mask
from flax_transformer.nn.models import Classifier, MaskedLM, Model
from flax_transformer.training.step import evaluate_loss

Predictions = list[str] | list[int] | list[tuple[bool, ...]]
Scores = dict[str, float | str]
Loss = tuple[Float[Array, ""], Int[Array, ""]]  # its sum, and the number of tokens, rows or labels
_LARGEST_LOSS = 700.0  # whose exponential is a float64

_cross_entropy = jax.jit(cross_entropy)


class Evaluator:
    """A split, encoded once and evaluated as often as need be.

    Args:
        generation, constraint, copying: how to generate, see :class:`flax_transformer.decoding.predictor.Predictor`.
        classes: the names of labels, by which the scores name their thresholds.

    Attributes:
        encoded: the split as token ids.
        examples: those that are scored; sources that are too long may be left out.
        counts: of texts that are not scored as they are, see :func:`counts_of`.

    Raises:
        UserError: a source is too long and ``config.batch.long`` is ``error``.
    """

    def __init__(
        self,
        examples: Examples,
        tokenizer: Tokenizer,
        config: TrainConfig,
        generation: GenerationConfig | None = None,
        constraint: Constraint | None = None,
        copying: CopyRule | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        self._config, self._classes = config, classes
        self.encoded = encode_examples(examples, tokenizer, config.batch, training=False)
        self.counts, kept = counts_of(self.encoded), self.encoded.kept
        self.examples = examples if kept is None else examples.take(kept.tolist())
        self._predict_with = tokenizer, config.batch, generation, constraint, copying

    def evaluate(
        self, model: Model, check: Callable[[], None] = lambda: None, thresholds: Sequence[float] = ()
    ) -> tuple[Predictions, Scores]:
        """A text, a class id or the truth of each label for each example, in order, and the scores of all; of masked
        tokens only the scores.

        ``loss`` is the mean per real token, text or label of the examples' own targets, without dropout and smoothing.
        Which tokens are masked is the same in every evaluation of the same texts.

        Args:
            check: called between batches; what it raises ends the evaluation.
            thresholds: of labels; where there are none, those that give the highest scores on these examples are taken,
                and stand among the scores.

        Raises:
            UserError: the model cannot generate as it is told to, or its logits are not finite.
        """
        if isinstance(self.encoded.targets, np.ndarray) and self.encoded.targets.ndim == 2:
            return self._evaluate_labels(model, check, thresholds)
        predictions, scores = self.predict(model, check)
        values: list[Any] = [prediction.value for prediction in predictions]
        return values, scores

    def predict(
        self, model: Model, check: Callable[[], None] = lambda: None, top: int = 1
    ) -> tuple[list[Prediction], Scores]:
        """As :meth:`evaluate`, but whole predictions, with their scores and those of other classes. Not of labels.

        Args:
            check: called between batches; what it raises ends the evaluation.
            top: of classification: classes to name, the most probable first.
        """
        if isinstance(model, MaskedLM):
            return [], self._score_masked(model, check)
        predictor = Predictor(model, *self._predict_with, top=top)
        predictions: dict[int, Prediction] = {}
        losses = []
        for indices, output, loss in one_behind(self._outputs(predictor, check)):
            losses.append(jax.device_get(loss))
            predictions |= zip(indices.tolist(), predictor.read(output), strict=True)
        found = [predictions[index] for index in range(len(self.examples))]  # without filler, whose index is -1
        sums, counts = np.sum(losses, axis=0)
        scores = score(self._config.data, [prediction.value for prediction in found], self.examples)
        return found, {**scores, "loss": float(sums / counts)}

    def _score_masked(self, model: MaskedLM, check: Callable[[], None]) -> Scores:
        """Of the most probable token at each masked position; ``perplexity`` is the exponential of the loss."""
        predicted, expected, losses = [], [], []
        for batch, output in one_behind(self._masked_outputs(model, check)):
            tokens, *loss = jax.device_get(output)
            losses.append(loss)
            for row, labels, count in zip(tokens, batch.labels, batch.counts, strict=True):  # filler has none
                predicted.append(row[:count].tolist())
                expected.append(labels[:count].tolist())
        sums, counts = np.sum(losses, axis=0)
        loss = float(sums / counts)
        if not math.isfinite(loss):
            raise UserError("the model's logits are not finite; are its weights?")
        perplexity = math.exp(min(loss, _LARGEST_LOSS))
        return {**TASKS[self._config.data.task].score(predicted, expected), "perplexity": perplexity, "loss": loss}

    def _evaluate_labels(
        self, model: Model, check: Callable[[], None], thresholds: Sequence[float]
    ) -> tuple[list[tuple[bool, ...]], Scores]:
        actual = self.encoded.labels
        probabilities, losses = np.zeros(actual.shape), []
        for indices, output in one_behind(self._label_outputs(model, check)):
            found, *loss = jax.device_get(output)
            losses.append(loss)
            probabilities[indices[indices >= 0]] = found[indices >= 0]  # not filler
        require_finite(probabilities)
        chosen = {} if thresholds else as_scores(thresholds := best_thresholds(probabilities, actual), self._classes)
        predictions = [tuple(row) for row in decide_labels(probabilities, thresholds).tolist()]
        sums, counts = np.sum(losses, axis=0)
        scores = score(self._config.data, predictions, self.examples)
        return predictions, {**scores, "loss": float(sums / counts), **chosen}

    def _label_outputs(
        self, model: Model, check: Callable[[], None]
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Any]]:
        for indices, batch in evaluation_batches(self.encoded, self._config.batch):
            check()
            assert isinstance(model, Classifier)
            yield indices, _tell_labels(model, jax.tree.map(jnp.asarray, batch))

    def _masked_outputs(self, model: MaskedLM, check: Callable[[], None]) -> Iterator[tuple[MaskedBatch, Any]]:
        """Each batch with what the device makes of it."""
        for _, batch in evaluation_batches(self.encoded, self._config.batch):
            check()
            assert isinstance(batch, MaskedBatch)
            yield batch, _predict_tokens(model, jax.tree.map(jnp.asarray, batch))

    def _outputs(
        self, predictor: Predictor, check: Callable[[], None]
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Output, Loss]]:
        """What the device makes of each batch: under way, not waited for."""
        for indices, batch in evaluation_batches(self.encoded, self._config.batch):
            check()
            output = predictor.start(batch.source, batch.source_lengths, indices)
            yield indices, output, _loss(predictor.model, batch, output)


@nnx.jit
def _tell_labels(
    model: Classifier, batch: MultilabelBatch
) -> tuple[Float[Array, "batch classes"], Float[Array, ""], Int[Array, ""]]:
    """The probability of each label; the summed loss, and the number of labels it is a sum over."""
    logits = model(batch.source, batch.source_lengths)
    return logistic(logits), *binary_cross_entropy(logits, batch.labels, batch.source_lengths > 0)


@nnx.jit
def _predict_tokens(
    model: MaskedLM, batch: MaskedBatch
) -> tuple[Int[Array, "batch predicted"], Float[Array, ""], Int[Array, ""]]:
    """The most probable tokens; the summed loss, and the number of tokens it is a sum over."""
    logits = model(batch.source, batch.positions, batch.source_lengths)
    real = padding_mask(batch.counts, batch.labels.shape[1])
    return logits.argmax(axis=-1), *cross_entropy(logits, batch.labels, real)


def _loss(model: Model, batch: PaddedBatch, output: Any) -> Loss:
    if isinstance(batch, ClassifierBatch):  # log-probabilities are logits too, and are there already
        return _cross_entropy(output, batch.labels, batch.source_lengths > 0)
    return evaluate_loss(model, batch)


def counts_of(encoded: Encoded) -> dict[str, int]:
    """How many examples of a split are ``cut`` and ``left_out`` for their length; empty if none are."""
    return {name: n for name, n in (("cut", encoded.truncated), ("left_out", encoded.dropped)) if n}


def format_counts(counts: Mapping[str, int], config: TrainConfig) -> str:
    """:func:`counts_of` for people, with the flags that change them."""
    limits = f"--batch.max-source-length {config.batch.max_source_length}"
    if config.data.architecture == "seq2seq":
        limits += f" or --batch.max-target-length {config.batch.max_target_length}"
    said = {"cut": "are cut", "left_out": "are left out"}
    return f"{' and '.join(f'{n:,} texts {said[name]}' for name, n in counts.items())}, being longer than {limits}"
