"""Mistakes that people make with packed rows, each one line of one twin."""

from dataclasses import dataclass, field
from typing import Any

_T, _F = "torch_reference/nn", "flax_transformer/nn"
CLASSIFIER = {"architecture": "classifier"}


@dataclass(frozen=True)
class PackingMutant:
    """``old`` stands exactly once in ``file``; ``model`` are the fields of the model that shows the mistake."""

    name: str
    file: str
    old: str
    new: str
    model: dict[str, Any] = field(default_factory=dict)


def _in_both(name: str, file: str, old: str, new: str, **model: Any) -> list[PackingMutant]:
    """The same line on both sides."""
    return [PackingMutant(f"{name}, {twin}", f"{twin}/{file}", old, new, model) for twin in (_T, _F)]


PACKING_MUTANTS = [
    *_in_both(
        "segments ignored in the encoder",
        "models.py",
        "AttentionMask(source_lengths, query_segments=source_segments, key_segments=source_segments)",
        "AttentionMask(source_lengths)",
    ),
    *_in_both(
        "segments ignored in the decoder",
        "models.py",
        "causal=True, query_segments=target_segments, key_segments=target_segments)",
        "causal=True)",
    ),
    *_in_both(
        "segments ignored in cross-attention",
        "models.py",
        "AttentionMask(source_lengths, query_segments=target_segments, key_segments=source_segments)",
        "AttentionMask(source_lengths)",
    ),
    *_in_both(
        "causality off within segments",
        "models.py",
        "AttentionMask(target_lengths, causal=True, query_segments",
        "AttentionMask(target_lengths, query_segments",
    ),
    *_in_both(
        "targets read the source of the segment before",
        "models.py",
        "query_segments=target_segments, key_segments=source_segments)",
        "query_segments=target_segments - 1, key_segments=source_segments)",
    ),
    *_in_both(
        "positions do not begin anew",
        "models.py",
        "positions = None if segments is None else segment_positions(segments)",
        "positions = None",
    ),
    *_in_both(
        "learned positions do not begin anew",
        "models.py",
        "positions = None if segments is None else segment_positions(segments)",
        "positions = None",
        positions="learned",
    ),
    *_in_both(
        # Of queries and keys alike, a rotation by the place in the row would be no mistake: only distances matter.
        "keys alone rotated by their place in the row",
        "attention.py",
        "self.project(x, mask.query_offset, segments=mask.key_segments)",
        "self.project(x, mask.query_offset)",
        positions="rope",
    ),
    *_in_both(
        "types counted along the row",
        "models.py",
        "part if segments is None else since_start(part, segments)",
        "part",
        token_types=3,
        **CLASSIFIER,
    ),
    *_in_both(
        "keys smeared across the border",
        "attention.py",
        "if segments is not None:\n        before",
        "if False:\n        before",
        smeared_keys=True,
    ),
    *_in_both("first token of the next segment is a label", "losses.py", "(own == following) & (own > 0)", "own > 0"),
    *_in_both(
        "pooled over the row",
        "pooling.py",
        "own = segments[:, None] ==",
        "own = 0 * segments[:, None] <",
        **CLASSIFIER,
    ),
    *_in_both("padding is a segment", "pooling.py", "arange(1, count + 1", "arange(0, count", **CLASSIFIER),
]
