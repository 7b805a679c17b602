"""From findings to a diagnosis: causes ranked, their consequences folded under them."""

from collections.abc import Sequence
from dataclasses import dataclass

from flax_transformer.doctor.causes import CAUSES, RANK, Cause, explains
from flax_transformer.doctor.result import Result


@dataclass(frozen=True)
class Diagnosis:
    """One cause, the measurement that shows it best, and the findings that it brings about."""

    result: Result
    consequences: tuple[Result, ...]

    @property
    def cause(self) -> Cause:
        return CAUSES[self.result.cause]


_SEVERITY = {"ill": 0, "warning": 1, "advice": 2}


def diagnose(results: Sequence[Result]) -> list[Diagnosis]:
    """Ill before warnings before advice; among equals, what comes first in an examination."""
    findings = [result for result in results if result.verdict in _SEVERITY]
    findings.sort(key=lambda result: (_SEVERITY[result.verdict], RANK[result.cause]))
    diagnoses: list[Diagnosis] = []
    folded: set[int] = set()
    for index, finding in enumerate(findings):
        if index in folded:
            continue
        consequences = [
            other
            for other in range(index + 1, len(findings))
            if other not in folded
            and (findings[other].cause == finding.cause or explains(finding.cause, findings[other].cause))
        ]
        folded.update(consequences)
        diagnoses.append(Diagnosis(finding, tuple(findings[other] for other in consequences)))
    return diagnoses
