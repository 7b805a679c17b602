"""What the files of a run say of it, without its data and its weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from flax import nnx

from flax_transformer.config import load_json
from flax_transformer.data.fingerprint import load_record
from flax_transformer.data.tasks import TASKS
from flax_transformer.errors import UserError
from flax_transformer.nn.models import create_model
from flax_transformer.training.report import read_metrics
from flax_transformer.training.run import Run


@dataclass(frozen=True)
class Facts:
    """
    Args:
        rows: of metrics.jsonl, in order.
        results: of results.json; empty where the run has not ended.
        sizes: examples of each split; empty for a run of before there were records.
        parameters: numbers that the model consists of.
    """

    run: Run
    rows: list[dict[str, Any]]
    results: Mapping[str, Any]
    sizes: dict[str, int]
    parameters: int

    @property
    def metric(self) -> str:
        """The score that the best checkpoint is kept by."""
        return TASKS[self.run.config.data.task].metric

    @property
    def has_ended(self) -> bool:
        return bool(self.results)

    def points(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of a metric where it was written down; NaN where it was not finite."""
        found = [row for row in self.rows if name in row]
        return [row["step"] for row in found], [_number(row[name]) for row in found]

    @property
    def best(self) -> tuple[int, dict[str, Any]] | None:
        """Step and validation scores of the best checkpoint; None where nothing was evaluated yet."""
        name = f"validation/{self.metric}"
        evaluated = [row for row in self.rows if name in row]
        if not evaluated:
            return None
        scored = self.results.get("step")  # of several that are as good, the one that the test was taken with
        row = max(evaluated, key=lambda row: (_number(row[name]), row["step"] == scored, row["step"]))
        scores = {key.removeprefix("validation/"): value for key, value in row.items() if key.startswith("validation/")}
        return row["step"], scores

    @property
    def seconds(self) -> float:
        """Wall time of training and its evaluations: each time that a run is resumed, its clock starts anew."""
        clock = [_number(row.get("seconds", 0)) for row in self.rows]
        ends = [now for now, then in pairwise([*clock, -math.inf]) if then < now]
        return sum(filter(math.isfinite, ends))


def read_facts(run: Run) -> Facts:
    """
    Raises:
        UserError: the record of the run's data is damaged.
    """
    record = load_record(run.folder)
    sizes = {name: int(split["rows"]) for name, split in record["splits"].items()} if record else {}
    rows = [row for row in read_metrics(run.folder / "metrics.jsonl") if isinstance(row["step"], int)]
    return Facts(run, rows, _read_results(run.folder / "results.json"), sizes, _count_parameters(run))


def group_name(task: str, group: str) -> str:
    """Of a group of examples that is scored apart, in words; that of the main one is empty in the scores."""
    return f"{group or 'held-out'} kinds" if task == "manifests" else group or "main"


def _read_results(path: Path) -> Mapping[str, Any]:
    try:
        results = load_json(path, "results")
    except UserError:
        return {}
    return results if isinstance(results, dict) and isinstance(results.get("test"), dict) else {}


def _count_parameters(run: Run) -> int:
    model = nnx.eval_shape(lambda: create_model(run.config.model, run.config.seed))
    return sum(math.prod(param.shape) for _, param in nnx.to_flat_state(nnx.state(model, nnx.Param)))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
