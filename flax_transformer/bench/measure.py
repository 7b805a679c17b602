"""Candidates timed in turns, A B A B, so that whatever else the machine does falls on all of them alike."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flax_transformer.bench.worker import Refused, Turn, Worker

TURN_SECONDS = 2.0  # that a candidate is given at a time, unless one step takes longer
_CALM = 0.03  # share of the cores that others may take in a turn
_TRIES = 4  # rounds to try for each that is asked for, where the machine is not calm


@dataclass
class Measured:
    """What one candidate did; all that is timed is in seconds per step, one figure for each turn.

    Args:
        refused: why it took no part, or took none any more.
        first: until the first step was done, compilation included; from the model on, without the loading of libraries.
        dispatch: until the host was free again.
        background_load: the share of the cores that other processes took meanwhile.
        memory: the most bytes in use: of the process, and of the device where that has its own.
    """

    refused: str | None = None
    first: float | None = None
    seconds: list[float] = field(default_factory=list)
    dispatch: list[float] = field(default_factory=list)
    background_load: list[float] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)


def take_turns(
    workers: Mapping[str, Worker], rounds: int, on_turn: Callable[[str], None] = lambda state: None
) -> dict[str, Measured]:
    """Each candidate's first step, rounds to warm up, and then ``rounds`` rounds of a turn for each.

    A round in which others took more than 3% of the cores is repeated; of four times as many, the calmest are kept.

    Args:
        workers: candidates with the methods of :class:`flax_transformer.bench.worker.Candidate`.
        on_turn: is told what happens.
    """
    measured = {name: Measured() for name in workers}
    steps = dict.fromkeys(workers, 1)

    def one_round(state: str) -> dict[str, Turn]:
        turns = {}
        for name in [name for name in workers if measured[name].refused is None]:
            on_turn(f"{name}: {state}")
            try:
                dispatch, seconds, background_load = workers[name].call("turn", steps[name])
            except Refused as refusal:
                measured[name].refused = str(refusal)
                continue
            turns[name] = Turn(dispatch / steps[name], seconds / steps[name], background_load)
        return turns

    for name, turn in one_round("first step").items():
        measured[name].first = turn.seconds
    for _ in range(2):
        for name, turn in one_round("warming up").items():
            steps[name] = max(1, round(TURN_SECONDS / turn.seconds))
    tried: list[dict[str, Turn]] = []
    while len(tried) < _TRIES * rounds and sum(_background_load(turns) <= _CALM for turns in tried) < rounds:
        tried.append(one_round(f"round {len(tried) + 1}"))
    calmest = sorted(sorted(range(len(tried)), key=lambda i: _background_load(tried[i]))[:rounds])
    for name in [name for name in workers if measured[name].refused is None]:
        own = [tried[i][name] for i in calmest]
        measured[name].dispatch, measured[name].seconds, measured[name].background_load = map(
            list, zip(*own, strict=True)
        )
        measured[name].memory = workers[name].call("memory")
    return measured


def _background_load(turns: Mapping[str, Turn]) -> float:
    return max((turn.background_load for turn in turns.values()), default=0.0)


def pair_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times as fast we were, pair by pair: their seconds over ours in the same round."""
    return [their / our for our, their in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, as a share of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / statistics.median(values)
