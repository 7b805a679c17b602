"""What an examination found."""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flax_transformer.doctor.diagnosis import Diagnosis, diagnose
from flax_transformer.doctor.result import Result
from flax_transformer.outputs import write_whole


@dataclass(frozen=True)
class HeatMap:
    """How much each input moves each output, and what it should.

    Args:
        title: as "target on target".
        measured: (outputs, inputs), relative changes of the logits; or attention weights.
        expected: (outputs, inputs), True where an effect belongs.
        what: the unit of ``measured``, in words.
    """

    title: str
    measured: np.ndarray
    expected: np.ndarray
    limit: float
    what: str

    @property
    def seen(self) -> np.ndarray:
        """Where there is an effect."""
        return self.measured > self.limit

    @property
    def axes(self) -> tuple[str, str]:
        """What a row and what a column is."""
        outputs, _, inputs = self.title.partition(" on ")
        return (f"{outputs} position", f"{inputs} position") if inputs != "class" else ("class", f"{outputs} position")

    @property
    def is_as_expected(self) -> bool:
        return bool((self.seen == self.expected).all())


@dataclass(frozen=True)
class Report:
    """The outcome of :func:`flax_transformer.doctor.examine`.

    Args:
        subject: what was examined, in words.
        called_as: how the model was called.
        precision: what it computed in, with a note where that hides something.
        results: every measurement.
        notes: what the reader should know of how it was examined.
    """

    subject: str
    framework: str
    kind: str
    called_as: str
    precision: str
    results: tuple[Result, ...]
    heat_maps: tuple[HeatMap, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def diagnoses(self) -> list[Diagnosis]:
        """The causes, the first one first."""
        return diagnose(self.results)

    @property
    def is_ill(self) -> bool:
        return any(result.verdict == "ill" for result in self.results)

    @property
    def has_warnings(self) -> bool:
        return any(result.verdict == "warning" for result in self.results)

    def exit_code(self, strict: bool = False) -> int:
        """0 healthy, 1 ill; ``strict`` counts warnings."""
        return int(self.is_ill or (strict and self.has_warnings))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with every figure. A number that is not finite is null."""
        return {
            "subject": self.subject,
            "framework": self.framework,
            "kind": self.kind,
            "called_as": self.called_as,
            "precision": self.precision,
            "seconds": round(self.seconds, 2),
            "facts": self.facts,
            "notes": list(self.notes),
            "verdict": "ill" if self.is_ill else "warnings" if self.has_warnings else "healthy",
            "diagnosis": [
                {
                    "cause": d.result.cause,
                    "verdict": d.result.verdict,
                    "title": d.cause.title,
                    "place": d.result.place,
                    "symptom": d.cause.symptom,
                    "reason": d.cause.reason,
                    "fix": d.cause.fix,
                    "consequences": [consequence.cause for consequence in d.consequences],
                }
                for d in self.diagnoses
            ],
            "probes": [_finite(asdict(result)) for result in self.results],
            "influence": [
                {"title": m.title, "measured": m.measured.tolist(), "expected": m.expected.tolist()}
                for m in self.heat_maps
            ],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def save_json(self, path: Path) -> None:
        write_whole(path, self.to_json() + "\n")

    def __str__(self) -> str:
        from flax_transformer.doctor.terminal import to_text  # rich is wanted only where somebody reads

        return to_text(self)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
