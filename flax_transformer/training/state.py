"""What training changes from step to step."""

from typing import Any, NamedTuple

from flax import nnx
from jaxtyping import Array, Int


class TrainState(NamedTuple):
    """All that a step changes."""

    params: nnx.State
    opt_state: Any
    step: Int[Array, ""]
