"""Training on both sides: the update rule alone, one step from a shared state, and many steps on their own."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from flax_transformer.parity import flax_side, tolerances, torch_side
from flax_transformer.parity.cases import Case, take_rows
from flax_transformer.parity.measure import EPS, Arrays, scaled_ulps
from flax_transformer.parity.pair import Pair, cast, gradient_floor, with_dropout
from flax_transformer.parity.torch_side import OptimizerState
from torch_reference.training.matrices import is_hidden_matrix

# By how much the gradients of one step may differ: a ceiling, lifted where a sum cancels.
_GRADIENT_ULP = 8.0


def _horizon(steps: int) -> int:
    """Length of the schedule; the same for all short runs, so that they share a compiled step."""
    return max(steps + 1, 101)


def optimizer_alone(pair: Pair) -> tuple[dict[str, float], float]:
    """Scaled ULP of parameters and moments after one update from the same gradients and state; and the floor.

    The first update, which bias correction changes most, and two later ones.
    """
    case = with_dropout(pair.case, 0.0)
    single, double = cast(case, "float32"), cast(cast(case, "float32"), "float64")
    figures, floor = {}, 0.0
    for taken in (0, 5, 50):
        ulps = scaled_ulps(_updated(flax_side, case, taken), _updated(torch_side, case, taken), pair.dtype)
        figures |= {f"{name}, step {taken + 1}": ulp for name, ulp in ulps.items()}
        rounding = scaled_ulps(_updated(torch_side, single, taken), _updated(torch_side, double, taken), "float32")
        floor = max(floor, *rounding.values())
    return figures, floor


def _updated(side: Any, case: Case, taken: int) -> Arrays:
    """Parameters and moments after one update, from gradients and moments that are a function of the case's seed."""
    rng = np.random.default_rng((case.seed, taken))

    def draw(weight: np.ndarray) -> np.ndarray:
        drawn = rng.standard_normal(weight.shape) * 10.0 ** rng.uniform(-3, 0)
        return drawn.astype(np.float32).astype(weight.dtype)

    gradients = {name: draw(weight) for name, weight in case.weights.items()}
    # Moments as they are after some steps; 1e-3 is about what Adam leaves of a square after few of them.
    means = {name: 0.5 * draw(weight) if taken else np.zeros_like(weight) for name, weight in case.weights.items()}
    squares = {name: (1e-3 * mean * mean + 1e-3 * np.abs(mean)) for name, mean in means.items()}
    # At rate 1 an update is as large as the parameters, so that it is what is measured; clipping has its own check.
    optimizer = dataclasses.replace(case.config.optimizer, learning_rate=1.0, max_grad_norm=0.0)
    config = dataclasses.replace(case.config, optimizer=optimizer)
    state = side.update(config, OptimizerState(case.weights, means, squares, taken), [gradients], _horizon(taken))
    parts = {"": state.weights, " (mean)": state.mean, " (square)": state.square}
    return {name + part: array for part, arrays in parts.items() for name, array in arrays.items()}


def locked_step(pair: Pair, steps: int) -> dict[str, float]:
    """The largest ratio of each parameter's difference after one step to what it may be, over the steps of JAX's path.

    Before each step PyTorch is given JAX's parameters and Adam state, so that errors cannot add up.
    """
    case = with_dropout(pair.case, 0.0)
    flax, torch_ = (side.Trainer(case.config, case.weights, _horizon(steps)) for side in (flax_side, torch_side))
    ratios: dict[str, float] = {}
    for step in range(steps):
        before = flax.state
        torch_.state = before
        batch = case.batch_of_step(step)
        flax(batch)
        metrics = torch_(batch)
        after_flax, after_torch = flax.state, torch_.state
        of_gradient = gradient_floor(dataclasses.replace(case, weights=before.weights), batch)
        for name in pair.without_null(after_torch.weights):
            bound = _step_bound(pair, name, before, after_torch, metrics["learning_rate"], of_gradient[name])
            share = _share(after_flax.weights[name], after_torch.weights[name], bound)
            ratios[name] = max(ratios.get(name, 0.0), share)
    return ratios


def _share(a: np.ndarray, b: np.ndarray, bound: np.ndarray) -> float:
    """The largest difference of an element, as a share of its bound; infinite where one of them is not finite."""
    difference = np.abs(a - b)
    return float(np.where(np.isfinite(difference), difference / bound, np.inf).max())


def _step_bound(
    pair: Pair, name: str, before: OptimizerState, after: OptimizerState, rate: float, of_gradient: float
) -> np.ndarray:
    """Per element: what gradients that are apart, and the roundings of the update, may make of a parameter.

    The first term is Adam's derivative by the gradient, which is large where the second moment is small.

    Args:
        of_gradient: the gradient's noise floor in scaled ULP.
    """
    config, eps = pair.case.config.optimizer, EPS[pair.dtype]
    gradient_ulp = tolerances.lifted(_GRADIENT_ULP, of_gradient, pair.dtype)
    update = np.abs(after.weights[name] - before.weights[name])
    of_rounding = 2 * np.spacing(np.abs(after.weights[name])) + 8 * eps * update
    if config.name == "muon" and is_hidden_matrix(name, after.weights[name]):
        moved = _muons_bound(before.mean[name], after.mean[name], config.momentum, gradient_ulp * eps, eps)
        return rate * moved + of_rounding
    beta1, beta2, taken = config.beta1, config.beta2, before.count + 1
    gradient = (after.mean[name] - beta1 * before.mean[name]) / (1 - beta1)
    v_hat = after.square[name] / (1 - beta2**taken)
    share = (1 - beta1) / (1 - beta1**taken)
    moved = 2 * rate * share * gradient_ulp * eps * np.abs(gradient).max() / (np.sqrt(v_hat) + config.eps)
    return moved + of_rounding


def _muons_bound(before: np.ndarray, after: np.ndarray, beta: float, of_gradient: float, eps: float) -> float:
    """What gradients that differ by this share of their largest value may make of an update of Muon at rate 1.

    The iteration's slope is largest at 0, where it is 3.4445 in each of its five steps. It bounds by how much the
    orthogonal matrix may move, in the Frobenius norm, if the momentum that it is made from moves relative to its own.
    Adam's moments come as ``mean``; Muon has its momentum there.
    """
    gradient = (after - beta * before) / (1 - beta)
    ahead = gradient + beta * (after - gradient)
    moved = (1 - beta**2) * of_gradient * np.abs(gradient).max() + 8 * eps * np.abs(ahead).max()
    share = 2 * moved * np.sqrt(ahead.size) / max(float(np.linalg.norm(ahead)), 1e-7)
    return 0.2 * max(ahead.shape) ** 0.5 * 3.4445**5 * share


@dataclass(frozen=True)
class Drift:
    """How far apart two sets of parameters are: the largest |difference| of each tensor, and percentiles of all."""

    by_tensor: dict[str, float]
    p999: float

    @property
    def largest(self) -> float:
        return max(self.by_tensor.values())


def _drift(a: Arrays, b: Arrays) -> Drift:
    differences = {name: np.abs(a[name] - b[name]) for name in b}
    everything = np.concatenate([difference.ravel() for difference in differences.values()])
    largest = {name: float(np.nan_to_num(d, nan=np.inf).max()) for name, d in differences.items()}
    return Drift(largest, float(np.quantile(everything, 0.999)))


@dataclass(frozen=True)
class FreeRun:
    """Training side by side: drift between the twins, drift of PyTorch from itself, and each side's losses.

    Args:
        shares: of float64, the drift of each tensor as a share of the sum of its steps' bounds.
    """

    drift: Drift
    floor: Drift
    shares: dict[str, float]
    flax_losses: list[float]
    torch_losses: list[float]


def free_steps(pair: Pair, steps: int) -> FreeRun:
    """Both twins for ``steps`` steps on their own.

    And PyTorch once more, for the floor: in float32 against its float64 run, in float64 with rows in another order.
    In float64 errors are too small to feed on themselves, so that they stay within the sum of what each step may add.
    In float32 they do not, where Adam divides noise by noise.
    """
    case = with_dropout(pair.case, 0.0)
    in_float32 = pair.dtype == "float32"
    again = cast(case, "float64") if in_float32 else case
    flax, torch_ = (side.Trainer(case.config, case.weights, _horizon(steps)) for side in (flax_side, torch_side))
    itself = torch_side.Trainer(again.config, again.weights, _horizon(steps))
    rng = np.random.default_rng(case.seed)
    losses: tuple[list[float], list[float]] = ([], [])
    floors = {} if in_float32 else gradient_floor(case, case.batch_of_step(0))
    bounds: dict[str, np.ndarray] = {}
    before = torch_.state
    for step in range(steps):
        batch = case.batch_of_step(step)
        losses[0].append(flax(batch)["loss"])
        metrics = torch_(batch)
        losses[1].append(metrics["loss"])
        itself(batch if in_float32 else take_rows(batch, rng.permutation(len(batch.source))))
        after = torch_.state
        for name in floors.keys() - pair.null_tensors:
            bound = _step_bound(pair, name, before, after, metrics["learning_rate"], floors[name])
            bounds[name] = bounds.get(name, np.zeros(())) + bound
        before = after
    weights = [pair.without_null(trainer.state.weights) for trainer in (flax, torch_, itself)]
    shares = {name: _share(weights[0][name], weights[1][name], bound) for name, bound in bounds.items()}
    return FreeRun(_drift(weights[0], weights[1]), _drift(weights[2], weights[1]), shares, *losses)
