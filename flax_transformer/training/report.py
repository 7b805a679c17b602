"""What a run tells: a progress bar or plain lines, metrics.jsonl, and TensorBoard events."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.summary import Writer

from flax_transformer.errors import warn
from flax_transformer.outputs import discard_stdout
from flax_transformer.training.step import Metrics

Values = Mapping[str, float | str | None]


class Diverged(Exception):  # noqa: N818, what to make of it is the loop's to say
    """As many steps in a row as the run allows had a loss or a gradient that is not finite, and were skipped."""

    def __init__(self, steps: range) -> None:
        super().__init__(
            f"no finite loss and gradient in {len(steps)} steps in a row, {steps.start} to {steps.stop - 1}"
        )
        self.steps = steps


class _Console(Console):
    """One whose reader may go away, as ``head`` does, without ending the training."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        discard_stdout()
        warn("nobody reads the output any more; the training goes on, and metrics.jsonl has its figures")


class Report:
    """Writes down the metrics of training and evaluation.

    The metrics of a step live on the device until their step has run. They are read every ``log_every`` steps, and then
    those of the newest step are left out, so that the device always has work queued while the host reads.

    Args:
        folder: of the run. Lines of metrics.jsonl past ``step`` (logged by a run that was killed, and that will now be
            repeated) are dropped.
        step: steps already taken.
        max_skipped: so many skipped steps in a row end the run.
        silent: say and write nothing, since another process does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        total_steps: int,
        steps_per_epoch: int,
        log_every: int,
        max_skipped: int,
        silent: bool = False,
    ) -> None:
        self._first, self._step, self._total = step, step, total_steps
        self._steps_per_epoch, self._log_every = steps_per_epoch, log_every
        self._max_skipped, self._skipped_in_a_row = max_skipped, 0
        self._console = _Console(highlight=False, markup=False, soft_wrap=True, quiet=silent)
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s  ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=silent or not self._console.is_terminal,
        )
        self._bar = self._progress.add_task("train", total=total_steps, completed=step, loss=math.nan, speed=0.0)
        self._lines, self._events = None, None
        if not silent:
            metrics = folder / "metrics.jsonl"
            _drop_lines_after(metrics, step)
            self._lines = metrics.open("a", encoding="utf-8", buffering=1)
            self._events = Writer(str(folder / "tensorboard"))
        self._pending: list[Metrics] = []
        self._start = self._last_read = time.perf_counter()

    def __enter__(self) -> "Report":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        for output in (self._lines, self._events):
            if output is not None:
                output.close()

    def say(self, text: str) -> None:
        """A line for the reader, above the progress bar."""
        self._console.print(text)

    def train_step(self, metrics: Metrics) -> None:
        """Take note of the step that was just dispatched, without waiting for it."""
        due = len(self._pending) >= self._log_every
        if due:
            self.read_pending()
        self._pending.append(metrics)

    def read_pending(self) -> None:
        """Wait for the steps that were noted, and write down their mean loss and speed.

        Raises:
            Diverged: too many of them in a row were skipped.
        """
        if not self._pending:
            return
        steps = jax.device_get(self._pending)
        self._pending = []
        for step in steps:
            self._step += 1
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if step["skipped"] else 0
            if self._skipped_in_a_row == self._max_skipped:
                raise Diverged(range(self._step - self._max_skipped, self._step))
        now = time.perf_counter()
        speed = sum(int(step["tokens"]) for step in steps) / (now - self._last_read)
        self._last_read = now
        taken = [step for step in steps if not step["skipped"]]
        loss = float(np.mean([step["loss"] for step in taken])) if taken else math.nan
        values: dict[str, float | None] = {
            "loss": loss if taken else None,
            "grad_norm": float(np.mean([step["grad_norm"] for step in taken])) if taken else None,
            "learning_rate": float(steps[-1]["learning_rate"]),
            "tokens_per_second": speed,
        }
        if "loss_scale" in steps[-1]:
            values["loss_scale"] = float(steps[-1]["loss_scale"])
        if len(taken) < len(steps):
            values["skipped"] = len(steps) - len(taken)
            self.say(f"step {self._step}: skipped {len(steps) - len(taken)} steps, loss or gradient were not finite")
        self._write(values)
        self._progress.update(self._bar, completed=self._step, loss=loss, speed=speed)
        if not self._console.is_terminal:
            left = (now - self._start) / (self._step - self._first) * (self._total - self._step)
            eta = timedelta(seconds=round(left))
            self.say(f"step {self._step}/{self._total}  loss {loss:.3f}  {speed:,.0f} tokens/s  ETA {eta}")

    def evaluation(self, split: str, scores: Mapping[str, float | str]) -> None:
        """Write down the scores of a split after the newest step. The time it took counts for no step's speed."""
        self._write({f"{split}/{name}": value for name, value in scores.items()})
        self.say(f"step {self._step}/{self._total}  {split}: {format_scores(scores)}")
        self._last_read = time.perf_counter()

    def _write(self, values: Values) -> None:
        if self._lines is None or self._events is None:
            return
        seconds = round(time.perf_counter() - self._start, 3)
        epoch = round(self._step / self._steps_per_epoch, 4)
        self._lines.write(json.dumps({"step": self._step, "epoch": epoch, "seconds": seconds, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(name if "/" in name else f"train/{name}", value, self._step)


def _drop_lines_after(path: Path, step: int) -> None:
    if path.exists():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        rewritten = path.with_suffix(".new")
        rewritten.write_text("".join(line for line in lines if _is_line_until(line, step)), encoding="utf-8")
        rewritten.replace(path)  # at once: a run that is killed here loses no line


def _is_line_until(line: str, step: float) -> bool:
    """Whether it is a whole line of metrics: one that a crash cut short has no newline, or is no JSON."""
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= step
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def read_metrics(metrics: Path, step: float = math.inf) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl up to a step, in order; those that are damaged are left out."""
    if not metrics.exists():
        return []
    lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [json.loads(line) for line in lines if _is_line_until(line, step)]


def earlier_scores(metrics: Path, name: str, step: int) -> list[float]:
    """The validation scores of this name up to a step, in order, as a run has written them down."""
    key = f"validation/{name}"
    return [row[key] for row in read_metrics(metrics, step) if key in row]


def format_scores(scores: Mapping[str, float | str]) -> str:
    """The main scores for people: ``exact match 93.4%, loss 0.1230``. Those of a part, ``field/date``, are left out."""
    return ", ".join(format_score(name, value) for name, value in scores.items() if "/" not in name)


def format_table(scores: Mapping[str, float | str], groups: Iterable[str] = ()) -> list[str]:
    """All scores, a line each; where the examples have groups, those of the groups side by side.

    Args:
        groups: of the examples, see :class:`flax_transformer.data.examples.Examples`; the main one is the first column.
    """
    others = sorted(set(groups) - {""})
    if not others:
        return [format_score(name, value) for name, value in scores.items()]
    rows = [name for name in scores if f"{others[0]}/{name}" in scores]
    width = max(map(len, rows)) + 2
    lines = ["".ljust(width) + "".join(title.rjust(10) for title in ("main", *others))]
    for row in rows:
        values = [scores[row], *(scores[f"{group}/{row}"] for group in others)]
        cells = [format_score("", value).strip().rjust(10) for value in values]
        lines.append(row.replace("_", " ").ljust(width) + "".join(cells))
    in_table = {*rows, *(f"{group}/{row}" for group in others for row in rows)}
    return [*lines, *(format_score(name, value) for name, value in scores.items() if name not in in_table)]


def format_score(name: str, value: float | str) -> str:
    label = name.replace("_", " ")
    if isinstance(value, str):
        return f"{label} {value}"
    if name.startswith(("bleu", "chrf")):  # sacrebleu's scale of 0 to 100
        return f"{label} {value:.1f}"
    if name == "perplexity":
        return f"{label} {value:.2f}"
    return f"{label} {value:.4f}" if name == "loss" else f"{label} {value:.1%}"
