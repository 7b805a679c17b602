"""What can predict: the best checkpoint of a run, or an export. Both give the same predictions, in the same way."""

import hashlib
import json
import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from flax import nnx
from jaxtyping import Float

from flax_transformer.config import (
    BatchConfig,
    GenerationConfig,
    Long,
    ModelConfig,
    Pooling,
    PredictionConfig,
    TrainConfig,
    load_config,
    load_json,
    save_config,
    to_dict,
)
from flax_transformer.data.copying import CopyRule
from flax_transformer.data.encoding import Sources, check_pairs, encode_sources, resolve_long
from flax_transformer.data.examples import Source
from flax_transformer.data.generation import Constraint
from flax_transformer.data.special_tokens import SPECIAL_TOKENS_FILE
from flax_transformer.data.tasks import copy_rule
from flax_transformer.data.tokenizer import Tokenizer, load_tokenizer
from flax_transformer.decoding.predictor import Prediction, Predictor
from flax_transformer.errors import UserError
from flax_transformer.nn.models import Model

TOKENIZER_FILE, CLASSES_FILE, PREDICTION_FILE = "tokenizer.json", "classes.json", "prediction.json"
# What predictions follow from, beside weights and limits.
_HASHED = {"tokenizer": TOKENIZER_FILE, "special_tokens": SPECIAL_TOKENS_FILE, "classes": CLASSES_FILE}


class Predictable(ABC):
    """A trained model with all that its predictions follow from.

    Attributes:
        folder: where it was loaded from.
        tokenizer: its own.
        classes: the names of the class ids, in order; empty for seq2seq.
    """

    folder: Path
    tokenizer: Tokenizer
    classes: tuple[str, ...]

    @property
    @abstractmethod
    def model_config(self) -> ModelConfig:
        """Of the model that :meth:`best_model` gives."""

    @property
    @abstractmethod
    def prediction_config(self) -> PredictionConfig:
        """What predictions are held to."""

    @property
    @abstractmethod
    def train_config(self) -> TrainConfig:
        """Of a training run that gives this model; its data say how outputs are scored."""

    @abstractmethod
    def best_model(self) -> Model:
        """The model with its best weights, read anew from the folder.

        Raises:
            UserError: they are not there, or damaged.
        """

    @cached_property
    def model(self) -> Model:
        """The model with its best weights, read once."""
        return self.best_model()

    @cached_property
    def copy_rule(self) -> CopyRule | None:
        """Which values of its outputs only quote the text; None where its task does not say."""
        return copy_rule(self.prediction_config.task, self.tokenizer)

    def predict(
        self,
        texts: Iterable[Source],
        generation: GenerationConfig | None = None,
        constraint: Constraint | None = None,
        *,
        copying: bool = True,
        batch_size: int | None = None,
        top: int = 1,
        threshold: float | None = None,
    ) -> list[Prediction]:
        """A prediction for each text, in order.

        Args:
            texts: of a model that was trained on pairs of texts, pairs (first, second), as of its two columns.
            generation: how to generate; greedily, and at most as many tokens as the longest target in training, if not
                given.
            constraint: what generated texts may look like.
            copying: of tasks whose schema marks values as copied: let these only quote the text.
            batch_size: texts at a time; as in training if not given.
            top: of classification: classes to name, the best as the value and the others as alternatives. Of labels,
                those of so many of the most probable that are below their thresholds are alternatives.
            threshold: of labels: the probability from which on a text has one; by default each label has its own, by
                which it was told best in validation.

        Returns:
            Predictions whose ``value`` is the generated text, or the name of the class, or a tuple of the names of
            labels. For a text that is blank or too long it is None, and ``error`` says why.

        Raises:
            UserError: the model cannot generate as it is told to; or ``texts`` are not what it reads.
        """
        texts = _listed(texts)
        if top < 1:
            raise UserError(f"top: expected a whole number of at least 1, got {top}")
        limits = self.prediction_config
        sources = self.encode(texts, limits.long)
        generation = generation or GenerationConfig(limits.max_new_tokens)
        batch = BatchConfig(limits.batch_size if batch_size is None else batch_size)
        rule, thresholds = self.copy_rule if copying else None, self.thresholds(threshold)
        predictor = Predictor(
            self.model, self.tokenizer, batch, generation, constraint, rule, top, thresholds=thresholds
        )
        return list(self.predictions(predictor, sources))

    def thresholds(self, threshold: float | None = None) -> tuple[float, ...]:
        """Of each label, the probability from which on a text has it; none where a text has one class.

        Args:
            threshold: of all labels, in place of each one's own.

        Raises:
            UserError: it is no probability, or there are no labels that it could be of.
        """
        own = self.prediction_config.thresholds
        if threshold is None:
            return own
        if not own:
            raise UserError("threshold: expected a model of several labels, got one that has no thresholds")
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold: expected a probability in [0, 1], got {threshold}")
        return (threshold,) * len(own)

    def embed(
        self, texts: Iterable[Source], pooling: Pooling = "mean", *, batch_size: int | None = None
    ) -> Float[np.ndarray, "texts d_model"]:
        """Each text as a vector of length 1, for search and comparison. Texts that are too long are cut.

        Args:
            pooling: how the encoder's output is summed up over the tokens of a text.
            batch_size: texts at a time; as in training if not given.

        Returns:
            (texts, d_model); NaN for a text that is blank. The dot product of two rows is their cosine similarity.

        Raises:
            UserError: ``texts`` is a single text, or they are not what the model reads.
        """
        texts = _listed(texts)
        if pooling not in typing.get_args(Pooling):
            raise UserError(f"pooling: expected one of {', '.join(typing.get_args(Pooling))}, got {pooling!r}")
        batch = BatchConfig(self.prediction_config.batch_size if batch_size is None else batch_size)
        predictor = Predictor(self.model, self.tokenizer, batch, embed_by=pooling)
        width = self.model_config.d_model
        nothing = (math.nan,) * width
        predictions = self.predictions(predictor, self.encode(texts, "cut"))
        vectors = [prediction.embedding or nothing for prediction in predictions]
        return np.array(vectors, np.float32).reshape(-1, width)

    def encode(self, texts: Sequence[Source | None], long: Long) -> Sources:
        """Texts as the model reads them; ``long`` says what becomes of those that are too long for it.

        Raises:
            UserError: there are single texts where the model reads pairs, or pairs where it does not.
        """
        self._check_sources([text for text in texts if text is not None])
        what = resolve_long(long, self.model_config.architecture == "seq2seq")
        return encode_sources(texts, self.tokenizer, self.prediction_config.max_source_length, what)

    def _check_sources(self, texts: Sequence[Source]) -> None:
        limits, folder = self.prediction_config, self.folder
        reads_pairs = len(limits.text_column) == 2
        pair = next((text for text in texts if not isinstance(text, str)), None)
        if reads_pairs and (single := next((text for text in texts if isinstance(text, str)), None)) is not None:
            names = ", ".join(limits.text_column)
            raise UserError(f"{folder}: expected pairs of texts ({names}), got the single text {single[:40]!r}")
        if pair is None:
            return
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise UserError(f"texts: expected texts, or tuples of two texts, got {str(pair)[:80]}")
        if limits.task and not reads_pairs:
            raise UserError(f"{folder}: expected single texts, which it was trained on, got the pair {str(pair)[:80]}")
        check_pairs(self.tokenizer, self.model_config)

    def predictions(
        self,
        predictor: Predictor,
        sources: Sources,
        first: int = 0,
        on_progress: Callable[[int], None] = lambda count: None,
    ) -> Iterator[Prediction]:
        """A prediction for each text from number ``first`` on, also for those that there can be none for.

        Args:
            on_progress: told the number of texts of each batch that is done.
        """
        usable_before = sum(not problem for problem in sources.problems[:first])
        answers = predictor.predict(sources.sequences, usable_before, on_progress)
        for problem, cut in zip(sources.problems[first:], sources.cut[first:], strict=True):
            if problem:
                yield Prediction(None, math.nan, error=problem)
            else:
                yield replace(self._with_name(next(answers)), cut=cut)

    def _with_name(self, prediction: Prediction) -> Prediction:
        """The prediction with the names of its classes in place of the ids."""
        others = tuple(map(self._with_name, prediction.alternatives))
        match prediction.value:
            case int(number):
                return replace(prediction, value=self.classes[number], alternatives=others)
            case tuple(numbers):
                names = tuple(self.classes[int(number)] for number in numbers)
                return replace(prediction, value=names, alternatives=others)
        return prediction

    def fingerprint(self, model: Model) -> dict[str, str]:
        """What its predictions follow from, beside the settings of a call: equal for a run and its export."""
        digest = hashlib.sha256()
        for path, param in nnx.to_flat_state(nnx.state(model, nnx.Param)):
            array = np.asarray(param[...])
            digest.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
        config = {**to_dict(self.model_config), **to_dict(self.prediction_config)}
        config = {name: value for name, value in config.items() if not name.endswith("_sha256")}
        files = {name: _sha256(self.folder / file) for name, file in _HASHED.items()}
        return {"weights": digest.hexdigest(), **files, "config": json.dumps(config, sort_keys=True)}


def _listed(texts: Iterable[Source]) -> list[Source]:
    """Texts that may come from a generator, which can be gone through only once."""
    if isinstance(texts, str):
        raise UserError(f"texts: expected a list of texts, got the single text {texts[:40]!r}; write [text]")
    return list(texts)


def save_prediction_files(folder: Path, tokenizer: Tokenizer, classes: Sequence[str], config: PredictionConfig) -> None:
    """Write what a model needs beside its weights to predict: tokenizer, names of classes and limits."""
    tokenizer.save(folder / TOKENIZER_FILE)
    if classes:
        (folder / CLASSES_FILE).write_bytes(_classes_file(classes))
    hashes = {f"{name}_sha256": _sha256(folder / file) for name, file in _HASHED.items()}
    save_config(replace(config, **hashes), folder / PREDICTION_FILE)


def _classes_file(names: Sequence[str]) -> bytes:
    return (json.dumps(names, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "surrogatepass")


def load_prediction_config(folder: Path) -> PredictionConfig | None:
    """None in folders of version 0.1.0.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / PREDICTION_FILE
    return load_config(PredictionConfig, path) if path.exists() else None


def limits_of_model(config: ModelConfig) -> PredictionConfig:
    """As exports of version 0.1.0 have them, which do not say what their runs were held to."""
    column = "source" if config.architecture == "seq2seq" else "text"
    return PredictionConfig(config.max_length, max(1, config.max_length - 1), text_column=(column,))


def load_tokenizer_of(folder: Path, model: ModelConfig, config: PredictionConfig | None) -> Tokenizer:
    """The tokenizer that the weights were trained with.

    Raises:
        UserError: it cannot be read, or is another one.
    """
    path = folder / TOKENIZER_FILE
    _check_unchanged(folder / SPECIAL_TOKENS_FILE, config.special_tokens_sha256 if config else "")
    tokenizer = load_tokenizer(path)
    for name in ("pad_id", "bos_id", "eos_id"):
        expected, found = getattr(model, name), getattr(tokenizer, name)
        if expected != found:
            raise UserError(f"{path}: expected the tokenizer of this model, whose {name} is {expected}, got {found}")
    if tokenizer.vocab_size != model.source_vocab_size:
        raise UserError(
            f"{path}: expected the tokenizer of this model, with {model.source_vocab_size} entries, "
            f"got one with {tokenizer.vocab_size}"
        )
    _check_unchanged(path, config.tokenizer_sha256 if config else "")
    return tokenizer


def load_classes(folder: Path, model: ModelConfig, config: PredictionConfig | None) -> tuple[str, ...]:
    """The names of the class ids, in order; none for seq2seq.

    Raises:
        UserError: the file is missing, or damaged, or names other classes than the model has.
    """
    if model.architecture != "classifier":
        return ()
    path = folder / CLASSES_FILE
    names = load_json(path, "a JSON list of class names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a JSON list of class names, got {type(names).__name__}")
    if len(names) != model.num_classes or len(set(names)) != len(names):
        raise UserError(
            f"{path}: expected {model.num_classes} different names, one for each class of the model, "
            f"got {len(names)}, {len(set(names))} of them different"
        )
    if config and hashlib.sha256(_classes_file(names)).hexdigest() != config.classes_sha256:  # not only spelled anew
        _check_unchanged(path, config.classes_sha256)
    if config and config.thresholds and len(config.thresholds) != len(names):
        raise UserError(
            f"{path.with_name(PREDICTION_FILE)}: expected {len(names)} thresholds, one for each label in {path}, "
            f"got {len(config.thresholds)}"
        )
    return tuple(names)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _check_unchanged(path: Path, expected: str) -> None:
    if expected and _sha256(path) != expected:
        raise UserError(
            f"{path}: expected the file that was written with the weights, but it was changed since; "
            f"bring it back, or delete {path.with_name(PREDICTION_FILE)} to take it as it is"
        )
