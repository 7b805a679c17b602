"""Which parameters are matrices: those that decay, and those of the layers, which Muon trains."""

from typing import Any

from flax import nnx
from jaxtyping import Array


def is_matrix(parameter: Array | nnx.Param) -> bool:
    """Whether it is no norm and no bias; also where the vectors of all layers are stacked."""
    return len(parameter.axes if isinstance(parameter, nnx.Param) else parameter.shape) > 1


def is_hidden_matrix(path: tuple[Any, ...], parameter: nnx.Param) -> bool:
    """Whether Muon trains it: a matrix within a layer. Tables, heads, norms and biases are left to Adam."""
    return "layers" in path and is_matrix(parameter)
