"""Pads must not change the logits of real tokens."""

import numpy as np

from flax_transformer.doctor.examination import PADDED_ROWS, PADS, ROWS, Examination
from flax_transformer.doctor.limits import WEAK_MASK
from flax_transformer.doctor.result import Result, healthy, not_applicable


def probe_padding(exam: Examination) -> list[Result]:
    """Rows without their last tokens against the same rows with pads there, told by whatever masks the model takes."""
    if exam.facts.pad_id is None and not exam.takes_masks:
        return [not_applicable("padding", "pad_id was not given, and the model takes no mask")]
    change, of_neighbours = _change(exam, "source target")
    limit = exam.limit(same_shape=False)
    if max(change, of_neighbours) <= limit:
        return [healthy("padding", max(change, of_neighbours), limit)]
    if change <= limit:
        detail = "rows without pads change when their neighbours have some"
        return [Result("padding", "ill", of_neighbours, limit, "padding-rows", detail=detail)]
    if not np.isfinite(change):
        return [Result("padding", "ill", None, limit, "not-finite", detail="logits of real tokens are NaN beside pads")]
    if exam.facts.kind == "decoder":
        return [Result("padding", "ill", change, limit, "padding-target")]
    if exam.facts.kind == "encoder":
        return [Result("padding", "ill", change, limit, *_source_cause(exam))]
    by_target, _ = _change(exam, "target")
    if by_target > limit:
        return [Result("padding", "ill", by_target, limit, "padding-target")]
    return [Result("padding", "ill", change, limit, *_source_cause(exam))]


def _change(exam: Examination, sides: str) -> tuple[float, float]:
    """Of rows that got pads in place of tokens that are not there; and of those that only got neighbours with pads."""
    plain = exam.subject.logits(exam.shortened(exam.base, sides))
    padded = exam.subject.logits(exam.padded(exam.base, sides))
    cut = padded[:, : plain.shape[1]] if plain.ndim == 3 else padded
    own, others = exam.change(cut, plain)[PADDED_ROWS], exam.change(padded, exam.base_logits)[1::2]
    return (float(np.nan_to_num(np.max(own), nan=np.inf)), float(np.nan_to_num(np.max(others), nan=np.inf)))


def _source_cause(exam: Examination) -> tuple[str, str]:
    """How the pads get in, and where: the first attention that gives them weight, or else the pooling."""
    for attention in exam.padded_attentions:
        if attention.side == "target":
            continue
        weights, scores = at_pads(attention.weights), at_pads(attention.scores)
        if weights is None or scores is None or np.max(weights) <= 1e-12:
            continue
        cause = "padding-memory" if attention.side == "cross" else "padding-encoder"
        if attention.used is not None and not np.any(at_pads(attention.used)):
            cause = "mask-after-softmax"
        elif np.ptp(scores) < 1e-3:
            cause = "mask-weak" if scores.mean() < WEAK_MASK else "mask-as-zero"
        elif (offsets := at_pads(attention.offsets())) is not None and np.max(offsets) < WEAK_MASK:
            cause = "mask-weak"
        return cause, attention.place
    return ("padding-pooling" if exam.facts.kind == "encoder" and exam.padded_attentions else "padding"), ""


def at_pads(maps: np.ndarray | None) -> np.ndarray | None:
    """Entries (row, head and query, key) of pads as keys, in the rows that have them."""
    if maps is None or maps.shape[-1] <= PADS or len(maps) % ROWS:
        return None
    return maps.reshape(ROWS, -1, maps.shape[-1])[PADDED_ROWS, :, -PADS:]
