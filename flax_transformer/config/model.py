"""The model: its shape, its variant, and how it is computed."""

from dataclasses import dataclass, replace
from typing import Literal

from flax_transformer.config.checks import check, check_choices, check_finite, check_rate, check_whole

Architecture = Literal["seq2seq", "classifier", "masked"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Norm = Literal["layer", "rms"]
Mixer = Literal["attention", "linear", "lstm"]
Positions = Literal["sinusoidal", "sinusoidal_halves", "learned", "rope", "none"]
SharedTables = Literal["all", "inputs", "target", "none"]
Pooling = Literal["mean", "first", "max"]
HeadHidden = Literal["none", "tanh", "relu", "gelu"]
Initialization = Literal["torch", "paper"]
AttentionBackend = Literal["auto", "xla", "blockwise", "cudnn", "flash"]
Remat = Literal["none", "dots", "full"]
FloatDtype = Literal["bfloat16", "float16", "float32", "float64"]

_DEEPEST = 1_000  # layers, as in DeepNet (Wang et al., 2022); programs of more take hours to compile
_LARGEST_TABLE = 2**20  # of distances and their buckets, which is part of the program
# Mixer -> fields that have no meaning with it.
_WITHOUT_MEANING: dict[Mixer, tuple[str, ...]] = {
    "attention": (),
    "linear": ("relative_buckets", "smeared_keys"),
    "lstm": ("relative_buckets",),
}
# Say how attention weights are computed.
_OF_WEIGHTS = ("attention_dropout", "scale_attention", "attention_backend")


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
    # what mixes tokens: attention; linear: linear attention, with a state of one size in place of cached keys
    # (Katharopoulos et al., 2020); lstm: in place of self-attention, two-sided in the encoder
    mixer: Mixer = "attention"
    # the same, of the encoder alone; as mixer if not given
    encoder_mixer: Mixer | None = None
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
    # of matrix products; softmax, norms, residuals and losses stay in at least float32. float16 scales the loss so that
    # small gradients do not vanish, and skips steps whose gradients overflow
    dtype: FloatDtype = "float32"
    # of the weights and the optimizer's state; float64 needs JAX_ENABLE_X64=1
    param_dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        check_choices(self)
        check_whole(self, "d_model", "num_heads", "d_ff", "max_length")
        check_whole(self, "source_vocab_size", "target_vocab_size")
        check_whole(self, "token_types", "position_offset", "relative_buckets", at_least=0)
        check_whole(self, "num_classes", at_least=0 if self.architecture == "classifier" else 1)
        check_whole(self, *self._given("head_width", "embedding_width"))
        check_whole(self, "num_encoder_layers", at_most=_DEEPEST)
        if self.architecture == "seq2seq":
            check_whole(self, "num_decoder_layers", at_most=_DEEPEST)
        if self.head_width is None:
            check(self, "num_heads", f"a divisor of d_model={self.d_model}", self.d_model % self.num_heads == 0)
        if self.positions == "rope":
            check(self, "num_heads", "an even width of its heads for rope", self.head_dim % 2 == 0)
        check_rate(self, "dropout", "attention_dropout")
        check_rate(self, *self._given("feed_forward_dropout", "head_dropout"))
        check_finite(self, "norm_eps")
        for name in ("pad_id", "bos_id", "eos_id"):
            vocabulary = min(self.source_vocab_size, self.target_vocab_size)
            check(self, name, f"an id below the vocabulary size {vocabulary}", 0 <= getattr(self, name) < vocabulary)
        self._check_combinations()

    def _given(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    def _check_combinations(self) -> None:
        """Fields that only mean something together with others."""
        is_seq2seq = self.architecture == "seq2seq"
        without_meaning = (
            ("token_types", "head_hidden")
            if is_seq2seq
            else ("scale_logits", "logits_bias", "smeared_keys", "encoder_mixer")
        )
        if self.architecture == "masked":
            without_meaning += ("head_hidden",)
        if self.positions != "learned":
            without_meaning += ("position_offset",)
        for name in without_meaning:
            default = _DEFAULTS[name]
            expected = f"{default!r} with architecture={self.architecture!r} and positions={self.positions!r}"
            check(self, name, expected, getattr(self, name) == default)
        self._check_mixer()
        if self.relative_buckets:
            check(self, "relative_buckets", "a multiple of 4", self.relative_buckets % 4 == 0)
            # Half of the buckets are for one distance each.
            check_whole(self, "relative_max_distance", at_least=self.relative_buckets // 2 + 1, at_most=_LARGEST_TABLE)
        if is_seq2seq and self.tie_embeddings in ("all", "inputs"):
            expected = f"source_vocab_size={self.source_vocab_size}, since tie_embeddings shares one table"
            check(self, "target_vocab_size", expected, self.source_vocab_size == self.target_vocab_size)
        if self.architecture == "masked":
            expected = "d_model with architecture='masked', whose table of tokens is the projection too"
            check(self, "embedding_width", expected, self.embedding_dim == self.d_model)
        if is_seq2seq and self.tie_embeddings in ("all", "target"):
            expected = f"d_model with tie_embeddings={self.tie_embeddings!r}, whose table is the projection too"
            check(self, "embedding_width", expected, self.embedding_dim == self.d_model)

    def _check_mixer(self) -> None:
        for name in _WITHOUT_MEANING[self.mixer] + (() if self.writes_weights else _OF_WEIGHTS):
            expected = f"{_DEFAULTS[name]!r} with mixer={self.mixer!r}"
            check(self, name, expected, getattr(self, name) == _DEFAULTS[name])
        if self.mixer != "attention":
            # A rotation, after which the features of linear attention would no longer be positive.
            check(self, "positions", f"positions without rope with mixer={self.mixer!r}", self.positions != "rope")
        if self.mixers[0] == "lstm":
            check(self, "d_model", "an even width, which both directions share", self.d_model % 2 == 0)

    @property
    def head_dim(self) -> int:
        return self.head_width or self.d_model // self.num_heads

    @property
    def embedding_dim(self) -> int:
        return self.embedding_width or self.d_model

    @property
    def mixers(self) -> tuple[Mixer, Mixer]:
        """Of the encoder and of the decoder."""
        return self.encoder_mixer or self.mixer, self.mixer

    @property
    def mixes_by_attention(self) -> bool:
        """Whether all its layers do, those of the encoder and those of the decoder."""
        return {*self.mixers} == {"attention"}

    @property
    def named_mixers(self) -> str:
        """As a message names them."""
        return " and ".join(
            f"{name}={given!r}" for name in ("mixer", "encoder_mixer") if (given := getattr(self, name))
        )

    @property
    def encoder_config(self) -> "ModelConfig":
        """Of the encoder's layers, without what means nothing to their mixer."""
        if self.encoder_mixer is None:
            return self
        idle = _WITHOUT_MEANING[self.encoder_mixer] + (_OF_WEIGHTS if self.encoder_mixer == "linear" else ())
        if self.positions == "rope" and self.encoder_mixer != "attention":
            idle += ("positions",)
        others = {name: _DEFAULTS[name] for name in idle}
        return replace(self, mixer=self.encoder_mixer, encoder_mixer=None, **others)

    @property
    def writes_weights(self) -> bool:
        """Whether any of its layers has attention weights, which can be dropped or looked at."""
        return self.mixer == "attention" or (self.mixer == "lstm" and self.architecture == "seq2seq")


_DEFAULTS = {name: entry.default for name, entry in ModelConfig.__dataclass_fields__.items()}
