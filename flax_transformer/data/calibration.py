"""Whether a model knows when it is right: calibration of its confidence, and what can be accepted at a given risk."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 15
RISKS = (0.01, 0.05)  # that are commonly accepted


class Reliability(NamedTuple):
    """Predictions by confidence, in bins of equal width. An empty bin has a confidence and an accuracy of 0.

    ``counts`` are the predictions of each bin, ``confidence`` their mean confidence, ``accuracy`` the share that is
    right.
    """

    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]


def reliability(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = BINS) -> Reliability:
    """The reliability diagram (Guo et al., 2017, section 2): bin m holds confidences in ((m - 1) / bins, m / bins].

    Args:
        confidence: probability of each prediction, in [0, 1].
        right: whether the prediction is right.
    """
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    sums = (np.bincount(number, weights, bins) for weights in (confidence, right.astype(float)))
    return Reliability(counts, *(total / np.maximum(counts, 1) for total in sums))


def calibration_error(bins: Reliability) -> float:
    """ECE, the expected calibration error: how far confidence and accuracy of a bin are apart, on average."""
    return float(bins.counts @ np.abs(bins.confidence - bins.accuracy) / bins.counts.sum())


def brier_score(probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]) -> float:
    """The mean squared distance of the probabilities from the one-hot label, summed over classes (Brier, 1950).

    0 is best, 2 worst.
    """
    expected = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - expected) ** 2).sum(axis=1).mean())


class RiskCoverage(NamedTuple):
    """What comes of accepting all predictions with a score of at least ``threshold``, from the strictest one down.

    ``coverage`` is the share that is accepted, ``risk`` the share of these that is wrong. Predictions of equal score
    are accepted together.
    """

    threshold: Float[np.ndarray, " thresholds"]
    coverage: Float[np.ndarray, " thresholds"]
    risk: Float[np.ndarray, " thresholds"]


def risk_coverage(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> RiskCoverage:
    """The risk-coverage curve (El-Yaniv and Wiener, 2010; Geifman and El-Yaniv, 2017).

    Args:
        scores: of each prediction; higher is more confident. Any increasing function of them gives the same curve.
        right: whether the prediction is right.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, accepted = scores[order], np.arange(1, len(scores) + 1)
    is_last = np.append(ordered[1:] != ordered[:-1], True)  # of its equals
    wrong = np.cumsum(~right[order])
    return RiskCoverage(ordered[is_last], (accepted / len(scores))[is_last], (wrong / accepted)[is_last])


def area_under_risk_coverage(curve: RiskCoverage) -> float:
    """AURC: the mean risk over all coverages (Geifman et al., 2019). 0 is best; random scores give the error rate."""
    return float(np.diff(curve.coverage, prepend=0) @ curve.risk)


class Accepted(NamedTuple):
    """The largest share that can be accepted at some risk, and the score from which on; none has a threshold of inf."""

    coverage: float
    threshold: float


def accepted_at(curve: RiskCoverage, risk: float) -> Accepted:
    """What can be accepted so that at most a share ``risk`` of it is wrong, as counted on these very predictions."""
    allowed = np.flatnonzero(curve.risk <= risk)
    if allowed.size == 0:
        return Accepted(0.0, np.inf)
    return Accepted(float(curve.coverage[allowed[-1]]), float(curve.threshold[allowed[-1]]))


def lines(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], is_probability: bool) -> Iterator[str]:
    """The calibration error, where scores are probabilities, and what can be accepted at some risks, for people."""
    if is_probability:
        yield f"calibration error (ECE, {BINS} bins) {calibration_error(reliability(scores, right)):.1%}"
    curve = risk_coverage(scores, right)
    for risk in RISKS:
        share, threshold = accepted_at(curve, risk)
        start = f", those with a score of at least {threshold:.4g}" if share else ""
        yield f"at most {risk:.0%} wrong among the surest {share:.1%}{start}"
