"""What a probe hands back."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["healthy", "ill", "warning", "advice", "not applicable"]


@dataclass(frozen=True)
class Result:
    """One measurement.

    Args:
        probe: what was measured.
        figure: the number, and ``limit`` what it was held against; None where the probe gives no number.
        cause: the key of :data:`flax_transformer.doctor.causes.CAUSES` that a finding points to; "" where healthy.
        place: the layer, the parameter or the row; "" for the whole model.
        detail: one sentence: what was seen, or what was missing for the probe to apply.
    """

    probe: str
    verdict: Verdict
    figure: float | None = None
    limit: float | None = None
    cause: str = ""
    place: str = ""
    detail: str = ""


def healthy(probe: str, figure: float | None = None, limit: float | None = None, detail: str = "") -> Result:
    return Result(probe, "healthy", figure, limit, detail=detail)


def not_applicable(probe: str, missing: str) -> Result:
    return Result(probe, "not applicable", detail=missing)
