"""Long texts: the last position that is promised, the first one that is not, and what attention keeps of them."""

from dataclasses import replace

import numpy as np

from flax_transformer.doctor.examination import Examination
from flax_transformer.doctor.graph import find_attentions
from flax_transformer.doctor.result import Result, healthy, not_applicable
from flax_transformer.doctor.subject import Batch

_KEPT_ROWS = range(1, 5)  # of a table of positions that start behind the pad id, as RoBERTa's do
_LONGEST = 2048  # tokens; a longer pass takes too long to be worth the answer


def probe_length(exam: Examination) -> list[Result]:
    """All of ``max_length`` runs; beyond it the model says so, rather than reading positions that are not there."""
    longest = exam.facts.max_length
    if longest is None:
        return [not_applicable("length", "max_length was not given")]
    results = _try(exam, min(longest, _LONGEST))
    if longest > _LONGEST and all(result.verdict == "healthy" for result in results):
        return [not_applicable("length", f"{_LONGEST} of the {longest} tokens run; no more were tried")]
    return results


def _try(exam: Examination, longest: int) -> list[Result]:
    error = _error_at(exam, longest)
    if error is not None and _error_at(exam, exam.facts.target_length) is not None:
        return [not_applicable("length", f"the model does not take one row alone: {error}")]
    if error is not None and not exam.facts.length_is_promised:
        fits = next((longest - fewer for fewer in _KEPT_ROWS if _error_at(exam, longest - fewer) is None), None)
        if fits is not None:
            detail = f"of {longest} positions, which the model says it has, {longest - fits} are kept for other things"
            return [healthy("length", float(fits), float(fits), detail)]
    if error is not None:
        return [Result("length", "ill", float(longest), float(longest), "overrun", detail=error)]
    if exam.facts.length_is_promised:
        results = _silent_overrun(exam, longest)
        if results:
            return results
    return [healthy("length", float(longest), float(longest))]


def _silent_overrun(exam: Examination, longest: int) -> list[Result]:
    """JAX reads the last row of a table for every position beyond it, without an error; and so may code that clamps."""
    clamped = exam.subject.clamped_lookups(_long_batch(exam, longest))
    if clamped:
        rows, highest = clamped[0]
        detail = f"{longest} tokens: row {highest} of a table of {rows} rows is read"
        return [Result("length", "ill", float(rows), float(longest), "overrun", detail=detail)]
    if _end_has_one_position(exam, longest):
        detail = f"the last two of {longest} tokens have the same position"
        return [Result("length", "ill", float(longest), float(longest), "overrun", detail=detail)]
    return []


def _end_has_one_position(exam: Examination, longest: int) -> bool:
    """Whether exchanging the last two tokens of a source changes nothing, though exchanging the first two does."""
    if exam.base.source is None or longest < 4:
        return False
    return _is_blind_to_exchange(exam, longest, longest - 2) and not _is_blind_to_exchange(exam, longest, 0)


def _is_blind_to_exchange(exam: Examination, length: int, first: int) -> bool:
    """Whether two neighbours of a source may change places: outputs stay what they are, or change places with them."""
    exchanged, random = np.arange(length), np.random.default_rng(51)
    exchanged[[first, first + 1]] = first + 1, first
    source = random.choice(exam.ordinary_ids(exam.facts.source_vocab), length)
    source[[first, first + 1]] = exam.ordinary_ids(exam.facts.source_vocab)[:2]
    target = None if exam.base.target is None else exam.base.target[:1]
    before, after = (exam.subject.logits(Batch(ids[None], None, target, None)) for ids in (source, source[exchanged]))
    if exam.facts.kind == "encoder" and exam.is_token_level:
        before = before[:, exchanged]
    return bool(exam.change(after, before).max() <= exam.limit())


def _long_batch(exam: Examination, length: int) -> Batch:
    """One row, of a source and a target of this length."""
    random = np.random.default_rng(50)
    base = exam.base

    def long(ids: np.ndarray | None, vocab: int) -> np.ndarray | None:
        return None if ids is None else random.choice(exam.ordinary_ids(vocab), (1, length))

    return Batch(long(base.source, exam.facts.source_vocab), None, long(base.target, exam.facts.target_vocab), None)


def _error_at(exam: Examination, length: int) -> str | None:
    try:
        logits = exam.subject.logits(_long_batch(exam, length))
    except Exception as error:
        return f"{length} tokens: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if not np.isfinite(logits).all():
        return f"{length} tokens: logits are NaN"
    return None


def probe_memory(exam: Examination) -> list[Result]:
    """Whether scores are kept whole. Only advice: for short texts it does not matter."""
    trace = exam.subject.plain_trace(replace(exam.base))
    if trace is None:
        return [not_applicable("memory", "only PyTorch chooses a kernel while it runs")]
    kept = len(find_attentions(trace.nodes))
    if kept:
        return [Result("memory", "advice", float(kept), 0.0, "quadratic-memory")]
    return [healthy("memory", 0.0, 0.0)]
