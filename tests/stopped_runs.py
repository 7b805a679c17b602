"""Runs that a signal stops at a given moment, and what runs leave behind."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flax_transformer.training.run import Run
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import TrainStep


def final_state(folder: Path, steps: int) -> TrainState:
    run = Run.load(folder)
    with run.checkpoints() as checkpoints:
        assert checkpoints.newest_step == steps
        return checkpoints.restore(steps, TrainStep(run.config, steps).abstract_state)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def stop_on_call(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, number: signal.Signals):
    """Send the process a signal in the given call of a method, counted from 1."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(number)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
