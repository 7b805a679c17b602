"""Schedules are bit-equal; clipping, Adam and AdamW are torch's, step by step and over many steps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.optim import swa_utils
from twins import OPERATION, same_bits, to_numpy, to_torch, ulps

import flax_transformer.training.matrices as flax_matrices
import flax_transformer.training.optim as flax_optim
import torch_reference.training.matrices as torch_matrices
import torch_reference.training.optim as torch_optim
from flax_transformer.config import OptimizerConfig
from flax_transformer.parity.measure import EPS
from flax_transformer.training.adam import scale_by_adam

SCHEDULES = ["constant", "inverse_sqrt", "cosine", "linear"]
SHAPES = {"matrix": (13, 7), "vector": (11,)}
TOTAL_STEPS = 211


def config_of(**changes: Any) -> OptimizerConfig:
    return OptimizerConfig(**{"warmup_steps": 5, "schedule": "inverse_sqrt", "weight_decay": 0.1, **changes})


def torch_rates(config: OptimizerConfig, total_steps: int) -> np.ndarray:
    """What the scheduler really sets."""
    optimizer = torch_optim.create_optimizer(config, torch.nn.Linear(1, 1))
    scheduler = torch_optim.schedule(optimizer, config, total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    by_step = np.array(rates)
    assert (by_step[:, 0] == by_step[:, 1]).all()
    return by_step[:, 0]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(0, 1), (0, 97), (1, 97), (7, 997), (50, 20)])
def test_schedules_are_equal_bit_for_bit(schedule: str, warmup_steps: int, total_steps: int) -> None:
    config = config_of(schedule=schedule, warmup_steps=warmup_steps, learning_rate=3e-4)
    rates = flax_optim.learning_rates(config, total_steps)
    assert same_bits(rates, torch_rates(config, total_steps))
    on_device = jax.vmap(flax_optim.schedule(config, total_steps))(jnp.arange(total_steps))
    assert same_bits(on_device, rates.astype(np.float32))
    with jax.enable_x64(True):
        on_device = jax.vmap(flax_optim.schedule(config, total_steps))(jnp.arange(total_steps))
        assert same_bits(on_device, rates)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_to_the_peak_and_fall_as_named(schedule: str) -> None:
    warmup, total, peak = 7, 97, 3e-4
    config = config_of(schedule=schedule, warmup_steps=warmup, learning_rate=peak)
    step = np.arange(total)
    expected = {
        "constant": np.full(total, peak),
        # Section 5.3 of the paper counts steps from 1; its factor d_model^-0.5 is divided out by the peak.
        "inverse_sqrt": peak * warmup**0.5 * np.minimum((step + 1.0) ** -0.5, (step + 1) * warmup**-1.5),
        "cosine": peak * (1 + np.cos(np.pi * (step - warmup) / (total - warmup))) / 2,
        "linear": peak * (total - step) / (total - warmup),
    }[schedule]
    expected = np.where(step < warmup, peak * (step + 1) / warmup, expected)
    rates = flax_optim.learning_rates(config, total)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert rates.max() == pytest.approx(peak)
    off_by_one = np.roll(expected, 1)
    assert np.abs(rates - off_by_one).max() > 1e-3 * peak


def arrays(dtype: str, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(shape)).astype(dtype) for name, shape in SHAPES.items()}


def on_device(arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize(("max_norm", "clips"), [(1.0, True), (1e6, False)])
def test_clipping_is_that_of_torch(max_norm: float, clips: bool, dtype: str) -> None:
    gradients = arrays(dtype, seed=0)
    clip = jax.jit(lambda gradients: flax_optim.clip_by_global_norm(max_norm).update(gradients, optax.EmptyState())[0])
    by_flax = clip(on_device(gradients))
    parameters = [torch.nn.Parameter(torch.zeros_like(to_torch(g))) for g in gradients.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = to_torch(gradient)
    torch_optim.clip_by_global_norm(parameters, max_norm)
    for name, parameter in zip(gradients, parameters, strict=True):
        assert ulps(by_flax[name], parameter.grad) <= OPERATION
        assert same_bits(by_flax[name], gradients[name]) == (not clips)
    if dtype == "float64" and clips:  # optax's own lacks the 1e-6, which float32 hardly sees
        of_optax, _ = optax.clip_by_global_norm(max_norm).update(gradients, optax.EmptyState())
        assert ulps(np.asarray(of_optax["matrix"]), parameters[0].grad) > 1e4 * OPERATION


def test_clipping_leaves_a_zero_gradient_finite() -> None:
    zeros = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    clipped, _ = flax_optim.clip_by_global_norm(1.0).update(zeros, optax.EmptyState())
    assert all((array == 0).all() for array in clipped.values())


class TorchSide:
    """Parameters under the reference's optimizer."""

    def __init__(self, config: OptimizerConfig, params: dict[str, np.ndarray]) -> None:
        self.config = config
        self.module = torch.nn.ParameterDict({name: torch.nn.Parameter(to_torch(p)) for name, p in params.items()})
        self.optimizer = torch_optim.create_optimizer(config, self.module)
        self.scheduler = torch_optim.schedule(self.optimizer, config, TOTAL_STEPS)

    @property
    def params(self) -> dict[str, np.ndarray]:
        return {name: to_numpy(p).copy() for name, p in self.module.items()}

    def slot(self, name: str) -> dict[str, np.ndarray]:
        return {key: to_numpy(self.optimizer.state[p][name]).copy() for key, p in self.module.items()}

    def step(self, gradients: dict[str, np.ndarray]) -> None:
        for name, gradient in gradients.items():
            self.module[name].grad = to_torch(gradient)
        if self.config.max_grad_norm:
            torch_optim.clip_by_global_norm(self.module.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()


def flax_stepper(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    @jax.jit
    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def worst_share(
    config: OptimizerConfig, optimizer: optax.GradientTransformation, dtype: str, steps: int, scale: float = 1.0
) -> float:
    """The largest share of what is allowed that any element takes, each step started from torch's state (step-locked).

    Allowed is what rounding of Adam's quotient can do to a parameter,
    ``2 lr (1-b1)/(1-b1^t) * 8 eps max|g| / (sqrt(v_hat) + eps_adam) + 2 spacing(p) + 8 eps |update|``,
    and to the moments what is allowed to any operation. ``scale`` is the size of the parameters.
    """
    torch_side = TorchSide(config, arrays(dtype, seed=0, scale=scale))
    rates = flax_optim.learning_rates(config, TOTAL_STEPS)
    state = optimizer.init(on_device(torch_side.params))
    step_of_flax = flax_stepper(optimizer)
    worst = 0.0
    for step in range(steps):
        before, gradients = torch_side.params, arrays(dtype, seed=step + 1, scale=0.1)
        torch_side.step(gradients)
        given, state = step_of_flax(on_device(before), state, gradients)
        after, mean, square = torch_side.params, torch_side.slot("exp_avg"), torch_side.slot("exp_avg_sq")
        for name in SHAPES:
            v_hat = square[name] / (1 - config.beta2 ** (step + 1))
            quotient = (1 - config.beta1) / (1 - config.beta1 ** (step + 1)) * 8 * EPS[dtype]
            bound = 2 * rates[step] * quotient * np.abs(gradients[name]).max() / (np.sqrt(v_hat) + config.eps)
            bound += 2 * np.spacing(np.abs(before[name])) + 8 * EPS[dtype] * np.abs(after[name] - before[name])
            worst = max(worst, (np.abs(np.asarray(given[name]) - after[name]) / bound).max())
        if step + 1 < steps:
            for moment, expected in (("mean", mean), ("square", square)):
                own = optax.tree_utils.tree_get(state, moment)
                worst = max(worst, *(ulps(own[name], expected[name]) / OPERATION for name in SHAPES))
            state = optax.tree_utils.tree_set(state, mean=on_device(mean), square=on_device(square))
    return float(worst)


OPTIMIZERS = {
    "adam": {"name": "adam", "weight_decay": 0.0},
    "adam with L2": {"name": "adam"},
    "adamw": {"name": "adamw"},
    "adamw, clipped": {"name": "adamw", "max_grad_norm": 0.5},
    "adam with L2, not clipped": {"name": "adam", "max_grad_norm": 0.0},
    "other moments": {"name": "adamw", "beta1": 0.0, "beta2": 0.98, "eps": 1e-3},
}


@pytest.mark.parametrize("changes", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_step_is_that_of_torch_within_its_bound(changes: dict[str, Any], dtype: str) -> None:
    config = config_of(**changes)
    assert worst_share(config, flax_optim.create_optimizer(config, TOTAL_STEPS), dtype, steps=12) <= 1


MISTAKES: dict[str, dict[str, Any]] = {
    "eps ten times as large": {"eps": 1e-7},
    "L2 instead of decoupled decay": {"name": "adam"},
    "another beta1": {"beta1": 0.899},
    "another beta2": {"beta2": 0.9989},
    "a schedule that is off by one": {"warmup_steps": 6},
    "torch's default decay": {"weight_decay": 0.01},
    "no clipping": {"max_grad_norm": 0.0},
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("changes", MISTAKES.values(), ids=MISTAKES)
def test_planted_mistakes_exceed_the_bound(changes: dict[str, Any]) -> None:
    config = config_of(name="adamw", max_grad_norm=0.5)
    mistaken = flax_optim.create_optimizer(dataclasses.replace(config, **changes), TOTAL_STEPS)
    assert worst_share(config, mistaken, "float64", steps=3) > 1


def test_decay_of_biases_exceeds_the_bound() -> None:
    config = config_of(name="adamw", max_grad_norm=0.0)
    mistaken = optax.chain(
        scale_by_adam(config.beta1, config.beta2, config.eps),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(flax_optim.schedule(config, TOTAL_STEPS)),
    )
    assert worst_share(config, mistaken, "float32", steps=3) > 1


def test_the_bias_correction_of_optax_exceeds_the_bound() -> None:
    """It takes 1 - beta2^t in float32. Parameters of size 1 would hide it behind their own rounding."""
    config = config_of(name="adam", max_grad_norm=0.0, weight_decay=0.0)
    of_optax = optax.chain(
        optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        optax.scale_by_learning_rate(flax_optim.schedule(config, TOTAL_STEPS)),
    )
    assert worst_share(config, of_optax, "float32", steps=1, scale=1e-6) > 1
    own = flax_optim.create_optimizer(config, TOTAL_STEPS)
    assert worst_share(config, own, "float32", steps=1, scale=1e-6) <= 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("changes", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_hundred_steps_stay_together(changes: dict[str, Any]) -> None:
    config = config_of(**changes)
    torch_side = TorchSide(config, arrays("float64", seed=0))
    optimizer = flax_optim.create_optimizer(config, TOTAL_STEPS)
    stepper = flax_stepper(optimizer)
    params = on_device(torch_side.params)
    state = optimizer.init(params)
    for step in range(100):
        gradients = arrays("float64", seed=step + 1, scale=0.1)
        torch_side.step(gradients)
        params, state = stepper(params, state, gradients)
    expected, start = torch_side.params, arrays("float64", seed=0)
    for name in SHAPES:
        assert ulps(params[name], expected[name]) <= 100 * OPERATION
        assert np.abs(expected[name] - start[name]).max() > 1e-3 * np.abs(start[name]).max(), "nothing moved"


@pytest.mark.parametrize("decay", [0.1, 0.999])
def test_the_running_mean_of_the_weights_is_that_of_torch(decay: float, dtype: str) -> None:
    """Its decay is 0.1 at the first step, so that with 0.1 it is the constant one of torch.optim.swa_utils."""
    weights = torch.nn.ParameterDict({name: to_torch(array) for name, array in arrays(dtype, seed=0).items()})
    oracle = swa_utils.AveragedModel(weights, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    oracle.update_parameters(weights)  # the first one copies
    by_torch = [weight.detach().clone() for weight in weights.values()]
    by_flax = on_device(arrays(dtype, seed=0))
    update = jax.jit(lambda mean, new, step: flax_optim.update_average(mean, new, step, decay))
    for step in range(30):
        new = arrays(dtype, seed=step + 1)
        for name, weight in weights.items():
            weight.data = to_torch(new[name])
        by_flax = update(by_flax, on_device(new), jnp.asarray(step))
        torch_optim.update_average(by_torch, list(weights.values()), step, decay)
        oracle.update_parameters(weights)
    for mean, other, expected in zip(by_flax.values(), by_torch, oracle.module.values(), strict=True):
        assert ulps(mean, other) <= OPERATION
        assert (ulps(mean, expected) <= OPERATION) == (decay == 0.1)


def test_both_twins_decay_the_same_parameters() -> None:
    assert flax_matrices.is_matrix(jnp.zeros((13, 7)))
    assert torch_matrices.is_matrix(torch.zeros(13, 7))
    assert not flax_matrices.is_matrix(jnp.zeros(11))
    assert not torch_matrices.is_matrix(torch.zeros(11))
