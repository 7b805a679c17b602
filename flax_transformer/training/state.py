"""What training changes from step to step."""

from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Int

from flax_transformer.training.loss_scale import LossScale


class TrainState(NamedTuple):
    """All that a step changes.

    ``average`` is the running mean of the parameters, where the config asks for one; ``loss_scale`` is that of float16.
    """

    params: nnx.State
    opt_state: Any
    step: Int[Array, ""]
    average: nnx.State | None = None
    loss_scale: LossScale | None = None

    @property
    def weights(self) -> nnx.State:
        """What is evaluated and exported: the average, or the parameters themselves."""
        return self.params if self.average is None else self.average
