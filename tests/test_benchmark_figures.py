"""The arithmetic of the benchmarks' figures."""

from dataclasses import replace
from typing import Any

import jax
import pytest

from flax_transformer.bench.attention import fit_exponent
from flax_transformer.bench.e2e import parts_of
from flax_transformer.bench.measure import pair_ratios, spread
from flax_transformer.bench.workload import make_batches, make_config
from flax_transformer.planning.flops import forward_flops, tokens_per_step, train_flops
from flax_transformer.training.step import TrainStep

pytestmark = pytest.mark.optimized


@pytest.mark.parametrize("preset", ["tiny", pytest.param("assignment", marks=pytest.mark.slow), "base"])
def test_flops_are_those_that_xla_counts(preset: Any) -> None:
    config = make_config(preset, dropout=0.0, batch=4)
    if preset == "base":  # fewer layers are traced faster, and no layer is unlike the others
        config = replace(config, model=replace(config.model, num_encoder_layers=1, num_decoder_layers=2))
    step = TrainStep(config, total_steps=10)
    [batch] = make_batches(config, 1)
    lowered = jax.jit(lambda state, batch: step(state, batch)).lower(jax.eval_shape(step.init), batch)
    costs: Any = lowered.cost_analysis()
    counted = costs["flops"]
    assert train_flops(config) == pytest.approx(counted, rel=0.05)
    longer = replace(config, batch=replace(config.batch, max_source_length=2 * config.batch.max_source_length))
    assert train_flops(longer) > 1.05 * counted


def test_a_training_step_is_three_forward_passes() -> None:
    config = make_config("base")
    assert train_flops(config) == 3 * forward_flops(config)


def test_pairs_are_compared_within_their_round() -> None:
    ours, theirs = [1.0, 2.0, 4.0], [2.0, 3.0, 4.0]
    assert pair_ratios(ours, theirs) == [2.0, 1.5, 1.0]
    with pytest.raises(ValueError, match=r"longer|shorter"):
        pair_ratios(ours, theirs[:2])


def test_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert spread([10.0]) == 0
    assert spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.1)
    assert spread([8.0, 9.0, 10.0, 11.0, 1200.0]) == pytest.approx(0.1)  # one bad turn does not widen it


@pytest.mark.parametrize("power", [1, 2])
def test_the_fitted_exponent_is_the_power_of_the_length(power: int) -> None:
    lengths = [2.0**i for i in range(7, 14)]
    points = [(length, 3 * length**power) for length in lengths]
    assert fit_exponent(points) == pytest.approx(power)
    floor = [(length, max(value, 3 * 512.0**power)) for length, value in points]  # short lengths cost a constant
    assert fit_exponent(floor) == pytest.approx(power)
    assert fit_exponent(points[:1]) is None


def test_tokens_of_a_step() -> None:
    assert tokens_per_step(make_config("tiny", batch=3, length=5)) == 15
    config = make_config("base", batch=3, length=5)
    [batch] = make_batches(config, 1)
    assert tokens_per_step(config) == 30
    assert batch.source.shape == (3, 5)
    assert batch.target.shape == (3, 6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("steps", "rounds", "fraction", "parts"),
    [(469, 5, 0.03, [2, 3, 3, 3, 3]), (10, 2, 1.0, [5, 5]), (100, 4, 0.01, [1] * 4), (2, 3, 1.0, [0, 1, 1])],
)
def test_a_fraction_of_an_epoch_is_cut_into_equal_parts(
    steps: int, rounds: int, fraction: float, parts: list[int]
) -> None:
    assert parts_of(steps, rounds, fraction) == parts
