"""``flax-transformer report``: a page about a trained run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, parse
from flax_transformer.cli.labelled import LabelledFlags, labelled
from flax_transformer.errors import UserError, warn
from flax_transformer.outputs import check_report, write_whole

if TYPE_CHECKING:
    from flax_transformer.report.answers import Answers
    from flax_transformer.training.run import Run


@dataclass(frozen=True)
class _RunFlag:
    run: Positional[Path]
    """folder of the run"""


@dataclass(frozen=True)
class ReportFlags(LabelledFlags, _RunFlag):
    """Of which run, and of which texts."""

    output: Path | None = None
    """file of the page; report.html in the folder of the run if not given"""
    limit: int = 2_000
    """most texts to predict for, evenly spaced over all"""
    batch_size: int | None = None
    """texts at a time; as in training if not given"""


def report(arguments: Sequence[str]) -> int:
    """Make a page of a run: curves, scores, calibration, mistakes, attention. It is one file of HTML."""
    flags = parse(
        ReportFlags,
        default=ReportFlags(run=tyro.MISSING),
        prog=f"{PROGRAM} report",
        description=report.__doc__,
        args=arguments or ["--help"],
    )
    run = _load(flags)
    output = flags.output or flags.run / "report.html"
    check_report(output)
    is_masked, has_labels = run.config.data.architecture == "masked", bool(run.prediction_config.thresholds)
    if (is_masked or has_labels) and flags != ReportFlags(run=flags.run, output=flags.output):
        what = "masked tokens" if is_masked else "several labels"
        raise UserError(f"{flags.run}: expected no flags but --output, since a page on {what} has no predictions")

    from flax_transformer.report.facts import read_facts
    from flax_transformer.report.page import run_page
    from flax_transformer.runtime import set_up_jax

    set_up_jax()
    facts, answers, why_none = read_facts(run), None, ""
    try:
        if has_labels:
            why_none = f"{PROGRAM} evaluate {flags.run} prints precision, recall and F1 of each label"
        elif not is_masked:
            answers = _answers(run, flags)
    except UserError as error:
        if flags.file:  # of all that can be wrong, what the command names is
            raise
        why_none = str(error)
        warn(f"there are no predictions on the page: {error}")
    write_whole(output, run_page(facts, answers, why_none))
    print(output)
    return 0


def _load(flags: ReportFlags) -> "Run":
    """Raises :class:`UserError` for flags that cannot be, and for a folder that is no run."""
    from flax_transformer.training.run import Run, load_trained

    for name in ("limit", "batch_size"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag}: expected a whole number of at least 1, got {value}")
    run = load_trained(flags.run)
    if not isinstance(run, Run):
        raise UserError(f"{flags.run}: expected a run, got an export, which does not know how it was trained")
    return run


def _answers(run: "Run", flags: ReportFlags) -> "Answers":
    """Predictions of the best checkpoint."""
    from flax_transformer.distributed.memory import require_memory
    from flax_transformer.report.answers import answer

    size = flags.batch_size or run.config.batch.size
    if size != run.config.batch.size:
        require_memory(run.config.model, size)
    model = run.best_model()  # before the data, which takes longer
    examples = labelled(run, flags, may_differ=False)
    what = ", ".join(flags.file) or f"the {flags.split} split"
    with _progress() as on_batch:
        return answer(run, model, examples, what, limit=flags.limit, batch_size=size, on_batch=on_batch)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where it can be seen."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("batches"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
