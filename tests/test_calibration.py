"""Calibration and risk-coverage against the formulas, written out prediction by prediction."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from flax_transformer.data import calibration

N, CLASSES = 211, 5


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Confidences with ties, the ends of the scale and edges of bins; the surest of all is wrong."""
    rng = np.random.default_rng(3)
    confidence = np.concatenate([rng.random(N - 31).round(2), np.arange(16) / 15, np.full(15, 0.5)])
    return confidence, (rng.random(N) < confidence) & (confidence < 1)


def direct_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    total = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, p in enumerate(confidence) if (m - 1) / bins < p <= m / bins or (m == 1 and p == 0)]
        if inside:
            accuracy = sum(bool(right[i]) for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    return total


def direct_risk(scores: np.ndarray, right: np.ndarray, threshold: float) -> tuple[float, float]:
    accepted = [bool(right[i]) for i, score in enumerate(scores) if score >= threshold]
    return len(accepted) / len(scores), accepted.count(False) / len(accepted)


def check_calibration_error(module: ModuleType) -> None:
    confidence, right = drawn()
    for bins in (1, 7, 15):
        found = module.calibration_error(module.reliability(confidence, right, bins))
        assert found == pytest.approx(direct_calibration_error(confidence, right, bins), abs=1e-12)


def check_brier_score(module: ModuleType) -> None:
    rng = np.random.default_rng(4)
    probabilities, labels = rng.dirichlet(np.ones(CLASSES), N), rng.integers(CLASSES, size=N)
    direct = sum(
        (probabilities[i, k] - (1 if labels[i] == k else 0)) ** 2 for i in range(N) for k in range(CLASSES)
    ) / N  # fmt: skip
    assert module.brier_score(probabilities, labels) == pytest.approx(direct, abs=1e-12)
    assert module.brier_score(np.eye(2), np.array([1, 0])) == 2


def check_risk_coverage(module: ModuleType) -> None:
    scores, right = drawn()
    curve = module.risk_coverage(scores, right)
    assert curve.threshold.tolist() == sorted(set(scores), reverse=True)
    points = list(zip(curve.coverage, curve.risk, strict=True))
    np.testing.assert_allclose(points, [direct_risk(scores, right, threshold) for threshold in curve.threshold])
    direct = np.mean([direct_risk(scores, right, score)[1] for score in scores])
    assert module.area_under_risk_coverage(curve) == pytest.approx(direct, abs=1e-12)


def check_acceptance(module: ModuleType) -> None:
    scores, right = drawn()
    for risk in (0.01, 0.2, 1.0):
        allowed = [(c, t) for t in scores for c, r in [direct_risk(scores, right, t)] if r <= risk]
        found = module.accepted_at(module.risk_coverage(scores, right), risk)
        assert tuple(found) == pytest.approx(max(allowed, default=(0, np.inf)))
    curve = module.risk_coverage(np.array([0.9, 0.8]), np.array([False, True]))
    assert [tuple(module.accepted_at(curve, risk)) for risk in (0.4, 0.5)] == [(0.0, np.inf), (1.0, 0.8)]


CHECKS = {
    check.__name__: check
    for check in (check_calibration_error, check_brier_score, check_risk_coverage, check_acceptance)
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_as_the_formula_says(check: Callable[[ModuleType], None]):
    check(calibration)


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("np.ceil(confidence * bins).astype(int) - 1", "np.floor(confidence * bins).astype(int)", "calibration_error"),
        ("bins.counts @ np.abs", "bins.counts.astype(bool) @ np.abs", "calibration_error"),
        ("np.abs(bins.confidence - bins.accuracy)", "(bins.confidence - bins.accuracy)", "calibration_error"),
        (".sum(axis=1).mean()", ".mean()", "brier_score"),
        ("np.argsort(-scores", "np.argsort(scores", "risk_coverage"),
        ("np.append(ordered[1:] != ordered[:-1], True)", "np.ones(len(scores), bool)", "risk_coverage"),
        ("wrong / accepted", "wrong / len(scores)", "risk_coverage"),
        ("prepend=0", "prepend=curve.coverage[0]", "risk_coverage"),
        ("curve.risk <= risk", "curve.risk < risk", "acceptance"),
        ("allowed[-1]]), float", "allowed[0]]), float", "acceptance"),
    ],
)
def test_planted_mistakes_are_seen(old: str, new: str, check: str):
    source = inspect.getsource(calibration)
    assert source.count(old) == 1
    mutant: Any = ModuleType("mutant")
    exec(source.replace(old, new), mutant.__dict__)
    with pytest.raises(AssertionError):
        CHECKS[f"check_{check}"](mutant)


def test_a_random_order_has_the_error_rate_as_its_area():
    curve = calibration.risk_coverage(np.zeros(8), np.arange(8) < 6)
    assert calibration.area_under_risk_coverage(curve) == 0.25
    assert len(curve.risk) == 1
