"""generate() against a greedy loop over the full pass, and each of its steps against that pass."""

import numpy as np

from flax_transformer.doctor.examination import ROWS, Examination
from flax_transformer.doctor.result import Result, healthy, not_applicable
from flax_transformer.doctor.subject import Batch, ExaminationError

_PROMPT = 3  # tokens; with the steps no longer than any other input, so that JAX need not compile for another length


class GenerationError(Exception):
    """generate() raised."""


def probe_generation(exam: Examination) -> list[Result]:
    facts = exam.facts
    if facts.generate is None:
        return [not_applicable("generation", "generate was not given")]
    if facts.kind == "encoder":
        return [not_applicable("generation", "an encoder does not generate")]
    if facts.kind == "seq2seq" and facts.bos_id is None:
        return [not_applicable("generation", "bos_id was not given")]
    inputs = exam.base.require_target()[:, :_PROMPT] if facts.kind == "decoder" else exam.base.source
    assert inputs is not None, "only a decoder has no source"
    try:
        ids, steps = _generated(exam, inputs)
    except GenerationError as error:
        return [Result("generation", "ill", cause="generate-fails", detail=str(error))]
    again, _ = _generated(exam, inputs)
    if ids.shape != again.shape or not np.array_equal(ids, again):
        return [not_applicable("generation", "generate returns something else each time: it must be greedy")]
    begin = np.full((ROWS, 1), facts.bos_id) if facts.kind == "seq2seq" else inputs
    if ids.shape == begin.shape and np.array_equal(ids, begin):
        return [not_applicable("generation", "generate returned what it was given, and no new token")]
    made = _without_forced_end(_without_begin(ids, begin)[:, : _steps(exam)], facts.eos_id)
    wanted, logits = _greedy(exam, begin, made.shape[1])
    return _compare(exam, made, wanted, logits, steps, begin)


def _steps(exam: Examination) -> int:
    return exam.facts.target_length - (_PROMPT if exam.facts.kind == "decoder" else 1)


def _generated(exam: Examination, inputs: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    assert exam.facts.generate is not None, "asked before"
    try:
        ids, steps = exam.subject.generate(exam.facts.generate, inputs, _steps(exam))
    except Exception as error:
        raise GenerationError(f"{type(error).__name__}: {error}") from error
    if ids.ndim != 2 or len(ids) != len(inputs) or not np.issubdtype(ids.dtype, np.integer):
        raise ExaminationError(f"expected generate() to return ids ({len(inputs)} rows, length), got {ids.shape}")
    return ids, steps


def _without_begin(ids: np.ndarray, begin: np.ndarray) -> np.ndarray:
    width = begin.shape[1]
    returns_begin = ids.shape[1] > width and np.array_equal(ids[:, :width], begin)
    # Only where all rows start so: a word may happen to be the begin token.
    return ids[:, width:] if returns_begin else ids


def _without_forced_end(ids: np.ndarray, eos_id: int | None) -> np.ndarray:
    """Some end every text where the steps end, whatever the logits say."""
    return ids[:, :-1] if ids.shape[1] > 1 and (ids[:, -1] == eos_id).all() else ids


def _greedy(exam: Examination, begin: np.ndarray, steps: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The most probable token again and again, each from a full pass over all before it."""
    rows, step_logits = begin, []
    for _ in range(steps):
        logits = _full_pass(exam, rows)
        step_logits.append(logits)
        rows = np.concatenate([rows, logits.argmax(axis=-1)[:, None]], axis=1)
    return rows[:, begin.shape[1] :], step_logits


def _full_pass(exam: Examination, rows: np.ndarray) -> np.ndarray:
    """Logits behind the last token. Rows are filled up to one length, which under a causal mask changes nothing."""
    missing = exam.facts.target_length - rows.shape[1]
    filled = np.pad(rows, ((0, 0), (0, max(missing, 0))), constant_values=_filler(exam))
    return exam.subject.logits(Batch(exam.base.source, None, filled, None))[:, rows.shape[1] - 1]


def _filler(exam: Examination) -> int:
    return int(exam.ordinary_ids(exam.facts.target_vocab)[0])


def _compare(
    exam: Examination,
    made: np.ndarray,
    wanted: np.ndarray,
    logits: list[np.ndarray],
    steps: list[np.ndarray],
    begin: np.ndarray,
) -> list[Result]:
    results = []
    figure, step = _largest_step_difference(exam, made, wanted, logits, steps)
    differing = np.flatnonzero((_until_end(exam, made) != _until_end(exam, wanted)).any(axis=0))
    limit = exam.limit(same_shape=False)
    if len(differing) and differing[0] == 0:
        starts = _other_begin(exam, made) if exam.facts.kind == "seq2seq" else None
        cause = "generate-mismatch" if starts is None else "begin-token"
        detail = "the first token differs" + ("" if starts is None else f"; it starts from token {starts}")
        return [Result("generation", "ill", 1.0, 0.0, cause, detail=detail)]
    if figure is not None and figure > limit:
        detail = f"logits of step {step + 1} differ from those of the full pass"
        results.append(Result("cached step", "ill", figure, limit, "cache", detail=detail))
    elif figure is not None:
        results.append(healthy("cached step", figure, limit))
    if len(differing):
        detail = f"token {differing[0] + 1} differs"
        cause = "generate-mismatch" if figure is not None and figure <= limit else "cache"
        return [*results, Result("generation", "ill", float(len(differing)), 0.0, cause, detail=detail)]
    return [*results, healthy("generation", 0.0, 0.0)]


def _until_end(exam: Examination, ids: np.ndarray) -> np.ndarray:
    """Whatever stands behind the end token counts no more."""
    if exam.facts.eos_id is None:
        return ids
    ended = np.cumsum(ids == exam.facts.eos_id, axis=1) - (ids == exam.facts.eos_id) > 0
    return np.where(ended, -1, ids)


def _largest_step_difference(
    exam: Examination, made: np.ndarray, wanted: np.ndarray, logits: list[np.ndarray], steps: list[np.ndarray]
) -> tuple[float | None, int]:
    """Over the steps that both made from the same tokens; None where steps could not be observed."""
    if len(steps) < 2 or any(step.shape != full.shape for step, full in zip(steps, logits, strict=False)):
        return None, 0
    worst, at = 0.0, 0
    for number, (step, full) in enumerate(zip(steps, logits, strict=False)):
        same = (made[:, :number] == wanted[:, :number]).all(axis=1)
        change = exam.change(step, full)[same]
        if change.size and change.max() > worst:
            worst, at = float(change.max()), number
    return worst, at


def _other_begin(exam: Examination, made: np.ndarray) -> int | None:
    """The begin token that stands before what was generated, or under which the greedy loop gives its first token."""
    specials = [exam.facts.pad_id, exam.facts.eos_id, 0, 1, 2, 3]
    for token in dict.fromkeys(t for t in specials if t is not None and t != exam.facts.bos_id):
        first = _full_pass(exam, np.full((ROWS, 1), token)).argmax(axis=-1)
        if (made[:, 0] == token).all() or np.array_equal(first, made[:, 0]):
            return int(token)
    return None
