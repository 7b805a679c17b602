"""Do the candidates compute the same? Asked for the very config that is timed, before it is timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from flax_transformer.bench.worker import Refused, Worker
from flax_transformer.config import ModelConfig
from flax_transformer.parity.measure import scaled_ulp
from flax_transformer.parity.tolerances import LOSS, STACK, lifted

# Logits and mean loss of a batch.
Outputs = tuple[np.ndarray, np.ndarray]


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


def compare(
    model: ModelConfig,
    flax: Worker,
    peers: Mapping[str, Worker],
    on_peer: Callable[[str], None] = lambda state: None,
) -> tuple[dict[str, Agreement], dict[str, str]]:
    """Compare each PyTorch candidate with the JAX model.

    Returns:
        Agreements, and of those that cannot take part the reason.

    Raises:
        Refused: the JAX model cannot take part.
    """
    on_peer("flax: computing outputs to compare")
    ours = _outputs(flax, "outputs")
    agreements, refused = {}, {}
    tolerances: tuple[float, float] | None = None
    for name, worker in peers.items():
        on_peer(f"{name}: does it compute the same?")
        try:
            theirs = _outputs(worker, "outputs")
            tolerances = tolerances or _tolerances(model, worker)
        except Refused as refusal:
            refused[name] = str(refusal)
            continue
        agreements[name] = Agreement(*_distances(ours, theirs, model), *tolerances)
    return agreements, refused


def _outputs(worker: Worker, method: str, *arguments: str) -> Outputs:
    with TemporaryDirectory() as folder:
        file = Path(folder, "logits.npy")
        loss = np.array(worker.call(method, *arguments, file))
        return np.load(file), loss


def _tolerances(model: ModelConfig, worker: Worker) -> tuple[float, float]:
    """The ceilings of the parity suite, lifted where one side alone is as far from float64.

    That is asked of a fresh twin: a candidate with a mistake in it is far from float64 too.
    """
    rounded, exact = (_outputs(worker, "twin_outputs", dtype) for dtype in (model.dtype, "float64"))
    floors = _distances(rounded, exact, model)
    stack, loss = (
        lifted(ceiling.of(model), floor, model.dtype) for ceiling, floor in zip((STACK, LOSS), floors, strict=True)
    )
    return stack, loss


def _distances(a: Outputs, reference: Outputs, model: ModelConfig) -> tuple[float, float]:
    return scaled_ulp(a[0], reference[0], model.dtype), scaled_ulp(a[1], reference[1], model.dtype)
