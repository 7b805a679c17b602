"""Does it run, does it repeat itself, and do rows keep to themselves?"""

from dataclasses import replace

import numpy as np

from flax_transformer.doctor.examination import Examination
from flax_transformer.doctor.result import Result, healthy, not_applicable


def probe_outputs(exam: Examination) -> list[Result]:
    """Logits are finite, depend on the input, and are no probabilities."""
    logits = exam.base_logits
    bad = float(np.mean(~np.isfinite(logits)))
    if bad:
        return [Result("finite", "ill", bad, 0.0, "not-finite", detail=f"{bad:.0%} of the logits are NaN or infinite")]
    results = [healthy("finite", 0.0, 0.0)]
    if exam.runs_only_with_equal_lengths:
        detail = f"runs with {exam.facts.target_length} and {exam.facts.target_length} tokens only"
        results.append(Result("lengths", "ill", cause="length-tied", detail=detail))
    scale = max(float(np.abs(logits).max()), 1e-12)
    if exam.spread < 1e-12 * scale:
        return [*results, Result("constant", "ill", exam.spread, 1e-12 * scale, "constant-logits")]
    results.append(healthy("constant", exam.spread, 1e-12 * scale))
    sums = logits.sum(axis=-1)
    off = float(np.abs(sums - 1).max())
    if logits.shape[-1] > 1 and logits.min() >= 0 and off < 1e-3:
        detail = f"logits are not negative and sum to 1 within {off:.0e}"
        return [*results, Result("probabilities", "ill", off, 1e-3, "probabilities", detail=detail)]
    return [*results, healthy("probabilities", off, 1e-3)]


def probe_determinism(exam: Examination) -> list[Result]:
    """The same call twice."""
    change = float(exam.change(exam.subject.logits(exam.base), exam.base_logits).max())
    limit = exam.limit()
    if change > limit:
        return [Result("determinism", "ill", change, limit, "nondeterministic", detail="the same call, made twice")]
    return [healthy("determinism", change, limit)]


def probe_batch(exam: Examination) -> list[Result]:
    """Row 0 among other neighbours. The shape stays, so not even rounding may differ."""
    other = exam.draw(1)
    mixed = replace(
        other,
        source=_with_first_row(other.source, exam.base.source),
        target=_with_first_row(other.target, exam.base.target),
    )
    change = float(exam.change(exam.subject.logits(mixed)[0], exam.base_logits[0]).max())
    limit = exam.limit()
    if change > limit:
        return [Result("batch", "ill", change, limit, "batch-leak", detail="row 0 among other neighbours")]
    return [healthy("batch", change, limit)]


def _with_first_row(ids: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if ids is None or other is None else np.concatenate([other[:1], ids[1:]])


def probe_state(exam: Examination) -> list[Result]:
    """Forward passes in evaluation mode leave parameters and buffers alone. Looked at last."""
    changed = exam.subject.changed_state()
    if changed:
        return [Result("state", "ill", float(len(changed)), 0.0, "mutates", place=", ".join(changed[:3]))]
    return [healthy("state", 0.0, 0.0)] if exam.subject.framework == "torch" else [
        not_applicable("state", "a pure function has none")
    ]
