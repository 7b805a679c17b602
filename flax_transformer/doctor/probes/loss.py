"""The user's loss, tried on a model that knows the answer: no training, and the error has a name."""

import numpy as np

import flax_transformer.doctor.limits as limits
from flax_transformer.doctor.examination import PADS, ROWS, Examination
from flax_transformer.doctor.result import Result, healthy, not_applicable
from flax_transformer.doctor.subject import Batch, ExaminationError

_SURE = 30.0  # logit of the token that the oracle predicts
_DISTANCES = (-1, 0, 1, 2)  # of the token that the loss asks for, ahead of the decoder's input


class Oracle:
    """Logits for the token that stands ``distance`` behind each token of the decoder's input.

    Args:
        rows: all of the target, begin and end token included.
        at_pads, at_end: what to predict where the label is a pad, or the end token: "right", "wrong" or "anything".
    """

    def __init__(self, exam: Examination, rows: np.ndarray, distance: int, sure: float = _SURE) -> None:
        self._vocab = exam.facts.target_vocab
        self._rows = rows
        self._distance = distance
        self._sure = sure
        self._wrong: int | None = None

    def wrong_about(self, label: int | None) -> "Oracle":
        """Predict something else wherever the label is this one."""
        self._wrong = label
        return self

    def __call__(self, batch: Batch) -> np.ndarray:
        given = batch.require_target()
        start = 0 if self._starts_at(given, 0) else 1
        logits = np.zeros((*given.shape, self._vocab))
        for i in range(given.shape[1]):
            at = start + i + self._distance
            is_known = 0 <= at < self._rows.shape[1]
            for row, label in enumerate(self._rows[: len(given), at] if is_known else ()):
                if label == self._wrong:
                    logits[row, i, (label + 1) % self._vocab] = _SURE
                else:
                    logits[row, i, label] = self._sure
        return logits

    def _starts_at(self, given: np.ndarray, start: int) -> bool:
        width = min(given.shape[1], self._rows.shape[1] - start)
        return bool((given[:, :width] == self._rows[: len(given), start : start + width]).all())


def probe_loss(exam: Examination) -> list[Result]:
    facts = exam.facts
    if facts.loss is None:
        return [not_applicable("loss", "loss was not given")]
    if facts.kind == "encoder":
        return [not_applicable("loss", "a class has no place in a text")]
    rows = _targets(exam)
    losses = {d: _loss(exam, rows, Oracle(exam, rows, d)) for d in _DISTANCES}
    best = min(losses, key=lambda distance: losses[distance])
    wanted = 0 if exam.shifts_inside else 1
    others = min(value for distance, value in losses.items() if distance != best)
    if losses[best] > 0.7 * others:
        detail = ", ".join(f"{value:.3g} at distance {distance}" for distance, value in losses.items())
        return [not_applicable("loss", f"no model that knows the target gets a low loss: {detail}")]
    detail = f"a model that knows the token {best} ahead of the decoder's input has the least loss"
    if best != wanted:
        cause = "loss-own-token" if best < wanted else "loss-shift"
        return [Result("loss shift", "ill", float(best), float(wanted), cause, detail=detail)]
    results = [healthy("loss shift", losses[best], detail=detail)]
    return [*results, *_end_counted(exam, rows, best, losses[best]), *_padding_counted(exam, rows, best)]


def _targets(exam: Examination) -> np.ndarray:
    """Begin token, different words, end token."""
    facts, random = exam.facts, np.random.default_rng(40)
    ordinary = exam.ordinary_ids(facts.target_vocab)
    length = facts.target_length
    words = np.stack([random.choice(ordinary, length, replace=len(ordinary) < length) for _ in range(ROWS)])
    if facts.bos_id is not None:
        words[:, 0] = facts.bos_id
    if facts.eos_id is not None:
        words[:, -1] = facts.eos_id
    return words


def _loss(exam: Examination, rows: np.ndarray, oracle: Oracle) -> float:
    assert exam.facts.loss is not None, "asked before"
    inputs = [rows]
    if exam.facts.kind == "seq2seq":
        source = exam.base.source
        assert source is not None, "only a decoder has no source"
        inputs = [source, rows]
    try:
        return exam.subject.call_loss(exam.facts.loss, oracle, inputs)
    except ExaminationError:
        raise
    except Exception as error:
        raise ExaminationError(f"loss() failed: {type(error).__name__}: {error}") from error


def _end_counted(exam: Examination, rows: np.ndarray, distance: int, least: float) -> list[Result]:
    eos_id = exam.facts.eos_id
    if eos_id is None:
        return [not_applicable("end token", "eos_id was not given")]
    figure = _loss(exam, rows, Oracle(exam, rows, distance).wrong_about(eos_id)) - least
    if figure < 1e-3:
        detail = "being wrong about the end token costs nothing"
        return [Result("end token", "ill", figure, 1e-3, "loss-no-eos", detail=detail)]
    return [healthy("end token", figure, 1e-3)]


def _padding_counted(exam: Examination, rows: np.ndarray, distance: int) -> list[Result]:
    """A model that is half sure of each word, and wrong about each pad: pads must not change its loss."""
    pad_id = exam.facts.pad_id
    if pad_id is None:
        return [not_applicable("loss padding", "pad_id was not given")]
    plain = _loss(exam, rows, Oracle(exam, rows, distance, sure=1.0))
    padded_rows = np.pad(rows, ((0, 0), (0, PADS)), constant_values=pad_id)
    oracle = Oracle(exam, padded_rows, distance, sure=1.0).wrong_about(pad_id)
    figure = abs(_loss(exam, padded_rows, oracle) - plain) / max(abs(plain), 1e-12)
    if figure > limits.LOSS_CHANGE:
        detail = "pads appended to the target change the loss"
        return [Result("loss padding", "ill", figure, limits.LOSS_CHANGE, "loss-padding", detail=detail)]
    return [healthy("loss padding", figure, limits.LOSS_CHANGE)]
