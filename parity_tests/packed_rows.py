"""The same examples in rows of their own and in packed rows, and how far apart a model's outcomes lie."""

from typing import Any

import numpy as np

from flax_transformer.config import ModelConfig
from flax_transformer.data.batches import Batch, Encoded, MaskedBatch, Sequences, Shape
from flax_transformer.data.packing import PackedMaskedBatch
from flax_transformer.parity.torch_side import Outcome

SOURCE_LENGTHS, TARGET_LENGTHS = (4, 1, 6, 3, 2, 5), (3, 6, 4, 2, 5, 4)  # targets with begin and end token
# A row without padding, two with, and filler.
ROWS = np.array([[0, 1, 2], [3, 4, -1], [5, -1, -1], [-1, -1, -1]])
ALONE, PACKED = Shape(6, 6), Shape(11, 13)


def encoded_of(config: ModelConfig, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    sources, targets = (
        [rng.integers(1, config.source_vocab_size, length) for length in lengths]
        for lengths in (SOURCE_LENGTHS, TARGET_LENGTHS)
    )
    for source in sources:
        source[len(source) // 2] = config.eos_id  # the separator that token types are counted by
    sources, targets = Sequences(map(list, sources)), Sequences(map(list, targets))
    labels = rng.integers(0, config.num_classes or 1, len(SOURCE_LENGTHS)).astype(np.int32)
    return Encoded(sources, targets if config.architecture == "seq2seq" else labels, pad_id=0, unk_id=1)


def both_batches(config: ModelConfig) -> tuple[Batch, Batch]:
    """The examples in rows of their own, and packed."""
    encoded = encoded_of(config)
    alone = encoded.batch(np.arange(len(encoded)), ALONE)
    packed = encoded.packed(ROWS, PACKED)
    if config.architecture != "masked":
        return alone, packed
    # The last token of each example is predicted.
    lengths = np.array(SOURCE_LENGTHS, np.int32)
    tokens = np.array([alone.source[i, length - 1] for i, length in enumerate(lengths)], np.int32)
    ends = np.where(ROWS < 0, 0, lengths[ROWS]).cumsum(axis=1, dtype=np.int32)
    counts = (ROWS >= 0).sum(axis=1, dtype=np.int32)
    places, labels = np.maximum(ends - 1, 0), np.where(ROWS < 0, 0, tokens[ROWS])
    return (
        MaskedBatch(alone.source, lengths, lengths[:, None] - 1, tokens[:, None], np.ones(len(lengths), np.int32)),
        PackedMaskedBatch(packed.source, packed.source_segments, places, labels, counts),
    )


def differences(packed: Outcome, alone: Outcome, batch: Any) -> dict[str, float]:
    """Of packed rows from rows of their own: in the loss, in the worst gradient, and in the worst logit."""
    gradients = [
        np.abs(packed.gradients[name] - expected).max() / max(1.0, np.abs(expected).max())
        for name, expected in alone.gradients.items()
    ]
    found = {"loss": float(np.abs(packed.loss - alone.loss)), "gradients": max(gradients)}
    found["count"] = float(packed.count != alone.count)
    if "logits" in packed.intermediates:
        pairs = zip(_logits(packed, batch), _logits_alone(alone, batch), strict=True)
        found["logits"] = max(float(np.abs(a - b).max()) for a, b in pairs)
    return found


def _logits(outcome: Outcome, batch: Any) -> list[np.ndarray]:
    """Of each example of the packed rows, in their order: those that have labels."""
    logits = outcome.intermediates["logits"]
    if not hasattr(batch, "target_segments"):
        return [logits[row, segment] for row, segment in np.argwhere(ROWS >= 0)]
    return [
        logits[row, np.flatnonzero(batch.target_segments[row] == segment + 1)[:-1]]
        for row, segment in np.argwhere(ROWS >= 0)
    ]


def _logits_alone(outcome: Outcome, batch: Any) -> list[np.ndarray]:
    logits = outcome.intermediates["logits"]
    examples = ROWS[ROWS >= 0]
    if hasattr(batch, "target_segments"):
        return [logits[i, : TARGET_LENGTHS[i] - 1] for i in examples]
    return [logits[i, 0] if logits.ndim == 3 else logits[i] for i in examples]
