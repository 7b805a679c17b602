"""A training run: batches, optimizer, devices, and the run as a whole."""

import math
from dataclasses import dataclass, field
from typing import Literal

from flax_transformer.config.checks import check, check_choices, check_finite, check_rate, check_whole, make_texts
from flax_transformer.config.data import DataConfig, ManifestsData, TokenizerConfig
from flax_transformer.config.generation import Long
from flax_transformer.config.model import ModelConfig
from flax_transformer.errors import UserError

_LARGEST_BATCH = 2**20  # rows
_SMALLEST_NORMAL = 2.0**-126  # of float32; a device may take what is smaller for 0


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
    # put several examples into each row in training: one shape, rows of the longest lengths and hardly any padding; a
    # batch then holds more examples, so fewer rows do
    packing: bool = False
    # chance that a source token is replaced by the unknown token in training
    word_dropout: float = 0.0
    # chance that a merge of byte-level BPE is left out of a source in training, so that the same word has other tokens
    # in each of four epochs in turns (Provilkov et al., 2020)
    bpe_dropout: float = 0.0
    # the same of targets; not for JSON, whose keys are to stay single tokens
    target_bpe_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)
        check_whole(self, "size", at_most=_LARGEST_BATCH)
        check_whole(self, "max_source_length", "max_target_length", "buckets")
        check_rate(self, "word_dropout", "bpe_dropout", "target_bpe_dropout")

    @property
    def max_new_tokens(self) -> int:
        """As many tokens as a target may have; its begin token is not generated."""
        return max(1, self.max_target_length - 1)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, AdamW or Muon with torch's semantics and defaults, clipping and a schedule.

    Example:
        >>> OptimizerConfig(learning_rate=5e-5, schedule="linear").name
        'adamw'
    """

    # adam: weight_decay is an L2 term in the gradient; adamw: decoupled (Loshchilov & Hutter, 2019); muon: the matrices
    # of the layers by Muon, at the same learning rate, and all else by adamw
    name: Literal["adam", "adamw", "muon"] = "adamw"
    # the peak of the schedule
    learning_rate: float = 1e-3
    # decay of the running mean of the gradient
    beta1: float = 0.9
    # decay of the running mean of its square
    beta2: float = 0.999
    # decay of Muon's running mean of the gradient
    momentum: float = 0.95
    # added to the root of the mean of squares, against division by zero
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
        check_choices(self)
        check_finite(self, "learning_rate", "weight_decay", "max_grad_norm")
        # Otherwise the gradient of a token that does not occur, which is 0, would be divided by 0.
        is_normal = math.isfinite(self.eps) and self.eps >= _SMALLEST_NORMAL
        check(self, "eps", f"a finite number above 0, at least {_SMALLEST_NORMAL:.2g}", is_normal)
        check_rate(self, "beta1", "beta2", "momentum", "ema_decay")
        check_whole(self, "warmup_steps", at_least=0)


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
        check_whole(self, "data", at_least=0)
        check_whole(self, "fsdp", "model")


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
    # weigh the classes of a classifier in the loss, so that a rare one counts as much as a frequent one; of several
    # labels, texts that have one, so that they count as much as those that do not have it
    balance_classes: bool = False
    # share of the target probability spread over all tokens or classes (Szegedy et al., 2016); of each of several
    # labels, over having and not having it
    label_smoothing: float = 0.0
    # R-Drop (Liang et al., 2021): read each row twice, with other units dropped, and add so many times the divergence
    # of the two predictions to their losses; 0: read once
    r_drop: float = 0.0
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
        make_texts(self, "pretrained")
        check_whole(self, "epochs", "gradient_accumulation_steps", "evaluations_per_epoch", "log_every", "max_skipped")
        check_whole(self, "checkpoint_every", "patience", at_least=0)
        check_rate(self, "label_smoothing")
        check_finite(self, "r_drop")
        check(self, "seed", "a whole number in [0, 2**31)", 0 <= self.seed < 2**31)
        expected = f"a divisor of batch.size={self.batch.size}"
        check(self, "gradient_accumulation_steps", expected, self.batch.size % self.gradient_accumulation_steps == 0)
        for name in ("num_heads", "d_ff"):
            check(
                self.model,
                name,
                f"a multiple of mesh.model={self.mesh.model}",
                getattr(self.model, name) % self.mesh.model == 0,
            )
        self._check_frozen_layers()
        is_classifier = self.data.architecture == "classifier"
        if self.batch.packing:
            check(self.batch, "packing", f"False with {self.model.named_mixers}", self.model.mixes_by_attention)
            check(self.batch, "packing", f"False for the task {self.data.task!r}", self.data.task != "multilabel")
        if self.data.architecture != "seq2seq":
            expected = f"0 for the task {self.data.task!r}, which writes no text"
            check(self.batch, "target_bpe_dropout", expected, self.batch.target_bpe_dropout == 0)
        check(self, "balance_classes", "False for a task without classes", is_classifier or not self.balance_classes)
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
        check_whole(self, "frozen_layers", at_least=0)
        check(self, "frozen_layers", f"at most the encoder's {layers} layers", self.frozen_layers <= layers)
        is_possible = not (self.frozen_layers and self.model.scan_layers)
        check(self, "frozen_layers", "0 with model.scan_layers, which trains all layers as one", is_possible)

    def freezes(self, weight: str) -> bool:
        """Whether a weight keeps its value in training, by its dotted name in either framework."""
        layers = (f"encoder.layers.{i}." for i in range(self.frozen_layers))
        return self.frozen_layers > 0 and weight.startswith(("source_table.", "source_embedding.", *layers))

    @property
    def _target_length(self) -> int:
        return self.batch.max_target_length if self.data.architecture == "seq2seq" else 0
