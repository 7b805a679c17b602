"""How far apart two arrays are, in units that a float of their dtype can resolve."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

Arrays = Mapping[str, np.ndarray]
EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
# Of matrix products alone: weights, softmax and losses are of float32.
HALF = ("bfloat16", "float16")


def scaled_ulp(a: np.ndarray, reference: np.ndarray, dtype: str) -> float:
    """``max|a - reference| / (eps * max|reference|)``; infinite where shapes differ or one side alone is not finite.

    Element-wise ULP cannot gate: results that agree to 4 scaled ULP differ by millions of their own ULP near zero.
    """
    if a.shape != reference.shape:
        return np.inf
    a, reference = a.astype(np.float64), reference.astype(np.float64)
    # Equal infinities and equal NaN are no difference; a NaN of one side alone is the largest.
    equal = (a == reference) | (np.isnan(a) & np.isnan(reference))
    if equal.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.where(equal, 0.0, np.abs(a - reference))
    scale = np.abs(reference[np.isfinite(reference)]).max(initial=0.0)
    worst = difference.max()
    return float(worst / (EPS[dtype] * scale)) if np.isfinite(worst) and scale > 0 else np.inf


def scaled_ulps(a: Arrays, reference: Arrays, dtype: str) -> dict[str, float]:
    """:func:`scaled_ulp` by name, in the reference's order; a name that one side lacks counts as infinitely far."""
    names = [*reference, *(name for name in a if name not in reference)]
    return {
        name: scaled_ulp(a[name], reference[name], dtype) if name in a and name in reference else np.inf
        for name in names
    }


def element_ulps(a: np.ndarray, reference: np.ndarray, dtype: str) -> Float[np.ndarray, " elements"]:
    """Each element's difference in units of its own spacing, for a histogram."""
    a, reference = a.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    spacing = EPS[dtype] * 2.0 ** np.floor(np.log2(np.maximum(np.abs(reference), np.finfo(np.float32).tiny)))
    return np.abs(a - reference) / spacing


def mismatches(a: np.ndarray, reference: np.ndarray) -> float:
    """Entries that are not the same bit for bit; infinite where shapes differ."""
    return float((a != reference).sum()) if a.shape == reference.shape else np.inf
