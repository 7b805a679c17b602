"""Which operation is the first to diverge, and which twin is off."""

from dataclasses import dataclass

import numpy as np

from flax_transformer.parity import tolerances
from flax_transformer.parity.oracle import distances
from flax_transformer.parity.pair import Pair


@dataclass(frozen=True)
class Divergence:
    """The first intermediate, in order of execution, at which the twins differ though both got the same inputs.

    Args:
        ulp: the difference there, and its ``tolerance``.
        from_oracle: how far the JAX and the PyTorch twin lie from the same operation in float64 numpy.
    """

    intermediate: str
    flax_shape: tuple[int, ...]
    torch_shape: tuple[int, ...]
    ulp: float
    tolerance: float
    from_oracle: tuple[float, float]

    @property
    def suspect(self) -> str:
        """``flax``, ``torch`` or ``both``: whichever is itself too far from the oracle."""
        off = [side for side, far in zip(("flax", "torch"), self.from_oracle, strict=True) if not far <= self.tolerance]
        return {1: off[0], 2: "both"}.get(len(off), "neither alone") if off else "neither alone"

    def __str__(self) -> str:
        far = f"flax {self.from_oracle[0]:.3g}, torch {self.from_oracle[1]:.3g}"
        return (
            f"first diverging operation: {self.intermediate}, {self.ulp:.3g} scaled ULP "
            f"(tolerance {self.tolerance:.3g}), shapes {self.flax_shape} and {self.torch_shape}; "
            f"suspect: {self.suspect} (from the float64 oracle: {far})"
        )


def first_divergence(pair: Pair) -> Divergence | None:
    """None where every operation, fed with the same inputs, agrees."""
    ceiling = tolerances.OPERATION.of(pair.case.model)
    for name, ulp in pair.local.items():
        tolerance = tolerances.lifted(ceiling, pair.intermediate_floor.get(name, 0.0), pair.dtype)
        if not ulp <= tolerance:
            of_flax, of_torch = pair.flax.intermediates, pair.torch_fed.intermediates
            if name in of_flax and name in of_torch:
                far = distances(pair.case, of_flax, of_flax, of_torch, name)
            else:
                far = (0.0 if name in of_flax else np.inf, 0.0 if name in of_torch else np.inf)
            flax_shape, torch_shape = (
                intermediates[name].shape if name in intermediates else () for intermediates in (of_flax, of_torch)
            )
            return Divergence(name, flax_shape, torch_shape, ulp, tolerance, far)
    return None
