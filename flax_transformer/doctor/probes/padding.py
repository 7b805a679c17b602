"""Pads must not change the logits of real tokens."""

import numpy as np

from flax_transformer.doctor.examination import PADS, Examination
from flax_transformer.doctor.result import Result, healthy, not_applicable
from flax_transformer.doctor.subject import Batch


def probe_padding(exam: Examination) -> list[Result]:
    """Rows without pads against the same rows with pads appended, told by whatever masks the model takes."""
    short = exam.draw(0, shorter=PADS)
    if exam.facts.pad_id is None and not exam.takes_masks:
        return [not_applicable("padding", "pad_id was not given, and the model takes no mask")]
    plain = exam.subject.logits(short)
    padded = exam.padded(short)
    change, finite = _change(exam, plain, exam.subject.logits(padded))
    limit = exam.limit(same_shape=False)
    if finite and change <= limit:
        return [healthy("padding", change, limit)]
    if not finite:
        return [Result("padding", "ill", None, limit, "not-finite", detail="logits of real tokens are NaN beside pads")]
    if exam.facts.kind != "seq2seq":
        cause = "padding-target" if exam.facts.kind == "decoder" else _encoder_cause(exam)
        return [Result("padding", "ill", change, limit, cause)]
    return [_of_seq2seq(exam, short, padded, plain, limit)]


def _change(exam: Examination, plain: np.ndarray, padded: np.ndarray) -> tuple[float, bool]:
    if plain.ndim == 3:
        padded = padded[:, : plain.shape[1]]
    change = exam.change(padded, plain)
    return float(np.max(change)), bool(np.isfinite(change).all())


def _of_seq2seq(exam: Examination, short: Batch, padded: Batch, plain: np.ndarray, limit: float) -> Result:
    """Which side it is, by padding only one of them."""
    only_target = Batch(short.source, short.source_lengths, padded.target, padded.target_lengths)
    by_target, _ = _change(exam, plain, exam.subject.logits(only_target))
    if by_target > limit:
        return Result("padding", "ill", by_target, limit, "padding-target")
    only_source = Batch(padded.source, padded.source_lengths, short.target, short.target_lengths)
    by_source, _ = _change(exam, plain, exam.subject.logits(only_source))
    return Result("padding", "ill", by_source, limit, _encoder_cause(exam))


def _encoder_cause(exam: Examination) -> str:
    """Where the pads get in: the first attention that gives them weight, or else the pooling."""
    for attention in exam.padded_attentions:
        if attention.side == "target":
            continue
        if attention.keys > PADS and np.max(attention.weights[..., -PADS:]) > 1e-12:
            return "padding-memory" if attention.side == "cross" else "padding-encoder"
    return "padding-pooling" if exam.facts.kind == "encoder" and exam.padded_attentions else "padding"
