"""``flax-transformer doctor``: examine a model and say what is wrong with it."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tyro.conf import Positional

from flax_transformer.doctor.examine import examine
from flax_transformer.doctor.page import save_page
from flax_transformer.doctor.picture import save_picture
from flax_transformer.doctor.report import Report
from flax_transformer.doctor.subject import ExaminationError
from flax_transformer.doctor.target import load_target
from flax_transformer.doctor.terminal import print_report
from flax_transformer.errors import UserError
from flax_transformer.outputs import check_report

_QUIET_SECONDS = 2.0  # what takes no longer needs no progress bar


@dataclass(frozen=True)
class DoctorFlags:
    """Examine a Transformer in PyTorch or JAX: positions, masks, scale, padding, gradients, loss, generation.

    Runs the code that TARGET names. Exit code: 0 healthy, 1 ill, 2 wrong use, 3 could not be examined.
    """

    target: Annotated[Positional[str], tyro.conf.arg(metavar="TARGET")]
    """FILE.py:FACTORY (a function that returns the model; a Linen module and its variables; or a dict of arguments
    of doctor.examine), a folder of a Hugging Face model, or a run or export folder"""
    kind: Literal["seq2seq", "decoder", "encoder"] | None = None
    """what the model is; found out if not given"""
    trained: bool = False
    """the weights are trained, so their distribution is not judged"""
    strict: bool = False
    """exit with 1 on warnings too"""
    vocab_size: int | None = None
    """token ids lie below it; found out if not given"""
    pad_id: int | None = None
    """id of the padding token; read off the model's config if not given"""
    bos_id: int | None = None
    """id of the begin token"""
    eos_id: int | None = None
    """id of the end token"""
    max_length: int | None = None
    """how many tokens the model is said to take"""
    json: Path | None = None
    """write every figure to this file, - for standard output"""
    html: Path | None = None
    """write a page with the diagnosis and the influence matrices"""
    png: Path | None = None
    """write the influence matrices as a picture (wants matplotlib)"""


def doctor(flags: DoctorFlags) -> int:
    """Run the command; its exit code.

    Raises:
        UserError: wrong use.
    """
    for path in (flags.json, flags.html, flags.png):
        if path is not None and str(path) != "-":
            check_report(path)  # before minutes are spent on an examination
    try:
        report = _examine(flags)
    except ExaminationError as error:
        print(f"could not be examined: {error}", file=sys.stderr)
        return 3
    _write(report, flags)
    return report.exit_code(flags.strict)


def _examine(flags: DoctorFlags) -> Report:
    keywords = load_target(flags.target)
    given: dict[str, Any] = {
        "kind": flags.kind, "vocab_size": flags.vocab_size, "pad_id": flags.pad_id, "bos_id": flags.bos_id,
        "eos_id": flags.eos_id, "max_length": flags.max_length,
    }  # fmt: skip
    keywords.update({name: value for name, value in given.items() if value is not None})
    if flags.trained:
        keywords["fresh"] = False
    keywords.setdefault("name", flags.target)
    model = keywords.pop("model")
    # A model that prints must not print into a report that is piped.
    with _progress() as advance, contextlib.redirect_stdout(sys.stderr):
        return examine(model, **keywords, progress=advance)


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """A bar on stderr, once an examination has taken long enough to wonder; also where its first step does."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TextColumn("probes"),
        console=console, transient=True, disable=not console.is_terminal,
        redirect_stdout=False, redirect_stderr=False,  # rich would restore the stdout of the examination
    )  # fmt: skip
    task = bar.add_task("getting ready", total=None)
    start = threading.Timer(_QUIET_SECONDS, bar.start)
    start.daemon = True
    start.start()
    try:
        yield lambda probe, number, count: bar.update(task, description=probe, completed=number, total=count)
    finally:
        start.cancel()
        start.join()
        bar.stop()


def _write(report: Report, flags: DoctorFlags) -> None:
    if str(flags.json) == "-":
        print(report.to_json())
    else:
        print_report(report, Console(soft_wrap=False))
        if flags.json is not None:
            report.save_json(flags.json)
    if flags.html is not None:
        save_page(report, flags.html)
    if flags.png is not None:
        save_picture(report, flags.png)


def main(arguments: Sequence[str] | None = None) -> int:
    """As ``python -m flax_transformer.doctor``."""
    try:
        return doctor(tyro.cli(DoctorFlags, prog="python -m flax_transformer.doctor", args=arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
