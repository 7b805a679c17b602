"""Before the first probe: what kind of model it is, how to call it, and which ids it knows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from flax_transformer.doctor.calling import Call, guess_kind, possible_calls
from flax_transformer.doctor.examination import PADDED_ROWS, PADS, Examination, Facts
from flax_transformer.doctor.subject import SMALLEST_VOCAB, ExaminationError, Kind, Subject
from flax_transformer.errors import UserError

_SMALL_VOCAB = 8  # ids that any model should know, until its tables are found
_EQUAL_LENGTH = 9
_UNTOLD = 3  # as bad as a leak: a call that does not tell the padding would hide what is wrong with the mask


class Preparable(Subject, Protocol):
    """What is needed of a subject before its call is known."""

    call: Call | None

    def ready(self) -> AbstractContextManager[None]: ...

    def function(self) -> Callable[..., Any]:
        """What is called, for its parameters to be read."""
        ...

    def table_sizes(self) -> list[int]:
        """How many rows each embedding table has."""
        ...

    def hints(self) -> Mapping[str, int]:
        """``pad_id``, ``bos_id``, ``eos_id`` and ``max_length`` that the model itself tells."""
        ...


def prepare(
    subject: Preparable,
    has_forward: bool,
    kind: Kind | None,
    vocab_size: int | tuple[int, int] | None,
    given: Mapping[str, Any],
) -> tuple[Examination, list[str]]:
    """An examination that can run, and notes for the report.

    Raises:
        ExaminationError: the model cannot be called.
        UserError: what kind of model it is cannot be told.
    """
    largest = max(subject.table_sizes(), default=None)
    hints = {n: v for n, v in subject.hints().items() if n == "max_length" or largest is None or v < largest}
    known = {**given, **{name: value for name, value in hints.items() if given.get(name) is None}}
    source_vocab, target_vocab = _vocabularies(subject, vocab_size)
    wanted = kind or (None if has_forward else guess_kind(subject.function()))
    if wanted is None and not has_forward and given["generate"] is not None:
        wanted = "decoder"  # of those that take one text, only these generate
    promised = given.get("max_length") is not None
    facts = Facts(wanted or "decoder", source_vocab, target_vocab, **known, length_is_promised=promised)
    facts = _fitted_lengths(facts)
    notes: list[str] = []
    exam = (_find_call if wanted else _find_kind)(subject, facts, has_forward, notes)
    if vocab_size is None and exam.base_logits.ndim == 3 and exam.is_causal:
        # Before this the target's vocabulary was a guess from the tables.
        facts = replace(exam.facts, target_vocab=exam.base_logits.shape[-1])
        wider = Examination(subject, replace(facts, target_vocab=max(facts.target_vocab, SMALLEST_VOCAB)))
        wider = _largest_usable(subject, wider, target_vocab)
        wider.runs_only_with_equal_lengths = exam.runs_only_with_equal_lengths
        exam = wider
    if largest is not None:
        _check_ids(given, max(largest, exam.facts.target_vocab))
    return exam, notes


def _check_ids(given: Mapping[str, Any], vocab: int) -> None:
    for name in ("pad_id", "bos_id", "eos_id"):
        if given[name] is not None and given[name] >= vocab:
            raise UserError(f"{name}: expected a token id below {vocab}, which no table reaches, got {given[name]}")


def _vocabularies(subject: Preparable, given: int | tuple[int, int] | None) -> tuple[int, int]:
    if isinstance(given, tuple):
        return given
    if given is not None:
        return given, given
    tables = [size for size in subject.table_sizes() if size >= SMALLEST_VOCAB]
    smallest = min(tables, default=_SMALL_VOCAB)
    return smallest, smallest


def _largest_usable(subject: Preparable, exam: Examination, safe_vocab: int) -> Examination:
    """The vocabulary that the logits promise, unless ids up to it are refused."""
    try:
        if np.isfinite(exam.base_logits).all():
            return exam
    except Exception:
        pass
    # Logits wider than the table of the inputs: padded for speed, or two vocabularies.
    return _Narrow(subject, exam.facts, safe_vocab)


class _Narrow(Examination):
    """Draws ids below ``safe_vocab``, though there are more logits."""

    def __init__(self, subject: Subject, facts: Facts, safe_vocab: int) -> None:
        super().__init__(subject, facts)
        self._safe_vocab = safe_vocab

    def ordinary_ids(self, vocab: int) -> np.ndarray:
        return super().ordinary_ids(min(vocab, self._safe_vocab))


def _fitted_lengths(facts: Facts) -> Facts:
    """Short enough for the model."""
    longest = facts.max_length
    if longest is None or longest >= facts.source_length + PADS:
        return facts
    if longest < 4 + PADS:
        raise UserError(f"max_length: texts of at least {4 + PADS} tokens are needed to look at a model, got {longest}")
    return replace(facts, source_length=longest - PADS, target_length=max(longest - PADS - 2, 4))


def _find_call(subject: Preparable, facts: Facts, has_forward: bool, notes: list[str]) -> Examination:
    """The healthiest way to call the model, of those that run."""
    if has_forward:
        exam = Examination(subject, facts)
        return _run_or_equal_lengths(exam, notes)
    best: tuple[int, Call, Examination] | None = None
    first_error: Exception | None = None
    calls = list(_with_layouts(subject, facts))
    could_tell_padding = any(call.tells_padding for call in calls)
    failed = False
    for call in calls:
        if call.integer_masks and not failed:
            continue  # it took booleans
        failed = False
        subject.call = call
        exam = Examination(subject, facts)
        try:
            badness = _badness(exam) + _UNTOLD * (could_tell_padding and not call.tells_padding)
        except Exception as error:
            # An output of the wrong shape says more than a mask that was not understood.
            if first_error is None or (isinstance(error, ExaminationError) > isinstance(first_error, ExaminationError)):
                first_error = error
            failed = True
            continue
        if best is None or badness < best[0]:
            best = (badness, call, exam)
        if badness == 0:
            break
    if best is None:
        if facts.kind == "seq2seq" and facts.source_length != facts.target_length:
            equal = replace(facts, source_length=_EQUAL_LENGTH, target_length=_EQUAL_LENGTH)
            equal = _fitted_lengths(equal)
            equal = replace(equal, source_length=equal.target_length)
            try:
                exam = _find_call(subject, equal, has_forward, notes)
            except ExaminationError:
                raise _as_examination_error(first_error, facts) from first_error
            exam.runs_only_with_equal_lengths = True
            return exam
        raise _as_examination_error(first_error, facts) from first_error
    subject.call = best[1]
    return best[2]


def _run_or_equal_lengths(exam: Examination, notes: list[str]) -> Examination:
    try:
        _ = exam.base_logits
    except ExaminationError:
        raise
    except Exception as error:
        facts = exam.facts
        if facts.kind != "seq2seq" or facts.source_length == facts.target_length:
            raise _as_examination_error(error, facts) from error
        equal = Examination(
            exam.subject, replace(facts, source_length=facts.target_length, target_length=facts.target_length)
        )
        try:
            _ = equal.base_logits
        except Exception:
            raise _as_examination_error(error, facts) from error
        equal.runs_only_with_equal_lengths = True
        return equal
    return exam


def _as_examination_error(error: Exception | None, facts: Facts) -> ExaminationError:
    if isinstance(error, ExaminationError):
        return error
    text = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {text[0] if text else ''}"
    below = max(facts.source_vocab, facts.target_vocab)
    return ExaminationError(
        f"the model failed on token ids below {below}: {what} (if it is called otherwise, pass forward=)"
    )


def _with_layouts(subject: Preparable, facts: Facts) -> Iterator[Call]:
    """What torch leaves open besides: numbers in place of booleans, and ids as (length, rows)."""
    for call in possible_calls(subject.function(), facts.kind):
        yield call
        if subject.framework == "torch" and call.has_masks:
            yield replace(call, integer_masks=True)
    if subject.framework == "torch":
        yield from (replace(call, sequence_first=True) for call in possible_calls(subject.function(), facts.kind))


def _badness(exam: Examination) -> int:
    """How many of the things that a wrong call would break are broken."""
    logits = exam.base_logits
    if not np.isfinite(logits).all():
        return 100
    badness = 0
    spread = max(exam.spread, 1e-300)
    moved = exam.subject.logits(exam.among_others())
    mixed = max(np.abs(moved[new] - logits[old]).max() for new, old in ((0, 0), (-1, -1), (3, 0)))
    if mixed / spread > exam.fast_limit():
        badness += 10
    if exam.is_causal:
        future, past = np.triu(exam.influence("target"), 1).max(), np.tril(exam.influence("target"), -1).max()
        badness += 3 * (future > exam.fast_limit()) + 3 * (past <= exam.fast_limit())
    if exam.facts.pad_id is not None or exam.takes_masks:
        try:
            plain = exam.subject.logits(exam.shortened(exam.base))
            padded = exam.subject.logits(exam.padded(exam.base))
        except Exception:
            return badness + 2
        if plain.ndim == 3:
            padded = padded[:, : plain.shape[1]]
        elif plain.shape != padded.shape:
            raise ExaminationError(
                f"expected logits ({exam.base.rows} rows, classes), got {logits.shape}, which grows with the text: "
                "pass forward=, with logits (rows, length, 1) where there is one for each token"
            )
        change = np.abs(padded - plain)[PADDED_ROWS].max() / spread
        badness += 0 if change <= exam.fast_limit(same_shape=False) else 2
    return badness


def _find_kind(subject: Preparable, facts: Facts, has_forward: bool, notes: list[str]) -> Examination:
    """One input: a decoder if it looks back only, an encoder if it returns one vector a row."""
    try:
        exam = _find_call(subject, facts, has_forward, notes)
        if not np.isfinite(exam.base_logits).all() or not np.array_equal(subject.logits(exam.base), exam.base_logits):
            return exam  # that is the finding, whatever the kind
        if exam.base_logits.ndim == 3 and np.triu(exam.influence("target"), 1).max() <= exam.fast_limit():
            notes.append("taken for a decoder, because its logits do not depend on later tokens")
            return exam
    except ExaminationError as error:
        classifier = _find_classifier(subject, facts, has_forward, notes)
        if classifier is None:
            raise error
        return classifier
    classifier = _find_classifier(subject, facts, has_forward, notes)
    if classifier is None:
        raise UserError(
            "expected --kind: the logits depend on later tokens, which is right for an encoder and wrong for a decoder"
        )
    return classifier


def _find_classifier(subject: Preparable, facts: Facts, has_forward: bool, notes: list[str]) -> Examination | None:
    try:
        encoder = _find_call(subject, replace(facts, kind="encoder"), has_forward, notes)
    except ExaminationError:
        return None
    if encoder.base_logits.ndim != 2:
        return None
    notes.append("taken for an encoder, because it returns one vector a row")
    return encoder
