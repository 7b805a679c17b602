"""``flax-transformer bench``: time both frameworks."""

import importlib
from collections.abc import Sequence
from typing import Any

from flax_transformer.cli.common import PROGRAM, deferred, parse, parse_subcommand, table
from flax_transformer.errors import UserError

# Benchmark -> its module, the function or functions of it that are commands, and what it shows. A module is loaded when
# it is asked for: --help answers at once.
BENCHMARKS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "train": ("throughput", ("train",), "training steps of equal models, and the ratio of their speeds"),
    "forward": ("throughput", ("forward",), "forward passes of equal models, and the ratio of their speeds"),
    "attention": ("attention", ("attention",), "time and memory of attention against the length"),
    "mixers": ("mixers", ("mixers",), "cost and recall of an LSTM, full attention and linear attention"),
    "generate": ("generate", ("throughput", "slope"), "new tokens per second, and the cost of each further one"),
    "input": ("input", ("wait",), "does a training step ever wait for its batch?"),
    "e2e": ("e2e", ("e2e",), "an epoch of IMDb from the file to its metrics, against PyTorch loops"),
    "plans": ("plans", ("plans",), "memory and bounds of training steps on TPU slices, by the TPU's compiler"),
    "startup": ("startup", ("startup",), "seconds until --help answers, and until the first step is done"),
}


def bench(arguments: Sequence[str]) -> int:
    """Time training, generation, attention and input, against PyTorch where it is installed."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        lines = [f"usage: {PROGRAM} bench WHAT ...", "", "what (each explains itself with --help):"]
        print("\n".join(lines + table((what, shows) for what, (_, _, shows) in BENCHMARKS.items())))
        return 0
    if name not in BENCHMARKS:
        raise UserError(f"expected a benchmark, one of {', '.join(BENCHMARKS)}, got {name!r}")
    module, functions, _ = BENCHMARKS[name]
    commands: dict[str, Any] = {
        function: getattr(importlib.import_module(f"flax_transformer.bench.{module}"), function)
        for function in functions
    }
    prog = f"{PROGRAM} bench {name}"
    if len(commands) == 1:
        return parse(deferred(*commands.values()), prog=prog, args=rest)() or 0
    deferred_commands = {function: deferred(command) for function, command in commands.items()}
    return parse_subcommand(deferred_commands, prog=prog, args=rest)() or 0
