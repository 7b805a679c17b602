"""The suite is shown able to fail: every planted mistake is noticed by its rung, and unharmed twins raise no alarm."""

import dataclasses
import functools

import jax
import pytest

from parity.cases import Sizes, make_case
from parity.mutations import MUTANTS, TINY, Mutant, measure
from parity.pair import Pair
from parity.planting import planted
from parity.rungs import FORWARD, climb, ladder
from torch_reference import masks, models

# Mutants of one case share its unharmed pair, which is what takes the time.
_clean_pairs: dict[str, Pair] = {}


def clean_pair(mutant: Mutant) -> Pair:
    key = repr((mutant.dtype, mutant.model, mutant.training))
    if key not in _clean_pairs:
        _clean_pairs[key] = Pair(mutant.case())
    return _clean_pairs[key]


def test_the_catalogue_is_large_enough_and_its_names_differ():
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    # Every rung has a mistake that it alone is meant for.
    assert {mutant.rung for mutant in MUTANTS} >= set(ladder(Pair(Mutant("", "", "", "", "").case())))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_is_noticed_by_its_rung(mutant: Mutant):
    with jax.enable_x64(mutant.dtype == "float64"):
        results = measure(mutant, clean_pair(mutant))
    assert not all(result.passed for result in results), results


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_without_its_mistake_the_rung_of_each_mutant_is_silent(mutant: Mutant):
    with jax.enable_x64(mutant.dtype == "float64"):
        results = _climb_once(clean_pair(mutant), mutant.rung)
    assert all(result.passed for result in results), results


@functools.cache
def _climb_once(pair: Pair, rung: str):
    return climb(pair, [rung])


def test_planting_is_undone_even_after_an_error():
    before = masks.causal_mask, models.Seq2Seq

    def fail_within() -> None:
        with planted("torch_reference/masks.py", "<= query_positions[", "< query_positions["):
            assert masks.causal_mask is not before[0]
            assert not masks.causal_mask(1, 1).any()
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail_within()
    assert (masks.causal_mask, models.Seq2Seq) == before


def test_a_mutant_that_no_longer_fits_the_code_is_refused():
    with pytest.raises(ValueError, match="exactly once"), planted("torch_reference/masks.py", "no such line", ""):
        pass


SEEDS = 30
# 10 free steps stand for 100 here: they take a tenth of the time.
CHEAP = [*FORWARD, "gradients", "clipping", "schedule", "optimizer", "step"]


def _alarms(dtype: str, rungs: list[str], seeds: range) -> list[str]:
    model = dataclasses.replace(TINY, dtype=dtype, param_dtype=dtype)
    alarms = []
    for seed in seeds:
        pair = Pair(make_case(model, seed, Sizes(rows=4, source=7, target=6)))
        alarms += [f"seed {seed}: {result}" for result in climb(pair, rungs) if not result.passed]
    return alarms


def test_unharmed_twins_raise_no_alarm_over_30_seeds(dtype: str):
    assert _alarms(dtype, CHEAP, range(SEEDS)) == []


@pytest.mark.slow
def test_unharmed_twins_raise_no_alarm_on_the_whole_ladder_over_30_seeds(dtype: str):
    assert _alarms(dtype, ["10 steps", "dropout", "cached decoding", "generated ids"], range(SEEDS)) == []
