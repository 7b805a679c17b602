"""Predictions for any number of texts, sorted by length on their way through the model and given back in order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import BatchConfig, GenerationConfig, Pooling
from flax_transformer.data.batches import Sequences
from flax_transformer.data.copying import CopyRule
from flax_transformer.data.generation import Constraint, check_settings, padded_width
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.decoding.confidence import token_log_probabilities
from flax_transformer.decoding.embedding import embed
from flax_transformer.decoding.generate import Generation, generate, read_tokens
from flax_transformer.decoding.labels import decide_labels, label_probabilities
from flax_transformer.errors import UserError
from flax_transformer.nn.models import Classifier, MaskedLM, Model, Seq2Seq

# Batches whose texts are sorted together: enough that those of a batch are of like length, little to lose when stopped.
_BATCHES_AT_ONCE = 16


class Scored(NamedTuple):
    """Outputs, and the log-probability of each token of the best ones."""

    generation: Generation
    token_scores: Float[Array, "batch tokens"]


# What the device makes of a batch: texts, or the log-probability of each class, or the probability of each label, or
# vectors.
Output = Generation | Scored | Float[Array, "batch width"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Prediction:
    """What is said of one text."""

    # a generated text, or a class, or all labels, the most probable first; None where there can be no prediction
    value: str | int | tuple[str | int, ...] | None
    # log-probability of the text, of beam search divided by the length penalty; or probability of the class, or that
    # the labels are these and no others; NaN where there can be no prediction
    score: float
    # of generated texts: False where the limit cut it off
    complete: bool = True
    # the next best: of beam search with n_best > 1, of classification with top > 1 (of labels those below their
    # thresholds, each by itself)
    alternatives: tuple["Prediction", ...] = ()
    # whether the model read only the beginning of the text
    cut: bool = False
    # why there is no prediction
    error: str = ""
    # of generated texts, where asked for: the bytes that each token adds, and its log-probability
    pieces: tuple[tuple[bytes, float], ...] = ()
    # the text as a vector of length 1, where that is asked for in place of a value
    embedding: tuple[float, ...] = ()
    # of labels: the probability of each in ``value``
    label_scores: tuple[float, ...] = ()

    @property
    def class_id(self) -> int:
        """The predicted class, before it is given its name."""
        assert isinstance(self.value, int)
        return self.value


class Predictor:
    """A model ready to predict.

    Args:
        config: gives the rows of a batch.
        generation: how to generate; ``config.max_new_tokens`` tokens greedily if not given.
        constraint: what generated texts may look like.
        copying: which of their values only quote the source.
        top: of classification: classes to name, the most probable first.
        thresholds: where a text may have several labels, the probability from which on it has one, for each in order.
        with_pieces: of generated texts, also give the probability of each token.
        embed_by: give each text as a vector, pooled in this way, in place of a value.

    Raises:
        UserError: the model cannot generate as it is told to; or the tokens of ``with_pieces`` have no bytes.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        config: BatchConfig,
        generation: GenerationConfig | None = None,
        constraint: Constraint | None = None,
        copying: CopyRule | None = None,
        top: int = 1,
        with_pieces: bool = False,
        embed_by: Pooling | None = None,
        thresholds: Sequence[float] = (),
    ) -> None:
        self._top, self._copying, self._thresholds = top, copying, thresholds
        self._embed_by: Pooling | None = embed_by
        self._bytes = tokenizer.token_bytes() if with_pieces else {}
        self.model, self._tokenizer, self._size, self._constraint = model, tokenizer, config.size, constraint
        self._generation = generation or GenerationConfig(config.max_new_tokens)
        if tokenizer.entries < model.config.target_vocab_size:  # the other rows of the table stand for no text
            self._generation = replace(self._generation, num_tokens=tokenizer.entries)
        if embed_by is None and isinstance(model, Classifier) and model.head is None:
            raise UserError(
                "expected a model with a head for classes, got a bare encoder; ask for its vectors: --embed mean"
            )
        if embed_by is None and isinstance(model, MaskedLM):
            raise UserError(
                "expected a model of classes or texts, got one that predicts masked tokens; ask for its vectors: "
                "--embed mean, or start another task from it: train classification --pretrained FOLDER"
            )
        if embed_by is None and isinstance(model, Seq2Seq):
            check_settings(model.config, self._generation, constraint)

    def predict(
        self, sources: Sequences, first: int = 0, on_progress: Callable[[int], None] = lambda count: None
    ) -> Iterator[Prediction]:
        """A prediction for each source from number ``first`` on, in order, as soon as those of its window are made.

        They are those of a call with ``first=0``: what a source is drawn by, and batched with, follows from its number.

        Args:
            on_progress: told the number of new predictions of each batch that is done.

        Raises:
            UserError: the model's logits are not finite.
        """
        count = len(sources.lengths)
        window = _BATCHES_AT_ONCE * self._size
        for start in range(first - first % window, count, window):
            found: dict[int, Prediction] = {}
            for predictions in self._predict_window(sources, np.arange(start, min(start + window, count))):
                found |= predictions
                on_progress(sum(index >= first for index in predictions))
            yield from (found[index] for index in range(max(first, start), start + len(found)))

    def _predict_window(
        self, sources: Sequences, window: Int[np.ndarray, " window"]
    ) -> Iterator[dict[int, Prediction]]:
        """Predictions by number, a batch at a time, short sources first."""
        by_length = window[np.argsort(sources.lengths[window], kind="stable")]
        # A few texts do not fill a batch; powers of two keep the shapes few.
        size = min(self._size, 1 << (len(window) - 1).bit_length())
        batches = (by_length[start : start + size] for start in range(0, len(window), size))
        for indices, output in one_behind((indices, self._start_rows(sources, indices, size)) for indices in batches):
            yield dict(zip(indices.tolist(), self.read(output), strict=False))  # filler is left over

    def _start_rows(self, sources: Sequences, indices: Int[np.ndarray, " rows"], size: int) -> Output:
        """The last batch is filled up, so that it is no shape of its own."""
        rows = np.pad(indices, (0, size - len(indices)), constant_values=-1)
        width = padded_width(int(sources.lengths[indices].max()), self.model.config.max_length)
        return self.start(*sources.padded(rows, width, self.model.config.pad_id), rows)

    def start(
        self,
        source: Int[np.ndarray, "batch source"],
        source_lengths: Int[np.ndarray, " batch"],
        numbers: Int[np.ndarray, " batch"],
    ) -> Output:
        """A batch on its way: dispatched, not waited for. ``numbers`` of the texts are what their draws follow from."""
        if self._embed_by:
            return embed(self.model, jnp.asarray(source), jnp.asarray(source_lengths), self._embed_by)
        if isinstance(self.model, Classifier):
            classify = label_probabilities if self._thresholds else _classify
            return classify(self.model, jnp.asarray(source), jnp.asarray(source_lengths))
        assert isinstance(self.model, Seq2Seq)
        seeds = np.maximum(numbers, 0).tolist()  # filler has none
        output = generate(
            self.model,
            source,
            source_lengths,
            self._generation,
            constraint=self._constraint,
            copying=self._copying and self._copying.of(source, source_lengths),
            row_seeds=seeds,
        )
        return self._with_token_scores(output, source, source_lengths) if self._bytes else output

    def _with_token_scores(
        self, output: Generation, source: Int[np.ndarray, "batch source"], source_lengths: Int[np.ndarray, " batch"]
    ) -> "Scored":
        """Of the best output of each source."""
        best = jax.tree.map(lambda rows: rows[:: self._generation.n_best], output)
        assert isinstance(self.model, Seq2Seq)
        scores = token_log_probabilities(
            self.model, jnp.asarray(source), jnp.asarray(source_lengths), best.tokens, best.lengths
        )
        return Scored(output, scores)

    def read(self, output: Output) -> list[Prediction]:
        """Wait for a batch; one prediction for each row, filler too.

        Raises:
            UserError: the model's logits are not finite.
        """
        if self._embed_by:
            return [Prediction(None, np.nan, embedding=tuple(row)) for row in np.asarray(output).tolist()]
        if isinstance(output, Scored):
            return self._read_pieces(output)
        if isinstance(output, Generation):
            return self._read_texts(output)
        if self._thresholds:
            return _read_labels(np.asarray(output), self._thresholds, self._top)
        return _read_classes(output, self._top)

    def _read_pieces(self, output: "Scored") -> list[Prediction]:
        """Texts with their pieces; tokens that add nothing, such as the end token, have none."""
        rows = read_tokens(output.generation)[:: self._generation.n_best]
        scores = np.asarray(output.token_scores).tolist()
        pieces = [
            tuple((self._bytes.get(token, b""), score) for token, score in zip(row, given, strict=False))
            for row, given in zip(rows, scores, strict=True)
        ]
        return [replace(one, pieces=of) for one, of in zip(self._read_texts(output.generation), pieces, strict=True)]

    def _read_texts(self, output: Generation) -> list[Prediction]:
        texts = self._tokenizer.decode(read_tokens(output))
        scores, complete = np.asarray(output.scores).tolist(), np.asarray(output.stopped_by_eos).tolist()
        each = [Prediction(*fields) for fields in zip(texts, scores, complete, strict=True)]
        n_best = self._generation.n_best
        groups = (each[start : start + n_best] for start in range(0, len(each), n_best))
        # Where the search found fewer than n_best outputs, the rest have a score of -inf.
        return [
            replace(best, alternatives=tuple(other for other in others if (other.score or 0.0) > -np.inf))
            for best, *others in groups
        ]


@nnx.jit
def _classify(
    model: Classifier, source: Int[Array, "batch source"], source_lengths: Int[Array, " batch"]
) -> Float[Array, "batch classes"]:
    logits = model(source, source_lengths)
    return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


def _read_classes(log_probabilities: Float[Array, "batch classes"], top: int) -> list[Prediction]:
    probabilities = np.exp(np.asarray(log_probabilities))
    require_finite(probabilities)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]  # of equal ones the first, as argmax has it
    predictions = []
    for row, classes in zip(probabilities, order, strict=True):
        best, *others = (Prediction(int(number), float(row[number])) for number in classes)
        predictions.append(replace(best, alternatives=tuple(others)))
    return predictions


def _read_labels(
    probabilities: Float[np.ndarray, "batch classes"], thresholds: Sequence[float], top: int
) -> list[Prediction]:
    require_finite(probabilities)
    decided = decide_labels(probabilities, thresholds)
    of_decisions = np.where(decided, probabilities, 1 - probabilities).prod(axis=1, dtype=np.float64)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    predictions = []
    for row, has, score, numbers in zip(probabilities, decided, of_decisions, order.tolist(), strict=True):
        value = tuple(number for number in numbers if has[number])
        others = tuple(Prediction(number, float(row[number])) for number in numbers[: top if top > 1 else 0])
        others = tuple(other for other in others if other.value not in value)
        scores = tuple(float(row[number]) for number in value)
        predictions.append(Prediction(value, float(score), alternatives=others, label_scores=scores))
    return predictions


def require_finite(probabilities: Float[np.ndarray, "batch classes"]) -> None:
    """Raises :class:`UserError` where a probability is no number."""
    if np.isnan(probabilities).any():
        raise UserError("the model's logits are not finite; are its weights?")


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, each handed out once the next one is made: the device works while the host reads."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
