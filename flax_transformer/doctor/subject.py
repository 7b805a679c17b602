"""What the probes know of a model: one small interface, implemented once for PyTorch and once for JAX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from flax_transformer.doctor.graph import Node

Kind = Literal["seq2seq", "decoder", "encoder"]
Lengths = Int[np.ndarray, " rows"]
SMALLEST_VOCAB = 4  # a smaller embedding table holds segments or flags


class ExaminationError(Exception):
    """The model cannot be run as it must be to be examined. The message is one line for its author."""


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass. A decoder-only model has no ``source``, an encoder no ``target``.

    Args:
        source_lengths: how many tokens of each row are real; the rest are padding.
    """

    source: Int[np.ndarray, "rows source"] | None
    source_lengths: Lengths | None
    target: Int[np.ndarray, "rows target"] | None
    target_lengths: Lengths | None

    @property
    def rows(self) -> int:
        return len(self.source if self.source is not None else self.require_target())

    def require_target(self) -> Int[np.ndarray, "rows target"]:
        assert self.target is not None, "only an encoder has no target"
        return self.target


@dataclass(frozen=True)
class Gradient:
    """Of the training loss with respect to one parameter. ``norm`` is None where the loss does not depend on it."""

    name: str
    shape: tuple[int, ...]
    norm: float | None

    @property
    def is_weight(self) -> bool:
        """No bias and no gain."""
        return len(self.shape) >= 2


@dataclass(frozen=True)
class Structure:
    """What the object tree of a model tells without running it. Each string is a path or names several."""

    unregistered: Sequence[str] = ()
    shared: Sequence[str] = ()
    identical: Sequence[str] = ()
    frozen: Sequence[str] = ()
    norm_first: bool | None = None
    depth: int = 0


@dataclass
class Trace:
    """The operations of one forward pass, in order.

    Args:
        outputs: what the model returned, the logits first.
        epsilon: machine epsilon of the lowest precision between ids and logits.
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    epsilon: float = 0.0

    def parameters_of(self, outputs: Sequence[Node], through_empty: bool = False) -> set[str]:
        """Names of those that these outputs were computed from.

        Args:
            through_empty: count those that only met arrays without a number too, as an expert without tokens does.
        """
        seen: set[Node] = set()
        queue = list(outputs)
        while queue:
            node = queue.pop()
            if node not in seen and (node.size or through_empty):
                seen.add(node)
                queue += node.inputs
        return {node.parameter for node in seen if node.parameter}


def starts_at_zero(name: str, weight: Any) -> bool:
    """Whether a matrix, or the scale of a branch, is all zero, as some schemes start what ends a residual branch.

    Nothing behind it can be measured, though nothing is wrong (Zhang et al., 2019, "Fixup Initialization"; Bachlechner
    et al., 2021, "ReZero"). Biases start there anyway, in Flax also those of several heads; and a table of
    positions that is all zero tells none.
    """
    values = np.asarray(weight)
    is_other = name.endswith(("bias", "embedding")) or "pos" in name.lower()
    is_branch = (values.ndim >= 2 or values.size == 1) and not is_other
    return is_branch and values.size > 0 and not values.any()


def stand_in(shape: Sequence[int]) -> Float[np.ndarray, "..."]:
    """Small numbers in the place of zeros, always the same."""
    if np.prod(shape, dtype=int) == 1:
        return np.full(shape, 0.5)
    return 0.5 * max(shape) ** -0.5 * np.random.default_rng(0).standard_normal(shape)


class Subject(Protocol):
    """A model under examination. All arrays are numpy; logits come back as float64."""

    framework: str
    epsilon: float  # machine epsilon of the lowest precision in use
    output_note: str  # which of several outputs was taken for the logits; "" where there is but one
    zeros: list[str]  # weights that are all zero, for which others stand in

    @property
    def takes_masks(self) -> bool:
        """Whether it is told which tokens are padding, other than by the pad id."""
        ...

    def numpy(self, value: Any) -> np.ndarray:
        """A value of a trace."""
        ...

    def logits(self, batch: Batch) -> Float[np.ndarray, " rows *rest"]:
        """Of the model in evaluation mode: (rows, length, vocab), or (rows, classes)."""
        ...

    def logits_again(self, batch: Batch) -> Float[np.ndarray, " rows *rest"]:
        """The same once more, with other random numbers wherever any are drawn."""
        ...

    def trace(self, batch: Batch) -> Trace:
        """Every operation of a forward pass, with the values that :func:`flax_transformer.doctor.graph` needs."""
        ...

    def plain_trace(self, batch: Batch) -> Trace | None:
        """With the kernels that the model would use, fused ones too. None where they are not chosen at run time."""
        ...

    def clamped_lookups(self, batch: Batch) -> Sequence[tuple[int, int]]:
        """Where positions are read beyond the end of a table: (rows that it has, highest row asked for)."""
        ...

    def gradients(self, batch: Batch, labels: Int[np.ndarray, " rows *length"]) -> list[Gradient]:
        """Of the mean cross entropy of the logits."""
        ...

    def structure(self) -> Structure: ...

    def is_random_in_training(self, batch: Batch) -> bool | None:
        """Whether training mode computes something else each time (dropout). None where that cannot be tried."""
        ...

    def changed_state(self) -> Sequence[str]:
        """Names of parameters and buffers that forward passes in evaluation mode have changed so far."""
        ...

    def call_loss(
        self, loss: Callable[..., Any], fake: Callable[[Batch], np.ndarray] | None, inputs: Sequence[np.ndarray]
    ) -> float:
        """``loss(model, *inputs)``, where ``fake`` takes the place of the model if given."""
        ...

    def generate(
        self, generate: Callable[..., Any], inputs: np.ndarray, steps: int
    ) -> tuple[Int[np.ndarray, "rows length"], list[np.ndarray]]:
        """The ids that ``generate(model, inputs, steps)`` returns, and the logits (rows, vocab) that each of its
        forward passes ended with, where they can be observed."""
        ...
