"""Which operation is the first to diverge, and which twin is off."""

from dataclasses import dataclass

import numpy as np

from parity import tolerances
from parity.pair import Pair
from parity.referee import distances


@dataclass(frozen=True)
class Divergence:
    """The first tap, in order of execution, at which the twins differ though both got the same inputs.

    Args:
        ulp: the difference there, and its ``tolerance``.
        from_referee: how far the JAX and the PyTorch twin lie from the same operation in float64 numpy.
    """

    tap: str
    flax_shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    ulp: float
    tolerance: float
    from_referee: tuple[float, float]

    @property
    def suspect(self) -> str:
        """``flax``, ``torch`` or ``both``: whichever is itself too far from the referee."""
        off = [
            side for side, far in zip(("flax", "torch"), self.from_referee, strict=True) if not far <= self.tolerance
        ]
        return {1: off[0], 2: "both"}.get(len(off), "neither alone") if off else "neither alone"

    def __str__(self) -> str:
        far = f"flax {self.from_referee[0]:.3g}, torch {self.from_referee[1]:.3g}"
        return (
            f"first diverging operation: {self.tap}, {self.ulp:.3g} scaled ULP (tolerance {self.tolerance:.3g}), "
            f"shapes {self.flax_shape} and {self.torch_shape}; suspect: {self.suspect} (from the float64 referee: "
            f"{far})"
        )


def first_divergence(pair: Pair) -> Divergence | None:
    """None where every operation, fed with the same inputs, agrees."""
    ceiling = tolerances.OPERATION.of(pair.case.model)
    for name, ulp in pair.local.items():
        tolerance = tolerances.lifted(ceiling, pair.tap_floor.get(name, 0.0), pair.dtype)
        if not ulp <= tolerance:
            of_flax, of_torch = pair.flax.taps, pair.torch_fed.taps
            if name in of_flax and name in of_torch:
                far = distances(pair.case, of_flax, of_flax, of_torch, name)
            else:
                far = (0.0 if name in of_flax else np.inf, 0.0 if name in of_torch else np.inf)
            flax_shape, torch_shape = (taps[name].shape if name in taps else () for taps in (of_flax, of_torch))
            return Divergence(name, flax_shape, torch_shape, ulp, tolerance, far)
    return None
