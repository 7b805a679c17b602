"""What the twins make of several labels: binary cross entropy alone, probabilities, and where a label begins."""

import itertools
from typing import Any

import jax
import numpy as np
import torch

from flax_transformer.nn import losses as flax_losses
from flax_transformer.parity import flax_side, torch_side
from flax_transformer.parity.measure import HALF, mismatches, scaled_ulp
from flax_transformer.parity.pair import Pair
from torch_reference.nn import losses as torch_losses


def binary_cross_entropies(pair: Pair) -> dict[str, float]:
    """Scaled ULP between the twins' losses of the same logits, with and without smoothing and weights; and of logits
    that are so large that a probability is 0 or 1 but for rounding."""
    return {
        f"label_smoothing={smoothing}{', weights' * weighted}, {factor} x logits": _difference(
            pair, smoothing, weighted, factor
        )
        for smoothing, weighted, factor in itertools.product((0.0, 0.1), (False, True), (1, 100))
    }


def _difference(pair: Pair, smoothing: float, weighted: bool, factor: int) -> float:
    logits, rng = factor * pair.torch.intermediates["logits"], np.random.default_rng(pair.case.seed)
    labels, real = rng.random(logits.shape) < 0.4, rng.random(len(logits)) < 0.7
    weights = 10.0 ** rng.uniform(-1, 1, logits.shape[-1]).astype(logits.dtype) if weighted else None
    given = (logits, labels, real, smoothing, weights)
    of_flax, flax_count = jax.jit(flax_losses.binary_cross_entropy, static_argnums=3)(*given)
    tensors: Any = (torch.as_tensor(array) if isinstance(array, np.ndarray) else array for array in given)
    of_torch, torch_count = torch_losses.binary_cross_entropy(*tensors)
    if int(flax_count) != int(torch_count):
        return np.inf
    return scaled_ulp(np.asarray(of_flax), of_torch.numpy(), "float32" if pair.dtype in HALF else pair.dtype)


def differing_decisions() -> dict[str, float]:
    """Decisions of each side that are wrong, of probabilities at, just below and just above their thresholds."""
    thresholds = np.array([0.25, 0.5, 0.3, 1.0], np.float32)
    below, above = (np.nextafter(thresholds, np.float32(limit)) for limit in (-np.inf, np.inf))
    expected = np.array([[True] * 4, [False] * 4, [True] * 4])
    given = np.stack([thresholds, below, above]), thresholds.tolist()
    sides = {"flax": flax_side, "torch": torch_side}
    return {f"{name}, decisions": mismatches(side.decide_labels(*given), expected) for name, side in sides.items()}


def probabilities(pair: Pair) -> tuple[float, float]:
    """Scaled ULP between the probabilities of both sides; and what the floor of the logits makes of them.

    The slope of the logistic function is at most 1/4, and of a few labels the largest probability is about 1/2.
    """
    arguments = (pair.case.model, pair.case.weights, pair.case.batch)
    of_flax, of_torch = (side.label_probabilities(*arguments) for side in (flax_side, torch_side))
    largest = float(np.abs(pair.torch.intermediates["logits"]).max())
    return scaled_ulp(of_flax, of_torch, pair.dtype), pair.intermediate_floor["logits"] * max(1.0, largest / 2)
