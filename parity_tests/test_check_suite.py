"""The twins agree over the whole config space of the models, by tolerances that the check suite derives."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import CLASSIFIER, TINY
from mutation import mutated
from twins import SIZES, assert_passed
from variants import classifier_variants, name_of, seq2seq_variants

from flax_transformer.config import ModelConfig
from flax_transformer.parity import tolerances
from flax_transformer.parity.cases import Sizes, make_case
from flax_transformer.parity.checks import FORWARD, check_suite, free_running, run_checks
from flax_transformer.parity.measure import element_ulps, mismatches, scaled_ulp, scaled_ulps
from flax_transformer.parity.pair import Pair
from flax_transformer.parity.training import free_steps
from flax_transformer.presets import SIZES as PRESET_SIZES

# In float64 a difference of meaning stands 10^9 above the noise, so it alone is enough for the meaning.
VARIANTS = [*seq2seq_variants(), *classifier_variants()]


@pytest.mark.parametrize("model", VARIANTS[::3], ids=name_of)
@pytest.mark.sample(2)
def test_forward_pass_of_a_third_of_the_covering_variants(model: ModelConfig, x64):
    assert_passed(run_checks(Pair(make_case(model, 0, SIZES), backward=False), FORWARD))


@pytest.mark.slow
@pytest.mark.parametrize("model", VARIANTS, ids=name_of)
def test_gradients_and_decoding_of_all_covering_variants(model: ModelConfig, x64):
    pair = Pair(make_case(model, 0, SIZES))
    checks = [*FORWARD, "gradients", "step"] + [
        r for r in ("cached decoding", "generated ids") if r in check_suite(pair)
    ]
    assert_passed(run_checks(pair, checks))


@pytest.mark.slow
@pytest.mark.parametrize("model", [CLASSIFIER, {}], ids=["classifier", "seq2seq"])
def test_the_whole_check_suite_in_both_precisions(model: dict, dtype: str):
    config = dataclasses.replace(TINY, **model, dtype=dtype, param_dtype=dtype)
    assert_passed(run_checks(Pair(make_case(config, seed=5, sizes=SIZES))))


def test_a_key_that_both_twins_hide_is_seen(x64):
    case = make_case(dataclasses.replace(TINY, dtype="float64", param_dtype="float64"), seed=5, sizes=SIZES)
    with (
        mutated(
            "flax_transformer/nn/models.py",
            "memory_mask = AttentionMask(source_lengths, query",
            "memory_mask = AttentionMask(jnp.maximum(source_lengths - 1, 0), query",
        ),
        mutated(
            "torch_reference/nn/models.py",
            "memory_mask = AttentionMask(source_lengths, query",
            "memory_mask = AttentionMask((source_lengths - 1).clamp(min=0), query",
        ),
    ):
        pair = Pair(case, backward=False)
        by_check = {name: run_checks(pair, [name]) for name in ("reachability", "attention", "logits")}
    assert not all(result.passed for result in by_check["reachability"])
    assert_passed([*by_check["attention"], *by_check["logits"]])  # the twins agree with each other


@pytest.mark.slow
def test_training_with_stacked_layers(x64):
    config = dataclasses.replace(TINY, num_decoder_layers=2, scan_layers=True, dtype="float64", param_dtype="float64")
    assert_passed(run_checks(Pair(make_case(config, seed=5, sizes=SIZES)), ["optimizer", "step"]))


@pytest.mark.slow
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_whole_check_suite_of_a_small_model_and_100_steps(norm_first: bool, dtype: str):
    model = dataclasses.replace(
        PRESET_SIZES["mini"],
        norm_first=norm_first,
        source_vocab_size=97,
        target_vocab_size=97,
        dtype=dtype,
        param_dtype=dtype,
    )
    pair = Pair(make_case(model, seed=0, sizes=Sizes(8, 24, 20)))
    assert_passed([*run_checks(pair), free_running(pair, free_steps(pair, 100))])


@pytest.mark.slow
def test_1000_steps_in_float64(x64):
    model = dataclasses.replace(TINY, activation="gelu", dtype="float64", param_dtype="float64")
    pair = Pair(make_case(model, seed=0, sizes=SIZES))
    assert_passed([free_running(pair, free_steps(pair, 1000))])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("model", [CLASSIFIER, {}], ids=["classifier", "seq2seq"])
@pytest.mark.sample(1)
def test_the_forward_pass_in_half_precision(model: dict, dtype: str):
    model = dataclasses.replace(TINY, **model, dtype=dtype)
    assert_passed(run_checks(Pair(make_case(model, seed=0, sizes=SIZES))))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 5), source=st.integers(1, 16), target=st.integers(2, 16))
@pytest.mark.slow
def test_any_shape_of_batch(seed: int, rows: int, source: int, target: int):
    with jax.enable_x64(True):
        model = dataclasses.replace(TINY, dtype="float64", param_dtype="float64")
        pair = Pair(make_case(model, seed, Sizes(rows, source, target)), backward=False)
        assert_passed(run_checks(pair, ["reachability", "attention", "logits", "loss"]))


@pytest.mark.slow
def test_length_512(x64):
    model = dataclasses.replace(TINY, max_length=512, dtype="float64", param_dtype="float64")
    assert_passed(run_checks(Pair(make_case(model, 0, Sizes(3, 512, 512)), backward=False), FORWARD))


def test_scaled_ulp_is_a_share_of_the_largest_entry():
    reference = np.array([1.0, -4.0, 1e-9], np.float32)
    assert scaled_ulp(reference, reference, "float32") == 0
    assert scaled_ulp(reference + np.array([0, 0, 4 * 2.0**-23], np.float32), reference, "float32") == pytest.approx(
        1, rel=1e-6
    )
    assert scaled_ulp(reference, np.zeros(3, np.float32), "float32") == np.inf
    assert scaled_ulp(reference[:2], reference, "float32") == np.inf
    assert scaled_ulp(np.array([1, np.nan, 0], np.float32), reference, "float32") == np.inf
    assert scaled_ulp(np.array([1, np.inf, 0], np.float32), reference, "float32") == np.inf
    assert scaled_ulps({"a": reference}, {"b": reference}, "float32") == {"b": np.inf, "a": np.inf}


def test_element_ulps_count_the_floats_between_two_numbers():
    reference = np.array([1.0, 3.0, -0.1])
    steps = np.array([1.0, 2.0, 5.0])
    moved = reference + steps * np.spacing(np.abs(reference))
    np.testing.assert_array_equal(element_ulps(moved, reference, "float64"), steps)


def test_mismatches_count_entries():
    assert mismatches(np.array([1, 2, 3]), np.array([1, 0, 0])) == 2
    assert mismatches(np.zeros(2), np.zeros(3)) == np.inf


def test_a_tolerance_follows_its_floor_up_to_the_ceiling_which_only_a_large_floor_lifts():
    def tolerance(floor: float, own_floor: float, dtype: str = "float32") -> float:
        return tolerances.tolerance(floor, 16, own_floor, dtype)

    assert tolerance(0.0, own_floor=0.0) == 4
    assert tolerance(2.0, own_floor=1.0) == 8
    assert tolerance(5.0, own_floor=1.0) == 16
    assert tolerance(20.0, own_floor=1.0) == 16
    assert tolerance(20.0, own_floor=15.0) == 60
    assert tolerance(20.0, own_floor=1.0, dtype="bfloat16") == 2
    assert tolerance(20.0, own_floor=1.5, dtype="bfloat16") == 3
