"""Muon's update of a matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: steep at 0, and within 0.7 to 1.2 near 1
_STEPS = 5
_EPS = 1e-7
_ADAMS_SIZE = 0.2  # root mean square of an update by Adam, which that of a matrix is brought to


def orthogonalize(x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Bring all singular values of a matrix near 1 by five steps of Newton and Schulz.

    Each step maps a singular value s to ``a s + b s^3 + c s^5``, which raises small ones fast and holds large ones
    between 0.7 and 1.2 (Jordan et al., 2024, "Muon: An optimizer for hidden layers in neural networks").
    """
    a, b, c = _COEFFICIENTS
    is_tall = x.shape[0] > x.shape[1]
    x = x.mT if is_tall else x
    x = x / torch.linalg.norm(x).clamp(min=_EPS)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if is_tall else x


def orthogonal_update(x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """:func:`orthogonalize` times ``0.2 sqrt(max(rows, columns))``, which is about the size of Adam's updates.

    So both take one learning rate (Liu et al., 2025, "Muon is Scalable for LLM Training", section 2.2).
    """
    return orthogonalize(x) * (_ADAMS_SIZE * max(x.shape) ** 0.5)
