"""``python -m benchmarks WHAT ...``, which is ``flax-transformer bench WHAT ...``."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from flax_transformer.cli.common import deferred, parse
from flax_transformer.errors import UserError

# Benchmark -> its module, the function or functions of it that are commands, and what it shows. A module is loaded when
# it is asked for: --help answers at once.
BENCHMARKS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "train": ("throughput", ("train",), "training steps of equal models, and the ratio of their speeds"),
    "forward": ("throughput", ("forward",), "forward passes of equal models, and the ratio of their speeds"),
    "attention": ("attention", ("attention",), "time and memory of attention against the length"),
    "generate": ("generate", ("throughput", "slope"), "new tokens per second, and the cost of each further one"),
    "input": ("input", ("wait",), "does a training step ever wait for its batch?"),
    "e2e": ("e2e", ("e2e",), "an epoch of IMDb from the file to its metrics, against PyTorch loops"),
    "plans": ("plans", ("plans",), "memory and bounds of training steps on TPU slices, by the TPU's compiler"),
    "startup": ("startup", ("startup",), "seconds until --help answers, and until the first step is done"),
}


def main(arguments: Sequence[str], program: str = "python -m benchmarks") -> int:
    """Run a benchmark; its exit code.

    Raises:
        UserError: there is no such benchmark, or it cannot be run as it was asked for.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        lines = [f"usage: {program} WHAT ...", "", "what (each explains itself with --help):"]
        print("\n".join(lines + [f"  {what:<16}{shows}" for what, (_, _, shows) in BENCHMARKS.items()]))
        return 0
    if name not in BENCHMARKS:
        raise UserError(f"expected a benchmark, one of {', '.join(BENCHMARKS)}, got {name!r}")
    module, functions, _ = BENCHMARKS[name]
    commands: dict[str, Any] = {
        function: getattr(importlib.import_module(f"flax_transformer.bench.{module}"), function)
        for function in functions
    }
    prog = f"{program} {name}"
    if len(commands) == 1:
        return parse(deferred(*commands.values()), prog=prog, args=rest)() or 0
    return tyro.extras.subcommand_cli_from_dict(commands, prog=prog, args=rest) or 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
