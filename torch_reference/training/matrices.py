"""Which parameters are matrices: those that decay, and those of the layers, which Muon trains."""

import numpy as np
from torch import Tensor


def is_matrix(parameter: Tensor | np.ndarray) -> bool:
    """Whether it is no norm and no bias."""
    return parameter.ndim > 1


def is_hidden_matrix(name: str, parameter: Tensor | np.ndarray) -> bool:
    """Whether Muon trains it: a matrix within a layer. Tables, heads, norms and biases are left to Adam."""
    return "layers" in name.split(".") and is_matrix(parameter)
