"""``bench startup``: seconds until ``--help`` answers, and from nothing until the first training step is done."""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console

from flax_transformer.bench.checks import check_counts, check_files
from flax_transformer.bench.records import Record, describe_machine
from flax_transformer.bench.workload import Preset, make_config
from flax_transformer.config import to_dict

_FIRST_STEP = """
import sys
from flax_transformer.bench.flax_side import Flax
from flax_transformer.bench.workload import make_config
Flax(make_config(sys.argv[1]), "train").time(1)
"""


def startup(preset: Preset = "tiny", repeats: int = 3, json: Path | None = None) -> int:
    """Seconds until --help answers, and until the first step is done: at the first start, and with its programs kept.

    Args:
        preset: of the model, as in train.
        repeats: starts of each kind; the median counts.
        json: file for the record, or a folder that it is to be named in.
    """
    check_counts(repeats=repeats)
    check_files(json)
    console = Console(width=None if Console().is_terminal else 160)
    cold, warm = [], []
    with console.status("starting"):
        help_ = [_seconds(["-m", "flax_transformer", "--help"]) for _ in range(repeats)]
        for _ in range(repeats):
            with TemporaryDirectory() as cache:
                command = ["-c", _FIRST_STEP, preset]
                cold.append(_seconds(command, JAX_COMPILATION_CACHE_DIR=cache))
                warm.append(_seconds(command, JAX_COMPILATION_CACHE_DIR=cache))
    results = {"help": help_, "first_start": cold, "second_start": warm}
    record = Record("startup", preset, to_dict(make_config(preset)), results, describe_machine())
    first, second = median(cold), median(warm)
    console.print(f"flax-transformer --help: {median(help_):.2f} s")
    console.print(f"first step of {preset}: {first:.1f} s after the start; with compiled programs kept {second:.1f} s")
    console.print(f"a second start is {first / second:.2f} times as fast")
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    return 0


def _seconds(arguments: list[str], **environment: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", *arguments]
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    return time.perf_counter() - start
