"""The state that probes share: the subject, what is known of it, and measurements that several of them need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

import flax_transformer.doctor.limits as limits
from flax_transformer.doctor.graph import (
    Attention,
    AttentionNodes,
    PositionTerm,
    find_attentions,
    find_position_terms,
    read_attention,
)
from flax_transformer.doctor.subject import Batch, Gradient, Kind, Lengths, Subject, Trace

ROWS = 12  # one base row and a row for each exchanged token
PADS = 3
PADDED_ROWS = slice(0, None, 2)  # beside them stand full rows: a mask must not be taken from a neighbour
DRAWS = 2  # an effect counts as missing only if it is in all of them


@dataclass(frozen=True)
class Facts:
    """What the user said of the model, or what was found out.

    Args:
        source_vocab, target_vocab: ids are drawn below these.
        fresh: weights are as initialized, so that their distribution can be judged.
        length_is_promised: the user said ``max_length``; else it was read off the model, as a size of its tables.
    """

    kind: Kind
    source_vocab: int
    target_vocab: int
    pad_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    loss: Callable[..., Any] | None = None
    generate: Callable[..., Any] | None = None
    max_length: int | None = None
    fresh: bool = True
    length_is_promised: bool = True
    source_length: int = 11
    target_length: int = 7  # primes, so that an axis cannot be taken for another


class Examination:
    """One subject under examination; figures are computed once, when a probe first asks."""

    def __init__(self, subject: Subject, facts: Facts) -> None:
        self.subject = subject
        self.facts = facts
        self.runs_only_with_equal_lengths = False
        self.notes: list[str] = []

    @property
    def takes_masks(self) -> bool:
        """Whether the model is told which tokens are padding, other than by pad_id."""
        return self.subject.takes_masks

    @cached_property
    def shifts_inside(self) -> bool:
        """Whether logits at a position depend on tokens before it only, because the model shifts its input."""
        influence = self.influence("target")
        return bool((np.diagonal(influence) <= self.limit()).all() and influence.max() > self.limit())

    @cached_property
    def gradients(self) -> list[Gradient]:
        """Of random labels; where a weight gets none, of further batches: an expert may have had no token."""
        found = self._gradients(self.base)
        for seed in range(3):
            if all(gradient.norm for gradient in found if gradient.is_weight):
                break
            others = self._gradients(self.draw(60 + seed))
            found = [one if one.norm else other for one, other in zip(found, others, strict=True)]
        return found

    def _gradients(self, batch: Batch) -> list[Gradient]:
        shape = self.base_logits.shape
        return self.subject.gradients(batch, np.random.default_rng(3).integers(shape[-1], size=shape[:-1]))

    @property
    def is_causal(self) -> bool:
        return self.facts.kind != "encoder"

    def draw(self, seed: int) -> Batch:
        """A batch of random ids, without padding."""
        facts, random = self.facts, np.random.default_rng(seed)
        source = target = None
        if facts.kind != "decoder":
            source = self._ids(random, facts.source_vocab, facts.source_length)
        if facts.kind != "encoder":
            target = self._ids(random, facts.target_vocab, facts.target_length)
        return Batch(source, None, target, None)

    def _ids(self, random: np.random.Generator, vocab: int, length: int) -> np.ndarray:
        return random.choice(self.ordinary_ids(vocab), (ROWS, length))

    def ordinary_ids(self, vocab: int) -> np.ndarray:
        special = {self.facts.pad_id, self.facts.bos_id, self.facts.eos_id, 0}
        ordinary = [i for i in range(vocab) if i not in special]
        return np.array(ordinary if len(ordinary) > 2 else range(vocab))

    def exchanged(self, batch: Batch, side: str, seed: int) -> Batch:
        """Row 0 in every row, but in row 1 + j token j is another one."""
        random = np.random.default_rng(seed)
        ids = np.repeat(getattr(batch, side)[:1], ROWS, axis=0)
        ordinary = self.ordinary_ids(self.facts.source_vocab if side == "source" else self.facts.target_vocab)
        for j in range(ids.shape[1]):
            ids[1 + j, j] = random.choice(ordinary[ordinary != ids[0, j]])
        other = "target" if side == "source" else "source"
        same = getattr(batch, other)
        same = None if same is None else np.repeat(same[:1], ROWS, axis=0)
        return replace(batch, **{side: ids, other: same})

    def among_others(self) -> Batch:
        """The base batch with its first and last rows kept, the first also in row 3, and other rows between."""

        def mixed(ids: np.ndarray | None, others: np.ndarray | None) -> np.ndarray | None:
            if ids is None or others is None:
                return None
            return np.concatenate([ids[:1], others[1:3], ids[:1], others[4:-1], ids[-1:]])

        other = self.draw(1)
        return Batch(mixed(self.base.source, other.source), None, mixed(self.base.target, other.target), None)

    def padded(self, batch: Batch, sides: str = "source target") -> Batch:
        """The last tokens of every other row replaced by pads, and told by lengths."""
        source, source_lengths = self._pad(batch.source) if "source" in sides else (batch.source, None)
        target, target_lengths = self._pad(batch.target) if "target" in sides else (batch.target, None)
        return Batch(source, source_lengths, target, target_lengths)

    def _pad(self, ids: np.ndarray | None) -> tuple[np.ndarray | None, Lengths | None]:
        if ids is None:
            return None, None
        padded, lengths = ids.copy(), np.full(len(ids), ids.shape[1])
        padded[PADDED_ROWS, -PADS:] = self.facts.pad_id or 0
        lengths[PADDED_ROWS] -= PADS
        return padded, lengths

    def shortened(self, batch: Batch, sides: str = "source target") -> Batch:
        """Every row without its last tokens."""
        source = batch.source if batch.source is None or "source" not in sides else batch.source[:, :-PADS]
        target = batch.target if batch.target is None or "target" not in sides else batch.target[:, :-PADS]
        return Batch(source, None, target, None)

    @cached_property
    def base(self) -> Batch:
        return self.draw(0)

    @cached_property
    def base_logits(self) -> Float[np.ndarray, " rows *rest"]:
        return self.subject.logits(self.base)

    @cached_property
    def spread(self) -> float:
        """The standard deviation of logits over inputs and vocabulary, beside what is the same for all inputs."""
        logits = self.base_logits
        return float(np.std(logits - logits.mean(axis=tuple(range(logits.ndim - 1)), keepdims=True)))

    def change(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How much logits differ, relative to their spread; the vocabulary is reduced to its largest change."""
        return np.abs(a - b).max(axis=-1) / max(self.spread, 1e-300)

    def limit(self, same_shape: bool = True) -> float:
        return limits.effect(max(self.subject.epsilon, self.inner_epsilon), same_shape)

    @property
    def least_effect(self) -> float:
        """The largest change that counts as none where there must be one, though words are summed in another order.

        In half precision rounding may change as much as some effects do; what may be either is not called missing.
        """
        return min(self.limit(same_shape=False), limits.EFFECT_HALF)

    def fast_limit(self, same_shape: bool = True) -> float:
        """As :meth:`limit`, without a look inside, for when it is still open how to call the model."""
        return max(limits.effect(self.subject.epsilon, same_shape), limits.RESHAPED_FLOAT32)

    @cached_property
    def inner_epsilon(self) -> float:
        """Of the lowest precision on the way from the ids to the logits: some models compute softmax in float32."""
        return self.trace.epsilon

    @property
    def is_token_level(self) -> bool:
        return self.base_logits.ndim == 3

    def influence(self, side: str) -> Float[np.ndarray, "outputs inputs"]:
        """D[i, j]: how much exchanging token j moves logits i. Of a classifier there is one row."""
        if side not in self._influences:
            self._influences[side] = np.max([self._one_influence(side, seed) for seed in range(DRAWS)], axis=0)
        return self._influences[side]

    @cached_property
    def _influences(self) -> dict[str, np.ndarray]:
        return {}

    def _one_influence(self, side: str, seed: int) -> np.ndarray:
        base = self.draw(10 + seed)
        logits = self.subject.logits(self.exchanged(base, side, seed))
        length = getattr(base, side).shape[1]
        moved = self.change(logits[1 : 1 + length], logits[:1])
        return moved.T if moved.ndim == 2 else moved[None]

    @cached_property
    def trace(self) -> Trace:
        """Empty where the operations of this model cannot be recorded; then only the white-box probes go without."""
        try:
            return self.subject.trace(self.base)
        except Exception as error:
            self.notes.append(f"not looked into: {type(error).__name__}: {str(error).splitlines()[:1]}")
            return Trace()

    @cached_property
    def attention_nodes(self) -> list[AttentionNodes]:
        return find_attentions(self.trace.nodes)

    @cached_property
    def attentions(self) -> list[Attention]:
        return self._read(self.attention_nodes)

    @cached_property
    def padded_attentions(self) -> list[Attention]:
        return self.attentions_on(self.padded(self.base))

    def attentions_on(self, batch: Batch) -> list[Attention]:
        return self._read(find_attentions(self.subject.trace(batch).nodes))

    def _read(self, found: Sequence[AttentionNodes]) -> list[Attention]:
        lengths = (self.facts.source_length, self.facts.target_length)
        read = [read_attention(nodes, self.subject.numpy, lengths) for nodes in found]
        return [attention for attention in read if attention is not None]

    @cached_property
    def position_terms(self) -> list[PositionTerm]:
        return find_position_terms(self.trace.nodes)
