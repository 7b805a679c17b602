"""Do two contenders compute the same? Asked for the very config that is timed, before it is timed."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.worker import Worker
from flax_transformer.config import ModelConfig
from parity.measure import scaled_ulp
from parity.tolerances import BFLOAT16, LOSS, STACK, lifted


@dataclass(frozen=True)
class Agreement:
    """How far apart the logits and the mean loss of one batch are, and may be, in scaled ULP (docs/PARITY.md)."""

    logits: float
    loss: float
    logits_tolerance: float
    loss_tolerance: float

    @property
    def holds(self) -> bool:
        return self.logits <= self.logits_tolerance and self.loss <= self.loss_tolerance

    def __str__(self) -> str:
        return (
            f"logits {self.logits:.3g} scaled ULP apart (at most {self.logits_tolerance:g}), "
            f"loss {self.loss:.3g} (at most {self.loss_tolerance:g})"
        )


def compare(model: ModelConfig, ours: Worker, theirs: Worker) -> Agreement:
    """
    Args:
        theirs: a PyTorch contender, which can also say how far rounding moves it: its outputs in float64.

    Raises:
        Refused: one of the two cannot take part.
    """
    with TemporaryDirectory() as folder:

        def outputs(worker: Worker, method: str) -> tuple[np.ndarray, np.ndarray]:
            file = Path(folder, "logits.npy")
            loss = np.array(worker.call(method, file))
            return np.load(file), loss

        found, expected = outputs(ours, "outputs"), outputs(theirs, "outputs")
        exact = None if model.dtype == "bfloat16" else outputs(theirs, "exact_outputs")
    tolerances = [BFLOAT16.of(model)] * 2
    if exact is not None:
        floors = (scaled_ulp(a, b, model.dtype) for a, b in zip(expected, exact, strict=True))
        ceilings = (STACK.of(model), LOSS.of(model))
        tolerances = [lifted(ceiling, floor) for ceiling, floor in zip(ceilings, floors, strict=True)]
    figures = [scaled_ulp(a, b, model.dtype) for a, b in zip(found, expected, strict=True)]
    return Agreement(*figures, *tolerances)
