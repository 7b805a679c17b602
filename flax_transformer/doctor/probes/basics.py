"""Does it run, does it repeat itself, and do rows keep to themselves?"""

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
    """The same call twice, in JAX with other random keys."""
    change = float(exam.change(exam.subject.logits_again(exam.base), exam.base_logits).max())
    limit = exam.limit()
    if change > limit:
        twice = "the same call, made twice"
        detail = twice if exam.subject.framework == "torch" else f"{twice}, with other random keys"
        return [Result("determinism", "ill", change, limit, "nondeterministic", detail=detail)]
    return [healthy("determinism", change, limit)]


def probe_batch(exam: Examination) -> list[Result]:
    """The first and the last row among other neighbours, and the first in another place."""
    moved = exam.subject.logits(exam.among_others())
    base = exam.base_logits
    # A row in another place may be rounded otherwise; in its own it may not.
    changes = [
        (exam.change(moved[0], base[0]), exam.limit(), "row 0 among other neighbours"),
        (exam.change(moved[-1], base[-1]), exam.limit(), "the last row among other neighbours"),
        (exam.change(moved[3], base[0]), exam.limit(same_shape=False), "row 0 in the place of row 3"),
    ]
    for change, limit, detail in changes:
        if change.max() > limit:
            return [Result("batch", "ill", float(change.max()), limit, "batch-leak", detail=detail)]
    return [healthy("batch", float(max(change.max() for change, _, _ in changes)), exam.limit())]


def probe_state(exam: Examination) -> list[Result]:
    """Forward passes in evaluation mode leave parameters and buffers alone. Looked at last."""
    changed = exam.subject.changed_state()
    if changed:
        figure, place = float(len(changed)), ", ".join(changed[:3])
        if exam.change(exam.subject.logits(exam.base), exam.base_logits).max() <= exam.limit():
            detail = "the logits stay the same, as with a cache that is written before it is read"
            return [Result("state", "warning", figure, 0.0, "mutates", place, detail)]
        return [Result("state", "ill", figure, 0.0, "mutates", place)]
    return (
        [healthy("state", 0.0, 0.0)]
        if exam.subject.framework == "torch"
        else [not_applicable("state", "a pure function has none")]
    )
