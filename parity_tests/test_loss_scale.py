"""Loss scaling of float16: the decisions of torch.amp.GradScaler, and steps that overflow."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from mutants import CLASSIFIER, TINY
from twins import SIZES

from flax_transformer.config import OptimizerConfig
from flax_transformer.parity import flax_side, torch_side
from flax_transformer.parity.cases import Case, make_case
from flax_transformer.parity.measure import EPS
from flax_transformer.training import loss_scale
from flax_transformer.training.loss_scale import LossScale, create_loss_scale, update_loss_scale


def scales_of_torch(finite: list[bool], interval: int) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale.INITIAL_SCALE, growth_interval=interval)
    scales = []
    for is_finite in finite:
        scaler.scale(parameter.sum()).backward()
        parameter.grad = torch.full((1,), 1.0 if is_finite else torch.inf)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


def test_the_scale_changes_as_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    finite = [bool(draw) for draw in np.random.default_rng(0).random(60) < 0.8]
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    state, scales = create_loss_scale(), []
    for is_finite in finite:
        state = update_loss_scale(state, jnp.asarray(is_finite))
        scales.append(float(state.scale))
    assert scales == scales_of_torch(finite, interval=3)
    assert scales != scales_of_torch(finite, interval=4)
    assert max(scales) > loss_scale.INITIAL_SCALE > min(scales)


@pytest.fixture(scope="module")
def case() -> Case:
    model = dataclasses.replace(TINY, **CLASSIFIER, dtype="float16", dropout=0.0)
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup_steps=2, schedule="constant")
    return make_case(model, seed=5, sizes=SIZES, optimizer=optimizer)


def test_both_twins_train_in_float16_and_skip_what_overflows(case: Case) -> None:
    flax, torch_ = (side.Trainer(case.config, case.weights, 101) for side in (flax_side, torch_side))
    # Far more than float16 holds, so that the first steps overflow.
    flax._state = flax._state._replace(loss_scale=LossScale(jnp.asarray(2.0**20), jnp.zeros((), jnp.int32)))
    torch_.step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2_000)
    skipped = 0
    for step in range(10):
        before = jax.device_get((flax._state.params, flax._state.opt_state))
        batch = case.batch_of_step(step)
        by_flax, by_torch = flax(batch), torch_(batch)
        after = jax.device_get((flax._state.params, flax._state.opt_state))
        assert by_flax["loss"] == pytest.approx(by_torch["loss"], abs=EPS["float16"])
        assert flax._state.loss_scale.scale == torch_.step.scaler.get_scale()
        if by_flax["skipped"]:
            skipped += 1
            jax.tree.map(np.testing.assert_array_equal, after, before)
    assert 2 <= skipped <= 8
    after = torch_.state.weights
    # On average, since Adam divides the gradient of a key's bias, which is rounding noise, by itself.
    difference, moved = (
        np.mean([np.abs(other[name] - weight).mean() for name, weight in after.items()])
        for other in (flax.state.weights, case.weights)
    )
    assert difference < 0.1 * moved


def test_small_gradients_vanish_without_the_scale(case: Case) -> None:
    trainer = flax_side.Trainer(case.config, case.weights, 101)
    batch = jax.tree.map(jnp.asarray, case.batch_of_step(0))

    @jax.jit
    def gradients(scale: jax.Array) -> jax.Array:
        of_params = trainer.step._gradients(trainer._state.params, batch, jax.random.key(0), scale)[2]
        return jnp.concatenate([gradient.ravel() for gradient in jax.tree.leaves(of_params)])

    without, scaled = (gradients(jnp.asarray(scale)) for scale in (2.0**-18, loss_scale.INITIAL_SCALE))
    assert ((without == 0) & (scaled != 0)).sum() > 100
