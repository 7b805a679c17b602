"""The tables of planted bugs: they fit the models, and the slow ones run them all."""

import pytest

from tests.doctor import good, matrix
from tests.doctor.planting import planted

FRAMEWORKS = ("torch", "flax")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_bug_changes_one_line_of_its_model(framework: str):
    for bug in matrix.bugs_of(framework):
        planted(f"{framework}_models.py", bug)  # raises where the line is not there once


def test_there_are_enough_bugs_and_each_has_a_name():
    for framework, least in (("torch", 70), ("flax", 30)):
        names = [bug.name for bug in matrix.bugs_of(framework)]
        assert len(names) == len(set(names)) >= least


def test_bugs_of_one_name_have_one_diagnosis():
    in_torch = {bug.name: set(bug.causes.split()) for bug in matrix.bugs_of("torch")}
    for bug in matrix.bugs_of("flax"):
        assert set(bug.causes.split()) <= in_torch[bug.name], bug.name


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_planted_bugs_are_found_in_all_of_three_seeds(framework: str):
    outcomes = [
        matrix.examine_bug(framework, bug, kind, seed)
        for bug in matrix.bugs_of(framework)
        for kind in bug.kinds.split()
        for seed in range(3)
    ]
    assert all(outcome.found for outcome in outcomes if outcome.exact)
    assert matrix.share_found(outcomes) >= 0.95
    assert matrix.share_named(outcomes) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("case", list(good.cases()), ids=str)
def test_no_good_model_is_called_ill(case: good.Case):
    report = good.examine_good(case)
    assert not report.is_ill, str(report)
