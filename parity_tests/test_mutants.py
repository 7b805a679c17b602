"""The suite is shown able to fail: every mutant is noticed by its check, and equal twins pass."""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import pytest
from families import FAMILIES
from mutants import TINY, Mutant, measure
from mutants_catalogue import ALL_MUTANTS, BASE_MUTANTS
from mutants_multilabel import LABELS
from mutants_multilabel import TRAINING as MULTILABEL
from mutation import mutated

from flax_transformer.parity.cases import Sizes, make_case
from flax_transformer.parity.checks import FORWARD, check_suite, run_checks
from flax_transformer.parity.pair import Pair
from torch_reference.nn import masks, models

# Mutants of one case share its unharmed pair, which is what takes the time.
_clean_pairs: dict[str, Pair] = {}


def clean_pair(mutant: Mutant) -> Pair:
    key = repr((mutant.dtype, mutant.model, mutant.training))
    if key not in _clean_pairs:
        _clean_pairs[key] = Pair(mutant.case())
    return _clean_pairs[key]


def test_the_catalogue_is_large_enough_and_its_names_differ():
    assert len(ALL_MUTANTS) >= 100
    assert len({mutant.name for mutant in ALL_MUTANTS}) == len(ALL_MUTANTS)
    # Every check has a mistake that it alone is meant for.
    assert {mutant.check for mutant in BASE_MUTANTS} >= set(check_suite(Pair(Mutant("", "", "", "", "").case())))


@pytest.mark.parametrize("mutant", ALL_MUTANTS, ids=lambda mutant: mutant.name)
@pytest.mark.sample(5)
def test_each_mutant_is_noticed_by_its_check(mutant: Mutant):
    with jax.enable_x64(mutant.dtype == "float64"):
        results = measure(mutant, clean_pair(mutant))
    assert not all(result.passed for result in results), results


@pytest.mark.parametrize("mutant", ALL_MUTANTS, ids=lambda mutant: mutant.name)
@pytest.mark.sample(3)
def test_without_its_mistake_the_check_of_each_mutant_passes(mutant: Mutant):
    with jax.enable_x64(mutant.dtype == "float64"):
        results = _run_once(clean_pair(mutant), mutant.check)
    assert all(result.passed for result in results), results


@functools.cache
def _run_once(pair: Pair, check: str):
    return run_checks(pair, [check])


def test_planting_is_undone_even_after_an_error():
    before = masks.causal_mask, models.Seq2Seq

    def fail_within() -> None:
        with mutated("torch_reference/nn/masks.py", "<= query_positions[", "< query_positions["):
            assert masks.causal_mask is not before[0]
            assert not masks.causal_mask(1, 1).any()
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail_within()
    assert (masks.causal_mask, models.Seq2Seq) == before


def test_a_mutant_that_no_longer_fits_the_code_is_refused():
    with pytest.raises(ValueError, match="exactly once"), mutated("torch_reference/nn/masks.py", "no such line", ""):
        pass


SEEDS = 30
# 10 free steps stand for 100 here: they take a tenth of the time.
CHEAP = [*FORWARD, "gradients", "clipping", "schedule", "optimizer", "step"]


def _alarms(
    dtype: str, checks: list[str], seeds: range, training: Mapping[str, Any] = MappingProxyType({}), **fields: Any
) -> list[str]:
    model = dataclasses.replace(TINY, dtype=dtype, param_dtype=dtype, **fields)
    alarms = []
    for seed in seeds:
        pair = Pair(make_case(model, seed, Sizes(rows=4, source=7, target=6), **training))
        alarms += [f"seed {seed}: {result}" for result in run_checks(pair, checks) if not result.passed]
    return alarms


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_equal_twins_of_each_family_pass_the_whole_check_suite(dtype: str, family: str):
    case = make_case(dataclasses.replace(TINY, **FAMILIES[family]), 0)
    assert _alarms(dtype, list(check_suite(Pair(case))), range(3), **FAMILIES[family]) == []


@pytest.mark.slow
def test_equal_twins_of_several_labels_pass_the_whole_check_suite(dtype: str):
    case = make_case(dataclasses.replace(TINY, **LABELS), 0, **MULTILABEL)
    assert "labels" in check_suite(Pair(case))
    assert _alarms(dtype, list(check_suite(Pair(case))), range(3), MULTILABEL, **LABELS) == []


@pytest.mark.slow
def test_equal_twins_pass_over_30_seeds(dtype: str):
    assert _alarms(dtype, CHEAP, range(SEEDS)) == []


@pytest.mark.slow
def test_equal_twins_pass_the_whole_check_suite_over_30_seeds(dtype: str):
    assert _alarms(dtype, ["10 steps", "dropout", "cached decoding", "generated ids"], range(SEEDS)) == []
