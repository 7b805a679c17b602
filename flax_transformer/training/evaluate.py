"""Predictions for a split and their score: classification by the most probable class, seq2seq by real generation."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import BatchConfig, GenerationConfig, TrainConfig
from flax_transformer.data.batches import ClassifierBatch, Encoded, encode_examples, evaluation_batches
from flax_transformer.data.examples import Examples
from flax_transformer.data.tasks import score
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.generate import Generation, generate
from flax_transformer.losses import classification_loss
from flax_transformer.models import Classifier, Seq2Seq
from flax_transformer.training.step import evaluate_loss

Model = Classifier | Seq2Seq
Predictions = list[str] | list[int]
Scores = dict[str, float | str]
Loss = tuple[Float[Array, ""], Int[Array, ""]]  # its sum, and the number of tokens or rows


class Evaluator:
    """A split, encoded once and evaluated as often as need be.

    Raises:
        UserError: a source is longer than the model can generate from.
    """

    def __init__(self, examples: Examples, tokenizer: Tokenizer, config: TrainConfig) -> None:
        self.examples, self._tokenizer, self._config = examples, tokenizer, config
        self._encoded = encode_examples(examples, tokenizer, config.batch, training=False)

    def evaluate(self, model: Model, check: Callable[[], None] = lambda: None) -> tuple[Predictions, Scores]:
        """Predictions and scores; ``loss`` is the mean per real token or text, without dropout and smoothing.

        Args:
            check: called between batches; what it raises ends the evaluation.
        """
        predictions, loss = predict(model, self._encoded, self._tokenizer, self._config.batch, check)
        return predictions, {**score(self._config.data, predictions, self.examples), "loss": loss}


def predict(
    model: Model,
    encoded: Encoded,
    tokenizer: Tokenizer,
    config: BatchConfig,
    check: Callable[[], None] = lambda: None,
) -> tuple[Predictions, float]:
    """A text or a class id for each example, in order, and the mean loss of the examples' own targets."""
    predictions: list[Any] = [None] * len(encoded)
    losses = []
    for indices, (output, loss) in _one_behind(_outputs(model, encoded, config, check)):
        losses.append(jax.device_get(loss))
        for index, prediction in zip(indices, _read(output, tokenizer), strict=True):
            if index >= 0:  # not filler
                predictions[index] = prediction
    sums, counts = np.sum(losses, axis=0)
    return predictions, float(sums / counts)


def _outputs(
    model: Model, encoded: Encoded, config: BatchConfig, check: Callable[[], None]
) -> Iterator[tuple[Int[np.ndarray, " batch"], tuple[Int[Array, " batch"] | Generation, Loss]]]:
    """What the device makes of each batch: under way, not waited for."""
    for indices, batch in evaluation_batches(encoded, config):
        check()
        if isinstance(model, Classifier):
            assert isinstance(batch, ClassifierBatch)
            yield indices, _classify(model, batch)
        else:
            # The target's begin token is not generated.
            limit = GenerationConfig(max_new_tokens=config.max_target_length - 1)
            output = generate(model, batch.source, batch.source_lengths, limit)
            yield indices, (output, evaluate_loss(model, batch))


@nnx.jit
def _classify(model: Classifier, batch: ClassifierBatch) -> tuple[Int[Array, " batch"], Loss]:
    logits = model(batch.source, batch.source_lengths)
    return jnp.argmax(logits, axis=-1), classification_loss(logits, batch.labels, batch.source_lengths)


def _read(output: Int[Array, " batch"] | Generation, tokenizer: Tokenizer) -> Predictions:
    """Wait for a batch; class ids, or texts without their end token."""
    if not isinstance(output, Generation):
        return np.asarray(output).tolist()
    tokens, lengths, _, stopped = jax.device_get(output)
    return tokenizer.decode([row[:end].tolist() for row, end in zip(tokens, lengths - stopped, strict=True)])


def _one_behind(items: Iterable[Any]) -> Iterator[Any]:
    """The same items, each handed out once the next one is made: the device works while the host reads."""
    previous = None
    for item in items:
        if previous is not None:
            yield previous
        previous = item
    if previous is not None:
        yield previous
