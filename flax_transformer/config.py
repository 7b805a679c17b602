"""What a run is: one frozen dataclass per subject, checked when it is made. Standard library only.

Every field carries a comment, which is also its ``--help`` text. A wrong value fails at construction with a
:class:`~flax_transformer.errors.UserError` that names the field, what was expected and what came.
"""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from flax_transformer.errors import UserError
from flax_transformer.legacy import current_fields

Architecture = Literal["seq2seq", "classifier", "masked"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Norm = Literal["layer", "rms"]
Positions = Literal["sinusoidal", "sinusoidal_halves", "learned", "rope", "none"]
SharedTables = Literal["all", "inputs", "target", "none"]
Pooling = Literal["mean", "first", "max"]
HeadHidden = Literal["none", "tanh", "relu", "gelu"]
Initialization = Literal["torch", "paper"]
AttentionBackend = Literal["auto", "xla", "blockwise", "cudnn", "flash"]
Remat = Literal["none", "dots", "full"]
FloatDtype = Literal["bfloat16", "float32", "float64"]
Strategy = Literal["greedy", "sample", "beam"]
LengthPenalty = Literal["gnmt", "mean"]
Long = Literal["auto", "cut", "skip", "error"]
Config = TypeVar("Config")

_LARGEST = 2**31 - 1  # of int32, in which shapes and indices are counted on the devices
_DEEPEST = 1_000  # layers, as in DeepNet (Wang et al., 2022); programs of more take hours to compile
_LARGEST_VOCABULARY = 10_000_000  # the learners of the tokenizers library reserve memory for all of it
_LARGEST_BATCH = 2**20  # rows
_LARGEST_TABLE = 2**20  # of distances and their buckets, which is part of the program
_SMALLEST_NORMAL = 2.0**-126  # of float32; a device may take what is smaller for 0


def _check(owner: object, name: str, expected: str, holds: bool) -> None:
    if not holds:
        raise UserError(f"{type(owner).__name__}.{name}: expected {expected}, got {getattr(owner, name)!r}")


def _check_choices(owner: Any) -> None:
    """Every ``Literal`` field holds one of its choices: the command line checks this itself, a config file does not."""
    for name, annotation in typing.get_type_hints(type(owner)).items():
        if typing.get_origin(annotation) is Literal:
            choices = typing.get_args(annotation)
            _check(owner, name, "one of " + ", ".join(map(str, choices)), getattr(owner, name) in choices)


def _check_whole(owner: object, *names: str, at_least: int = 1, at_most: int = _LARGEST) -> None:
    for name in names:
        value = getattr(owner, name)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        _check(owner, name, f"a whole number of at least {at_least}", is_number and value >= at_least)
        _check(owner, name, f"a whole number of at most {at_most:,}", value <= at_most)


def _check_rate(owner: object, *names: str) -> None:
    for name in names:
        _check(owner, name, "a number in [0, 1)", 0 <= getattr(owner, name) < 1)


def _check_finite(owner: object, *names: str, at_least: float = 0.0) -> None:
    for name in names:
        value = getattr(owner, name)
        _check(owner, name, f"a finite number of at least {at_least:g}", math.isfinite(value) and value >= at_least)


def _check_files(owner: Any) -> None:
    """The fields of users' files. One name alone is a tuple of one; ``tab`` and ``\\t`` are a tab."""
    for name in ("path", "validation_path", "test_path"):
        value = getattr(owner, name)
        object.__setattr__(owner, name, (value,) if isinstance(value, str) else tuple(value or ()))
    if owner.delimiter in ("tab", "\\t"):
        object.__setattr__(owner, "delimiter", "\t")
    separates = owner.delimiter is None or (len(owner.delimiter) == 1 and owner.delimiter not in '"\r\n')
    _check(owner, "delimiter", "one character, or tab", separates)
    _check(
        owner, "encoding", "an encoding by its name in Python, such as cp1252 or utf-16", _is_encoding(owner.encoding)
    )


def _is_encoding(name: str | None) -> bool:
    try:
        return name is None or "".encode(name) is not None
    except (LookupError, ValueError):
        return False


@dataclass(frozen=True)
class ModelConfig:
    """Shape and variant of the model. One config decides both twins.

    Example:
        >>> ModelConfig(d_model=512, num_heads=8).head_dim
        64
        >>> ModelConfig(d_model=512, num_heads=7)
        Traceback (most recent call last):
        flax_transformer.errors.UserError: ModelConfig.num_heads: expected a divisor of d_model=512, got 7
    """

    # seq2seq: encoder, decoder and output projection; classifier: encoder, pooling and head; masked: encoder and
    # projection at masked tokens
    architecture: Architecture = "seq2seq"
    # width of the residual stream
    d_model: int = 256
    # attention heads; must divide d_model, unless head_width is given
    num_heads: int = 4
    # width of one attention head; d_model / num_heads if not given
    head_width: int | None = None
    # inner width of the feed-forward sublayer
    d_ff: int = 1024
    # layers of the encoder
    num_encoder_layers: int = 3
    # layers of the decoder; ignored without one
    num_decoder_layers: int = 3
    # drop rate on embeddings, on each sublayer's output, and inside the feed-forward sublayer
    dropout: float = 0.1
    # drop rate on attention weights
    attention_dropout: float = 0.0
    # drop rate inside the feed-forward sublayer; as dropout if not given
    feed_forward_dropout: float | None = None
    # drop rate before the layers of the classifier's head; as dropout if not given
    head_dropout: float | None = None
    # True: pre-LN, the norm stands before each sublayer; False: post-LN, as in the 2017 paper
    norm_first: bool = True
    # layer: LayerNorm; rms: RMSNorm, without mean and bias (Zhang and Sennrich, 2019)
    norm: Norm = "layer"
    # added to the variance in each norm, against division by zero
    norm_eps: float = 1e-5
    # a norm after the last layer of each stack; pre-LN models want one
    final_norm: bool = True
    # of the feed-forward sublayer; gelu is the exact one (erf), gelu_tanh its approximation
    activation: Activation = "gelu"
    # the activation gates a second linear map in the feed-forward sublayer (Shazeer, 2020)
    gated: bool = False
    # sinusoidal and learned are added to the embeddings, sinusoidal_halves with all sines before all cosines; rope
    # turns queries and keys of self-attention
    positions: Positions = "sinusoidal"
    # rows of a learned position table before that of the first token, as RoBERTa and BART have them
    position_offset: int = 0
    # buckets of distances, each with a bias of its own on the scores of self-attention (T5: Raffel et al., 2020,
    # section 2.1); 0: none
    relative_buckets: int = 0
    # from this distance on, all share the last bucket
    relative_max_distance: int = 128
    # divide the scores of attention by the square root of the head's width, as in section 3.2.1 of the paper
    scale_attention: bool = True
    # mix each key of the memory with the key before it, in shares that each head learns, so that the decoder learns to
    # copy from the source in far fewer steps (Olsson et al., 2022)
    smeared_keys: bool = False
    # multiply embeddings by sqrt(d_model), as in section 3.4 of the paper
    scale_embeddings: bool = True
    # a norm on the embeddings, positions included
    embedding_norm: bool = False
    # width of the embeddings, which are then projected to d_model; d_model if not given
    embedding_width: int | None = None
    # rows of a table for the parts of a source, which end tokens separate, as in BERT; 0: no table
    token_types: int = 0
    # which tables of tokens are one: all, of source, target and output projection (section 3.4 of the paper); inputs,
    # of source and target; target, of target and projection; none
    tie_embeddings: SharedTables = "all"
    # multiply logits by 1 / sqrt(d_model), as T5 with a tied projection
    scale_logits: bool = False
    # a constant on each logit of seq2seq, which training leaves as it is
    logits_bias: bool = False
    # biases in linear layers and norms
    bias: bool = True
    # torch: as torch.nn's own layers; paper: Xavier uniform matrices, N(0, 1/d_model) embeddings
    initialization: Initialization = "paper"
    # longest sequence, and rows of a learned position table
    max_length: int = 512
    # a training run takes both from its tokenizer
    source_vocab_size: int = 8000
    target_vocab_size: int = 8000
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    # of the classifier; a training run takes it from its data. 0: no head, the model gives pooled texts
    num_classes: int = 2
    # how the classifier sums up the real tokens of a text
    pooling: Pooling = "mean"
    # activation of a layer between pooling and the classifier's head; none: no such layer
    head_hidden: HeadHidden = "none"
    # auto takes the fastest kernel that can serve the request; the others are taken or refused. blockwise serves any in
    # memory linear in the length; xla writes all weights out
    attention_backend: AttentionBackend = "auto"
    # what the backward pass of a layer computes again, to save memory: nothing; all but the outputs of linear maps and
    # of the flash kernel; all
    remat: Remat = "none"
    # train the layers as one loop, compiled in the same time however many there are; dropout draws other masks
    scan_layers: bool = False
    # of matrix products; softmax, norms, residuals and losses stay in at least float32
    dtype: FloatDtype = "float32"
    # of the weights and the optimizer's state; float64 needs JAX_ENABLE_X64=1
    param_dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_whole(self, "d_model", "num_heads", "d_ff", "max_length")
        _check_whole(self, "source_vocab_size", "target_vocab_size")
        _check_whole(self, "token_types", "position_offset", "relative_buckets", at_least=0)
        _check_whole(self, "num_classes", at_least=0 if self.architecture == "classifier" else 1)
        _check_whole(self, *self._given("head_width", "embedding_width"))
        _check_whole(self, "num_encoder_layers", at_most=_DEEPEST)
        if self.architecture == "seq2seq":
            _check_whole(self, "num_decoder_layers", at_most=_DEEPEST)
        if self.head_width is None:
            _check(self, "num_heads", f"a divisor of d_model={self.d_model}", self.d_model % self.num_heads == 0)
        if self.positions == "rope":
            _check(self, "num_heads", "an even width of its heads for rope", self.head_dim % 2 == 0)
        _check_rate(self, "dropout", "attention_dropout")
        _check_rate(self, *self._given("feed_forward_dropout", "head_dropout"))
        _check_finite(self, "norm_eps")
        for name in ("pad_id", "bos_id", "eos_id"):
            vocabulary = min(self.source_vocab_size, self.target_vocab_size)
            _check(self, name, f"an id below the vocabulary size {vocabulary}", 0 <= getattr(self, name) < vocabulary)
        self._check_combinations()

    def _given(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    def _check_combinations(self) -> None:
        """Fields that only mean something together with others."""
        is_seq2seq = self.architecture == "seq2seq"
        without_meaning = (
            ("token_types", "head_hidden") if is_seq2seq else ("scale_logits", "logits_bias", "smeared_keys")
        )
        if self.architecture == "masked":
            without_meaning += ("head_hidden",)
        if self.positions != "learned":
            without_meaning += ("position_offset",)
        for name in without_meaning:
            default = ModelConfig.__dataclass_fields__[name].default
            expected = f"{default!r} with architecture={self.architecture!r} and positions={self.positions!r}"
            _check(self, name, expected, getattr(self, name) == default)
        if self.relative_buckets:
            _check(self, "relative_buckets", "a multiple of 4", self.relative_buckets % 4 == 0)
            # Half of the buckets are for one distance each.
            _check_whole(self, "relative_max_distance", at_least=self.relative_buckets // 2 + 1, at_most=_LARGEST_TABLE)
        if is_seq2seq and self.tie_embeddings in ("all", "inputs"):
            expected = f"source_vocab_size={self.source_vocab_size}, since tie_embeddings shares one table"
            _check(self, "target_vocab_size", expected, self.source_vocab_size == self.target_vocab_size)
        if self.architecture == "masked":
            expected = "d_model with architecture='masked', whose table of tokens is the projection too"
            _check(self, "embedding_width", expected, self.embedding_dim == self.d_model)
        if is_seq2seq and self.tie_embeddings in ("all", "target"):
            expected = f"d_model with tie_embeddings={self.tie_embeddings!r}, whose table is the projection too"
            _check(self, "embedding_width", expected, self.embedding_dim == self.d_model)

    @property
    def head_dim(self) -> int:
        return self.head_width or self.d_model // self.num_heads

    @property
    def embedding_dim(self) -> int:
        return self.embedding_width or self.d_model


@dataclass(frozen=True)
class ManifestsData:
    """Freight manifests in free text -> JSON; generated, nothing to download."""

    task: ClassVar[str] = "manifests"
    architecture: ClassVar[Architecture] = "seq2seq"
    # manifests to train on
    train_size: int = 22_000
    # manifests by which the best checkpoint is chosen, of the kinds of training
    validation_size: int = 200
    # manifests that the final score is taken on: half of kinds that training does not have, half of its kinds
    test_size: int = 500
    # most line items in one manifest
    max_items: int = 3
    # share of short mails: one line item, and nothing above or below the booking
    short: float = 0.7
    # chance that a word is mistyped
    noise: float = 0.03

    def __post_init__(self) -> None:
        _check_whole(self, "train_size", "validation_size", "test_size", at_most=10_000_000)
        _check_whole(self, "max_items", at_most=100)
        _check_rate(self, "noise", "short")


@dataclass(frozen=True)
class ImdbData:
    """IMDb reviews -> sentiment (Maas et al., ACL 2011)."""

    task: ClassVar[str] = "imdb"
    architecture: ClassVar[Architecture] = "classifier"
    # a file with columns split, label and text, or review and sentiment as on Kaggle (.csv, .jsonl, .parquet, ...; text
    # formats also as .gz); without it the hub's stanfordnlp/imdb
    path: str | None = None
    # assignment: 15,000 train, 10,000 validation, the rest test, duplicates removed; official: 25,000 and 25,000
    split: Literal["assignment", "official"] = "assignment"

    def __post_init__(self) -> None:
        _check_choices(self)


@dataclass(frozen=True)
class Multi30kData:
    """Image captions, German <-> English (Elliott et al., 2016)."""

    task: ClassVar[str] = "multi30k"
    architecture: ClassVar[Architecture] = "seq2seq"
    # a folder of train, val and test_2016_flickr files, .de and .en (plain or .gz); without it the hub's
    # bentrevett/multi30k
    path: str | None = None
    # from which language to which
    direction: Literal["de-en", "en-de"] = "en-de"

    def __post_init__(self) -> None:
        _check_choices(self)


@dataclass(frozen=True)
class SnipsData:
    """Spoken commands -> JSON frame of intent and slots (Coucke et al., 2018)."""

    task: ClassVar[str] = "snips"
    architecture: ClassVar[Architecture] = "seq2seq"
    # a folder with train.jsonl and test.jsonl (plain or .gz), rows {"text", "target": {"intent", "slots"}}
    path: str | None = None
    # copies of each training text with other values in its slots, drawn from all values that the slot has in training
    swapped_copies: int = 0

    def __post_init__(self) -> None:
        _check_whole(self, "swapped_copies", at_least=0, at_most=100)


@dataclass(frozen=True)
class ClassificationData:
    """Your own labelled texts."""

    task: ClassVar[str] = "classification"
    architecture: ClassVar[Architecture] = "classifier"
    # files to learn from, .csv, .tsv, .json, .jsonl or .parquet (text formats also as .gz): one or more names, a
    # folder, or a pattern such as 'train-*.parquet'
    path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    validation_path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    test_path: tuple[str, ...] = ()
    # name of the column with the texts; a.b is the key b in the objects of a
    text_column: str = "text"
    # name of the column with the classes
    label_column: str = "label"
    # what separates the columns of a CSV, such as ; or tab; recognized if not given
    delimiter: str | None = None
    # of text files, such as cp1252; UTF-8, or what a byte order mark says, if not given
    encoding: str | None = None
    # take numbers in the column of the texts as they are written
    numbers_as_text: bool = False

    def __post_init__(self) -> None:
        _check_files(self)


@dataclass(frozen=True)
class Seq2SeqData:
    """Your own pairs of texts."""

    task: ClassVar[str] = "seq2seq"
    architecture: ClassVar[Architecture] = "seq2seq"
    # files to learn from, .csv, .tsv, .json, .jsonl or .parquet (text formats also as .gz): one or more names, a
    # folder, or a pattern such as 'train-*.parquet'
    path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    validation_path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    test_path: tuple[str, ...] = ()
    # name of the column with the texts to read; a.b is the key b in the objects of a
    source_column: str = "source"
    # name of the column with the texts to write; objects become JSON
    target_column: str = "target"
    # what separates the columns of a CSV, such as ; or tab; recognized if not given
    delimiter: str | None = None
    # of text files, such as cp1252; UTF-8, or what a byte order mark says, if not given
    encoding: str | None = None
    # take numbers in the two columns as they are written
    numbers_as_text: bool = False

    def __post_init__(self) -> None:
        _check_files(self)


@dataclass(frozen=True)
class MaskedData:
    """Your own texts without labels: an encoder learns to predict masked tokens, for other tasks to start from."""

    task: ClassVar[str] = "masked"
    architecture: ClassVar[Architecture] = "masked"
    # files to learn from, .csv, .tsv, .json, .jsonl or .parquet with a column of texts, or .txt with a text in each
    # line (text formats also as .gz): one or more names, a folder, or a pattern such as 'train-*.parquet'
    path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    validation_path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    test_path: tuple[str, ...] = ()
    # texts: the files hold nothing but texts to learn from; imdb, classification: they are those of this task, whose
    # splits are taken with the same seed, so that none of its texts for validation and test is trained on
    of: Literal["texts", "imdb", "classification"] = "texts"
    # of imdb: its split, see there
    split: Literal["assignment", "official"] = "assignment"
    # name of the column with the texts; a.b is the key b in the objects of a
    text_column: str = "text"
    # of classification: name of the column with the classes, which its splits depend on
    label_column: str = "label"
    # what separates the columns of a CSV, such as ; or tab; recognized if not given
    delimiter: str | None = None
    # of text files, such as cp1252; UTF-8, or what a byte order mark says, if not given
    encoding: str | None = None
    # take numbers in the column of the texts as they are written
    numbers_as_text: bool = False

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_files(self)
        if self.of == "imdb":
            _check(self, "path", "at most one file of imdb", len(self.path) < 2)
            for name in ("validation_path", "test_path"):
                _check(self, name, "no file, since imdb is split by its own rule", not getattr(self, name))


OwnData = ClassificationData | Seq2SeqData | MaskedData
DataConfig = ManifestsData | ImdbData | Multi30kData | SnipsData | OwnData
DATA_CONFIGS: dict[str, type[DataConfig]] = {kind.task: kind for kind in typing.get_args(DataConfig)}
# Of users' own data, by the kind of model that learns from it.
OWN_DATA: dict[Architecture, type[OwnData]] = {kind.architecture: kind for kind in typing.get_args(OwnData)}


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes token ids."""

    # learned on the training split: byte-level BPE, or WordPiece
    kind: Literal["bpe", "wordpiece"] = "bpe"
    # most entries; source and target share one vocabulary
    vocab_size: int = 8_000
    # fold upper case to lower case
    lowercase: bool = False
    # of byte-level BPE: a space is joined to the word behind it; or it is a token of its own, as is JSON's punctuation,
    # so that a word has the same pieces in a text and in JSON, which makes copying easier
    spaces: Literal["joined", "isolated"] = "joined"
    # an existing tokenizer.json to use instead of learning one
    path: str | None = None

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_whole(self, "vocab_size", at_least=300, at_most=_LARGEST_VOCABULARY)


@dataclass(frozen=True)
class BatchConfig:
    """How examples become batches of few shapes."""

    # rows of a batch
    size: int = 64
    # longest source, in tokens
    max_source_length: int = 256
    # longest target, in tokens, with its begin and end tokens
    max_target_length: int = 256
    # what becomes of longer texts: cut to the longest, skip (left out and counted) or error; auto cuts them for
    # classification and skips them for generation
    long: Long = "auto"
    # groups of like length, each padded to its own longest: the number of shapes that are compiled
    buckets: int = 6
    # chance that a source token is replaced by the unknown token in training
    word_dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_whole(self, "size", at_most=_LARGEST_BATCH)
        _check_whole(self, "max_source_length", "max_target_length", "buckets")
        _check_rate(self, "word_dropout")

    @property
    def max_new_tokens(self) -> int:
        """As many tokens as a target may have; its begin token is not generated."""
        return max(1, self.max_target_length - 1)


@dataclass(frozen=True)
class PredictionConfig:
    """What a model is held to when it predicts. A run and its export share it, so that they predict the same."""

    # longest source, in tokens
    max_source_length: int
    # most tokens to generate, the end token included
    max_new_tokens: int
    # texts at a time, which moves the last digits of scores
    batch_size: int = 64
    # what becomes of longer texts, see BatchConfig
    long: Long = "auto"
    # what the model was trained on, which may know the JSON schema of its outputs; empty if unknown
    task: str = ""
    # column of a table to read texts from, where the command names none
    text_column: str = "text"
    # take numbers in that column for texts, as they are written
    numbers_as_text: bool = False
    # of the tokenizer.json and the classes.json that belong to the weights; empty if unknown
    tokenizer_sha256: str = ""
    classes_sha256: str = ""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_whole(self, "max_source_length", "max_new_tokens", "batch_size")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam or AdamW with torch's semantics and defaults, clipping and a schedule.

    Example:
        >>> OptimizerConfig(learning_rate=5e-5, schedule="linear").name
        'adamw'
    """

    # adam: weight_decay is an L2 term in the gradient; adamw: decoupled (Loshchilov & Hutter, 2019)
    name: Literal["adam", "adamw"] = "adamw"
    # the peak of the schedule
    learning_rate: float = 1e-3
    # decay of the running mean of the gradient
    beta1: float = 0.9
    # decay of the running mean of its square
    beta2: float = 0.999
    # added to the root of that mean, against division by zero
    eps: float = 1e-8
    # of matrices only: never of norms and biases
    weight_decay: float = 0.01
    # largest global norm of the gradient; 0 turns clipping off
    max_grad_norm: float = 1.0
    # after the warm-up; inverse_sqrt is Noam's, section 5.3 of the paper
    schedule: Literal["constant", "inverse_sqrt", "cosine", "linear"] = "cosine"
    # steps in which the learning rate rises from 0 to its peak
    warmup_steps: int = 100
    # decay of a running mean of the weights, which is evaluated and exported in their place; 0: none is kept
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_finite(self, "learning_rate", "weight_decay", "max_grad_norm")
        # Otherwise the gradient of a token that does not occur, which is 0, would be divided by 0.
        is_normal = math.isfinite(self.eps) and self.eps >= _SMALLEST_NORMAL
        _check(self, "eps", f"a finite number above 0, at least {_SMALLEST_NORMAL:.2g}", is_normal)
        _check_rate(self, "beta1", "beta2", "ema_decay")
        _check_whole(self, "warmup_steps", at_least=0)


@dataclass(frozen=True)
class MeshConfig:
    """How many devices share the work, and in what way; the product is the number of devices."""

    # each device (or group of them) takes its part of the batch and holds a whole model; 0: as many as there are
    data: int = 0
    # each device takes its part of the batch, and holds its part of the weights and of the optimizer's state
    fsdp: int = 1
    # the devices share each matrix product by heads, hidden units and vocabulary (tensor parallelism)
    model: int = 1

    def __post_init__(self) -> None:
        _check_whole(self, "data", at_least=0)
        _check_whole(self, "fsdp", "model")


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are chosen, one after the other.

    Example:
        >>> GenerationConfig(max_new_tokens=32, strategy="beam", beam_width=5).beam_width
        5
    """

    # most tokens to generate, the end token included
    max_new_tokens: int = 256
    # fewest tokens before the end token
    min_new_tokens: int = 0
    # greedy: the most probable token each time; sample: drawn by chance; beam: search for the most probable output
    strategy: Strategy = "greedy"
    # token ids that every output begins with; they count as generated
    prefix: tuple[int, ...] = ()
    # above 1, tokens that the output already holds are less probable (CTRL: Keskar et al., 2019, section 4.1)
    repetition_penalty: float = 1.0
    # of sample: below 1 more probable tokens are drawn more often, above 1 less
    temperature: float = 1.0
    # of sample: draw among this many of the most probable tokens (Fan et al., 2018); 0 for all
    top_k: int = 0
    # of sample: draw among the fewest tokens that have this much probability together (Holtzman et al., 2020)
    top_p: float = 1.0
    # of sample
    seed: int = 0
    # of beam: outputs that are pursued at a time
    beam_width: int = 4
    # of beam: what log-probabilities of outputs of n tokens are divided by, gnmt: ((5 + n) / 6)^alpha (Wu et al., 2016,
    # section 7); mean: n^alpha
    length_penalty: LengthPenalty = "gnmt"
    # of beam: alpha of the length penalty; 0 compares plain log-probabilities
    length_alpha: float = 0.6
    # of beam: True ends with beam_width complete outputs, False once no output under way can still come out ahead
    early_stopping: bool = True
    # of beam: outputs returned for each source, the best first
    n_best: int = 1

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_whole(self, "max_new_tokens", "beam_width", "n_best")
        _check_whole(self, "min_new_tokens", "top_k", "seed", at_least=0)
        limit = f"max_new_tokens={self.max_new_tokens}"
        _check(self, "min_new_tokens", f"at most {limit}", self.min_new_tokens <= self.max_new_tokens)
        fits = isinstance(self.prefix, tuple) and len(self.prefix) < self.max_new_tokens
        _check(self, "prefix", f"a tuple of fewer token ids than {limit}", fits)
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            _check(self, name, "a finite number above 0", math.isfinite(value) and value > 0)
        _check(self, "top_p", "a number in (0, 1]", 0 < self.top_p <= 1)
        _check_finite(self, "length_alpha")
        most = self.beam_width if self.strategy == "beam" else 1
        _check(self, "n_best", f"at most {most} with strategy={self.strategy!r}", self.n_best <= most)


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run.

    Example:
        >>> config = TrainConfig(data=Seq2SeqData(path="pairs.csv"), epochs=3)
        >>> from_dict(TrainConfig, to_dict(config)) == config
        True
    """

    data: DataConfig = field(default_factory=ManifestsData)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    # passes over the training split
    epochs: int = 1
    # evaluations without a better score after which training ends early; 0: it goes on to its end
    patience: int = 0
    # folder of an import, an export or a run, whose weights training starts from, with its tokenizer and its model
    pretrained: str | None = None
    # so many of the encoder's first layers, and the embeddings of the source, keep their weights; 0: all are trained
    frozen_layers: int = 0
    # weigh the classes of a classifier in the loss, so that a rare one counts as much as a frequent one
    balance_classes: bool = False
    # share of the target probability spread over all tokens or classes (Szegedy et al., 2016)
    label_smoothing: float = 0.0
    # parts a batch is cut into, one after the other, to save memory; the step is the same
    gradient_accumulation_steps: int = 1
    # evaluations on the validation split in each epoch
    evaluations_per_epoch: int = 1
    # steps between two checkpoints, beside those of the evaluations; 0 for none
    checkpoint_every: int = 1_000
    # steps between two lines of metrics
    log_every: int = 20
    # a step whose loss or gradient is not finite is skipped; so many in a row end the run
    max_skipped: int = 10
    # data order, initial weights and dropout all follow from it
    seed: int = 0
    # the same bits in every run on a GPU too, where faster programs add in any order; CPU and TPU always do so
    deterministic: bool = False

    def __post_init__(self) -> None:
        _check_whole(self, "epochs", "gradient_accumulation_steps", "evaluations_per_epoch", "log_every", "max_skipped")
        _check_whole(self, "checkpoint_every", "patience", at_least=0)
        _check_rate(self, "label_smoothing")
        _check(self, "seed", "a whole number in [0, 2**31)", 0 <= self.seed < 2**31)
        expected = f"a divisor of batch.size={self.batch.size}"
        _check(self, "gradient_accumulation_steps", expected, self.batch.size % self.gradient_accumulation_steps == 0)
        for name in ("num_heads", "d_ff"):
            _check(
                self.model,
                name,
                f"a multiple of mesh.model={self.mesh.model}",
                getattr(self.model, name) % self.mesh.model == 0,
            )
        self._check_frozen_layers()
        is_classifier = self.data.architecture == "classifier"
        _check(self, "balance_classes", "False for a task without classes", is_classifier or not self.balance_classes)
        longest = max(self.batch.max_source_length, self._target_length)
        if self.model.max_length < longest:
            raise UserError(
                f"model.max_length: expected at least the batch's {longest} tokens, got {self.model.max_length}"
            )
        if self.model.architecture != self.data.architecture:
            raise UserError(
                f"model.architecture: the task {self.data.task!r} needs {self.data.architecture!r}, "
                f"got {self.model.architecture!r}"
            )

    def _check_frozen_layers(self) -> None:
        layers = self.model.num_encoder_layers
        _check_whole(self, "frozen_layers", at_least=0)
        _check(self, "frozen_layers", f"at most the encoder's {layers} layers", self.frozen_layers <= layers)
        is_possible = not (self.frozen_layers and self.model.scan_layers)
        _check(self, "frozen_layers", "0 with model.scan_layers, which trains all layers as one", is_possible)

    def freezes(self, weight: str) -> bool:
        """Whether a weight keeps its value in training, by its dotted name in either framework."""
        layers = (f"encoder.layers.{i}." for i in range(self.frozen_layers))
        return self.frozen_layers > 0 and weight.startswith(("source_table.", "source_embedding.", *layers))

    @property
    def _target_length(self) -> int:
        return self.batch.max_target_length if self.data.architecture == "seq2seq" else 0


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain JSON values; a :class:`TrainConfig` also names its task."""
    values = dataclasses.asdict(config)
    if isinstance(config, TrainConfig):
        values["data"] = {"task": config.data.task, **values["data"]}
    return values


def from_dict(kind: type[Config], values: dict[str, Any], where: str = "config") -> Config:
    """The inverse of :func:`to_dict`; unknown keys are an error, missing ones take their default."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(typing.cast(Any, kind))}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: unknown key {name!r}; expected some of {', '.join(sorted(known))}")
        arguments[name] = _read_value(hints[name], value, f"{where}.{name}")
    return kind(**arguments)


def _read_value(annotation: Any, value: Any, where: str) -> Any:
    if annotation == DataConfig:
        if not isinstance(value, dict) or value.get("task") not in DATA_CONFIGS:
            raise UserError(f"{where}.task: expected one of {', '.join(DATA_CONFIGS)}, got {value!r}")
        rest = {name: entry for name, entry in value.items() if name != "task"}
        return from_dict(DATA_CONFIGS[value["task"]], rest, where)
    if dataclasses.is_dataclass(annotation):
        return from_dict(typing.cast(type, annotation), value, where)
    if typing.get_origin(annotation) is Literal:
        return value
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(annotation) is tuple:
        if annotation == tuple[str, ...] and isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, got {value!r}")
        return tuple(_read_value(typing.get_args(annotation)[0], entry, where) for entry in value)
    accepted = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in accepted)
        raise UserError(f"{where}: expected {names}, got {value!r}")
    return value


def save_config(config: Any, path: Path) -> None:
    path.write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")


def load_config(kind: type[Config], path: Path) -> Config:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: expected a config file, but it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, got something else ({error})") from error
    return from_dict(kind, current_fields(values), str(path))
