"""Candidates of the benchmarks: they take turns in processes of their own, and some of them fail."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from flax_transformer.bench.measure import Measured, take_turns
from flax_transformer.bench.worker import Candidate, Refused, Turn, Worker
from flax_transformer.errors import UserError

pytestmark = pytest.mark.usefixtures("short_turns")

# --- turns ---


class Clock:
    """A candidate that says how long its steps take, and stands in for its own process."""

    def __init__(
        self,
        seconds: float,
        log: list[str],
        name: str,
        fails_after: float = math.inf,
        loads: Sequence[float] = (),
    ) -> None:
        self.seconds, self.log, self.name, self.left = seconds, log, name, fails_after
        self.loads = iter(loads)

    def call(self, method: str, *arguments: int) -> Any:
        if method == "memory":
            return {"rss": 1}
        self.left -= 1
        if self.left < 0:
            raise Refused("no memory left")
        self.log.append(self.name)
        background_load = next(self.loads, 0.0)
        seconds = (1 + background_load) * self.seconds * arguments[0]
        return Turn(0.1 * seconds, seconds, background_load)


def test_candidates_take_turns() -> None:
    log: list[str] = []
    workers: Any = {"a": Clock(0.5, log, "a"), "b": Clock(5.0, log, "b")}
    measured = take_turns(workers, rounds=3)
    assert "".join(log) == "ab" * 6  # a first step, two rounds to warm up, three that count
    assert measured["a"].seconds == pytest.approx([0.5] * 3)
    assert measured["a"].dispatch == pytest.approx([0.05] * 3)
    assert measured["a"].first == pytest.approx(0.5)


def test_a_candidate_that_fails_leaves_the_others_running() -> None:
    workers: Any = {"a": Clock(1.0, [], "a"), "b": Clock(1.0, [], "b", fails_after=4)}
    measured = take_turns(workers, rounds=3)
    assert measured["b"] == Measured(refused="no memory left", first=1.0)
    assert len(measured["a"].seconds) == 3


def test_rounds_that_others_disturb_are_repeated() -> None:
    workers: Any = {"a": Clock(1.0, [], "a", loads=[0, 0, 0, 0.5, 0, 0.2]), "b": Clock(2.0, [], "b")}
    measured = take_turns(workers, rounds=3)
    assert measured["a"].seconds == [1.0] * 3
    assert measured["a"].background_load == [0.0] * 3
    never_calm: Any = {"a": Clock(1.0, [], "a", loads=[0] * 3 + [0.5, 0.4, 0.3, 0.2, 0.6, 0.7, 0.8, 0.9])}
    measured = take_turns(never_calm, rounds=2)
    assert measured["a"].background_load == [0.3, 0.2]  # the calmest, in their order


# --- processes ---


class Trouble(Candidate):
    """A candidate for each thing that can go wrong."""

    def user_error(self) -> None:
        raise UserError("take another config")

    def too_large(self) -> int:
        return np.ones(2**50, np.int8).sum()

    def missing(self) -> None:
        import a_package_that_is_not_there  # noqa: F401  # pyright: ignore[reportMissingImports]

    def crash(self) -> None:
        raise KeyError("a mistake of the program")

    def abort(self) -> None:
        import os

        os.abort()


@pytest.fixture(scope="module")
def trouble() -> Any:
    worker = Worker("test_benchmark_candidates:Trouble")
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("user_error", r"^take another config$"),
        ("too_large", r"^too large for the memory \(.*\); take a smaller --batch"),
        ("missing", r"^needs a_package_that_is_not_there, which is not installed$"),
        ("crash", r"^KeyError in .*test_benchmark_candidates.py:\d+: 'a mistake of the program'$"),
    ],
)
def test_what_goes_wrong_in_a_candidate_is_one_line(trouble: Worker, method: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        trouble.call(method)
    assert trouble.call("memory")["rss"] > 2**20  # it lives on


def test_the_end_of_a_process_is_a_refusal() -> None:
    worker = Worker("test_benchmark_candidates:Trouble")
    with pytest.raises(Refused, match=r"ended by SIGABRT; most likely the memory"):
        worker.call("abort")
    worker.close()
