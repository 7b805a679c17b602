"""Contenders timed in turns, A B A B, so that whatever else the machine does falls on all of them alike."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.worker import Refused, Worker

_TURN = 2.0  # seconds that a contender is given at a time, unless one step takes longer


@dataclass
class Measured:
    """What one contender did; all that is timed is in seconds per step, one figure for each turn.

    Args:
        refused: why it took no part, or took none any more.
        first: until the first step was done, compilation included; from the model on, without the loading of libraries.
        dispatch: until the host was free again.
        memory: the most bytes in use: of the process, and of the device where that has its own.
    """

    refused: str | None = None
    first: float | None = None
    seconds: list[float] = field(default_factory=list)
    dispatch: list[float] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        """Half a measurement is none."""
        self.refused, self.seconds, self.dispatch = reason, [], []


def take_turns(
    workers: Mapping[str, Worker], rounds: int, on_turn: Callable[[str], None] = lambda state: None
) -> dict[str, Measured]:
    """Each contender's first step, a round to warm up, and then ``rounds`` rounds of a turn for each.

    Args:
        workers: contenders with ``time(steps) -> (seconds until dispatched, seconds until done)`` and ``memory()``.
        on_turn: is told what happens.
    """
    measured = {name: Measured() for name in workers}
    steps = dict.fromkeys(workers, 1)

    def turn(name: str) -> tuple[float, float] | None:
        if measured[name].refused is not None:
            return None
        try:
            dispatched, done = workers[name].call("time", steps[name])
        except Refused as refusal:
            measured[name].refuse(str(refusal))
            return None
        return dispatched / steps[name], done / steps[name]

    for name in workers:
        on_turn(f"{name}: first step")
        if timing := turn(name):
            measured[name].first = timing[1]
    for round_ in range(-2, rounds):
        for name in workers:
            on_turn(f"{name}: round {round_ + 1} of {rounds}" if round_ >= 0 else f"{name}: warming up")
            timing = turn(name)
            if timing is None:
                continue
            if round_ < 0:
                steps[name] = max(1, round(_TURN / timing[1]))
            else:
                measured[name].dispatch.append(timing[0])
                measured[name].seconds.append(timing[1])
    for name, worker in workers.items():
        if measured[name].refused is None:
            measured[name].memory = worker.call("memory")
    return measured


def pair_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times as fast we were, pair by pair: their seconds over ours in the same round."""
    return [their / our for our, their in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(values)


def summary(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "spread": spread(values), "values": list(values)}
