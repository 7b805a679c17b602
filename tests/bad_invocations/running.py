"""Running a command, within this process or apart, and what became of it."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bad_invocations.case import Case
from flax_transformer.cli import main as cli

ROOT = Path(__file__).parents[2]
SECONDS = 60
GOOD = ("refused in one line", "told in the lines and at the end")


class Hang(BaseException):
    """The time is over."""


@dataclass(frozen=True)
class Outcome:
    kind: str
    seconds: float
    said: str


def run(case: Case, folder: Path) -> Outcome:
    before = snapshot(folder)
    start = time.monotonic()
    code, said, out = _run_apart(case, folder) if case.apart else _run_here(case, folder)
    seconds = time.monotonic() - start
    kind = _kind(case, code, said, out, seconds)
    after = snapshot(folder)
    for path in sorted(after.keys() - before.keys(), reverse=True):  # or the next command would find it
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    if after != before and kind in GOOD:
        changed = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        return Outcome("CHANGED FILES", seconds, f"{changed[:3]} {said}")
    return Outcome(kind, seconds, said)


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    files = {path.relative_to(folder): path.lstat() for path in folder.rglob("*") if "hf" not in path.parts}
    return {path: (status.st_size, status.st_mtime_ns) for path, status in files.items()}


def _kind(case: Case, code: int | None, said: str, out: str, seconds: float) -> str:
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("warning: ")]
    if code is None:
        return "HANG"
    if "Traceback (most recent call last)" in said + out:
        return "TRACEBACK"
    if code < 0 or code >= 128:
        return "KILLED"
    if seconds > SECONDS:
        return "OVER A MINUTE"
    if code == 0:
        return GOOD[1] if case.told and "no prediction" in said else "SUCCEEDED"
    if len(lines) == 1 and lines[0].startswith(("error: ", "could not be examined: ")):
        return GOOD[0]
    return "SEVERAL LINES"


def _run_here(case: Case, folder: Path) -> tuple[int | None, str, str]:
    def end(*_: Any) -> None:
        raise Hang

    out, error = io.StringIO(), io.StringIO()
    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = cli.main(list(case.arguments))
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            except Hang:
                code = None
            except Exception:  # a traceback, in the shell
                traceback.print_exc(file=error)
                code = 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return code, error.getvalue(), out.getvalue()


def _run_apart(case: Case, folder: Path) -> tuple[int | None, str, str]:
    command = [sys.executable, "-m", "flax_transformer", *case.arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | case.environment
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, error = process.communicate(case.stdin, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, "", ""
    return process.returncode, error.decode("utf-8", "replace"), out.decode("utf-8", "replace")


def table(outcomes: list[tuple[str, str]]) -> str:
    """The count of each outcome in each group, as Markdown."""
    kinds = [*GOOD, *sorted({kind for _, kind in outcomes} - set(GOOD))]
    lines = ["| | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    for group in [*dict.fromkeys(group for group, _ in outcomes), "all"]:
        counts = Counter(kind for name, kind in outcomes if group in (name, "all"))
        lines.append(f"| {group} | " + " | ".join(str(counts[kind]) for kind in kinds) + " |")
    return "\n".join(lines)
