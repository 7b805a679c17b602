"""One case run on both sides, each pass at most once, and the noise floor of one side."""

import dataclasses
from functools import cached_property

import jax
import numpy as np

from flax_transformer.data.batches import MultilabelBatch, PaddedBatch
from flax_transformer.parity import flax_side, torch_side
from flax_transformer.parity.cases import Case, take_rows
from flax_transformer.parity.measure import HALF, Arrays, scaled_ulp, scaled_ulps
from flax_transformer.parity.torch_side import Outcome

# A gradient below this share of the model's largest is zero but for rounding, in float64.
_NULL = 1e-14


def cast(case: Case, dtype: str) -> Case:
    """The same case computed in another dtype, with the weights rounded to it."""
    param_dtype = "float64" if dtype == "float64" else "float32"
    model = dataclasses.replace(case.model, dtype=dtype, param_dtype=param_dtype)
    weights = {name: weight.astype(param_dtype) for name, weight in case.weights.items()}
    return dataclasses.replace(case, config=dataclasses.replace(case.config, model=model), weights=weights)


def with_dropout(case: Case, rate: float) -> Case:
    """The same case with dropout; each kind of place has a rate of its own, so that none can pass for another."""
    rates = {"dropout": rate, "feed_forward_dropout": 2 * rate, "head_dropout": 3 * rate}
    if case.model.writes_weights:
        rates["attention_dropout"] = rate
    model = dataclasses.replace(case.model, **rates)
    return dataclasses.replace(case, config=dataclasses.replace(case.config, model=model))


def gradient_floor(case: Case, batch: PaddedBatch) -> dict[str, float]:
    """The rounding error of each parameter's gradient as the optimizer gets it, clipped, in scaled ULP.

    PyTorch's float32 against its float64. On large models most of it is the norm that clipping divides by: a float32
    sum over 50 million squares was seen 480 ULP off.
    """

    def clipped(case: Case) -> Arrays:
        gradients = torch_side.run(case.config, case.weights, batch, gradients=True).gradients
        max_norm = case.config.optimizer.max_grad_norm
        return torch_side.clip(gradients, max_norm) if max_norm else gradients

    single = cast(case, "float32")
    return scaled_ulps(clipped(single), clipped(cast(single, "float64")), "float32")


def is_small(weights: Arrays) -> bool:
    """Whether a model can be run uncompiled, operation by operation, within seconds."""
    return sum(weight.size for weight in weights.values()) < 5e6


class Pair:
    """Both twins with the same weights, on the same batch.

    Args:
        uncompiled: also measure how far JAX's uncompiled forward pass lies from its compiled one.
        backward: False where the forward pass is enough, which compiles in a third of the time.
    """

    def __init__(self, case: Case, *, uncompiled: bool = False, backward: bool = True) -> None:
        self.case = case
        self.uncompiled = uncompiled
        self.backward = backward

    def before_a_change_of(self, side: str) -> "Pair":
        """A pair of the same case with this one's noise floors, and its passes on the other side than ``side``."""
        kept = [
            "exact",
            "rounded",
            "null_tensors",
            "intermediate_floor",
            "gradient_floor",
            {"flax": "torch", "torch": "flax"}[side],
        ]
        fresh = Pair(self.case, backward=self.backward)
        vars(fresh).update({name: getattr(self, name) for name in kept})
        return fresh

    @property
    def dtype(self) -> str:
        return self.case.dtype

    @property
    def differentiates(self) -> bool:
        """Half precision is a profile of the forward pass and the loss."""
        return self.backward and self.dtype not in HALF

    def _run(self, side, **arguments) -> Outcome:
        return side.run(self.case.config, self.case.weights, self.case.batch, **arguments)

    @cached_property
    def flax(self) -> Outcome:
        return self._run(flax_side, gradients=self.differentiates)

    @cached_property
    def torch(self) -> Outcome:
        return self._run(torch_side, gradients=self.differentiates)

    @cached_property
    def cumulative(self) -> dict[str, float]:
        """Scaled ULP at each intermediate, errors before it included, in order of execution."""
        return scaled_ulps(self.flax.intermediates, self.torch.intermediates, self.dtype)

    @cached_property
    def torch_fed(self) -> Outcome:
        """Each intermediate of the PyTorch twin computed from the JAX twin's intermediates before it."""
        return self._run(torch_side, feed=self.flax.intermediates)

    @cached_property
    def local(self) -> dict[str, float]:
        """Scaled ULP at each intermediate, of what happens between the intermediates before it and this one."""
        return scaled_ulps(self.flax.intermediates, self.torch_fed.intermediates, self.dtype)

    @cached_property
    def exact(self) -> Outcome:
        """The PyTorch twin in float64, from the weights of :attr:`rounded`."""
        weights = cast(self.case, "float32").weights
        case = cast(dataclasses.replace(self.case, weights=weights), "float64")
        return torch_side.run(case.config, case.weights, case.batch, gradients=True)

    @cached_property
    def rounded(self) -> Outcome:
        """The PyTorch twin in float32, whose distance from :attr:`exact` is its rounding error."""
        case = cast(self.case, "float32")
        return torch_side.run(case.config, case.weights, case.batch, gradients=True)

    @cached_property
    def null_tensors(self) -> set[str]:
        """Parameters that the loss does not depend on: their gradient is rounding noise (key biases)."""
        largest = {name: np.abs(gradient).max(initial=0.0) for name, gradient in self.exact.gradients.items()}
        return {name for name, size in largest.items() if 0 < size < _NULL * max(largest.values())}

    def without_null(self, arrays: Arrays) -> Arrays:
        return {name: array for name, array in arrays.items() if name not in self.null_tensors}

    @cached_property
    def shuffled(self) -> Outcome:
        """The PyTorch twin with the rows of the batch in another order; its intermediates in the old one."""
        order = np.random.default_rng(self.case.seed).permutation(len(self.case.batch.source))
        batch = take_rows(self.case.batch, order)
        outcome = torch_side.run(self.case.config, self.case.weights, batch, gradients=self.differentiates)
        intermediates = {name: value[np.argsort(order)] for name, value in outcome.intermediates.items()}
        return dataclasses.replace(outcome, intermediates=intermediates)

    @cached_property
    def intermediate_floor(self) -> dict[str, float]:
        """The noise floor of each intermediate, in scaled ULP."""
        dtype, rounded = (self.dtype, self.torch) if self.dtype in HALF else ("float32", self.rounded)
        floors = [
            scaled_ulps(rounded.intermediates, self.exact.intermediates, dtype),
            scaled_ulps(self.shuffled.intermediates, self.torch.intermediates, self.dtype),
        ]
        if self.uncompiled:
            with jax.disable_jit():
                floors.append(scaled_ulps(self._run(flax_side).intermediates, self.flax.intermediates, self.dtype))
        return {name: max(floor[name] for floor in floors) for name in floors[0]}

    @cached_property
    def gradient_floor(self) -> dict[str, float]:
        """The noise floor of each parameter's gradient, in scaled ULP."""
        rounded, exact, shuffled, ordered = (
            self.without_null(outcome.gradients) for outcome in (self.rounded, self.exact, self.shuffled, self.torch)
        )
        rounding, order = scaled_ulps(rounded, exact, "float32"), scaled_ulps(shuffled, ordered, self.dtype)
        return {name: max(ulp, order.get(name, 0.0), self.softmax_floor) for name, ulp in rounding.items()}

    @cached_property
    def flax_rounding(self) -> dict[str, float]:
        """The rounding error of each parameter's gradient on JAX's side, in scaled ULP.

        float32 against float64; and compiled against uncompiled, since in float64 the first is only a likeness.
        """
        single = cast(self.case, "float32")
        with jax.enable_x64(True):
            narrow, wide = (
                flax_side.run(case.config, case.weights, case.batch, gradients=True).gradients
                for case in (single, cast(single, "float64"))
            )
        rounding = scaled_ulps(narrow, wide, "float32")
        if not is_small(self.case.weights):
            return rounding
        with jax.disable_jit():
            uncompiled = flax_side.run(self.case.config, self.case.weights, self.case.batch, gradients=True).gradients
        compiled = scaled_ulps(uncompiled, self.flax.gradients, self.dtype)
        return {name: max(ulp, compiled[name]) for name, ulp in rounding.items()}

    @cached_property
    def softmax_floor(self) -> float:
        """In float64, the rounding error of the first factor of every gradient; in float32 it is part of the floor.
        The logistic function of several labels has none to speak of.

        PyTorch takes it as the exponential of log-probabilities and so makes it grow with them: 10 ULP were seen at a
        log-probability of -16, where JAX was at 2.
        """
        if self.dtype != "float64" or isinstance(self.case.batch, MultilabelBatch):
            return 0.0
        logits = self.torch.intermediates["logits"]
        wide = logits.astype(np.longdouble)
        powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
        return scaled_ulp(torch_side.probabilities(logits), powers / powers.sum(axis=-1, keepdims=True), self.dtype)
