"""``bench attention``: time and memory of attention, forward and backward, against the length.

Plain attention writes out its weights, so both grow with the square of the length; the memory of attention block by
block and of flash kernels is linear.
"""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flax_transformer.bench import plot as pictures
from flax_transformer.bench.checks import check_counts, check_files, check_names
from flax_transformer.bench.records import Record, describe_machine, thread_count
from flax_transformer.bench.throughput import MAKERS
from flax_transformer.bench.worker import Refused, Worker
from flax_transformer.config import FloatDtype

# Backend -> who makes it: of the JAX model, and PyTorch's plain and fused ones.
BACKENDS: dict[str, tuple[str, str]] = {
    "xla": ("flax_transformer.bench.attention_side:FlaxAttention", "xla"),
    "blockwise": ("flax_transformer.bench.attention_side:FlaxAttention", "blockwise"),
    "cudnn": ("flax_transformer.bench.attention_side:FlaxAttention", "cudnn"),
    "flash": ("flax_transformer.bench.attention_side:FlaxAttention", "flash"),
    "torch-plain": ("flax_transformer.bench.attention_side:TorchAttention", "plain"),
    "torch-sdpa": ("flax_transformer.bench.attention_side:TorchAttention", "fused"),
}
_FIT_FROM = 4  # points, the longest ones: short lengths measure what does not depend on the length


def attention(
    backends: tuple[str, ...] = ("xla", "blockwise", "cudnn", "flash", "torch-plain", "torch-sdpa"),
    lengths: tuple[int, ...] | None = None,
    dtype: FloatDtype = "float32",
    batch: int = 1,
    heads: int = 4,
    head_dim: int = 64,
    repeats: int = 5,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time and memory of attention, forward and backward, and the power of the length that each grows with.

    Args:
        backends: of the JAX model: xla, blockwise, cudnn (GPU), flash (TPU); of PyTorch: torch-plain, torch-sdpa.
        lengths: tokens, as queries and as keys; 128 to 8,192 if not given, on a GPU to 65,536. A backend stops where
            its memory does.
        dtype: of queries, keys and values.
        batch: rows, all without padding.
        heads: heads of each row.
        head_dim: width of a head.
        repeats: timed runs at each length, for which the backends take turns; the median counts.
        json: file for the record, or a folder that it is to be named in.
        plot: a picture (.png).
    """
    check_names("--backends", backends, BACKENDS)
    check_counts(batch=batch, heads=heads, head_dim=head_dim, repeats=repeats)
    if lengths is not None:
        check_counts(lengths=lengths)
    check_files(json, plot)
    lengths = _usual_lengths() if lengths is None else lengths
    console = Console(width=None if Console().is_terminal else 160)
    shape = {"batch": batch, "heads": heads, "head_dim": head_dim, "dtype": dtype}
    with console.status("starting") as status:
        workers = {
            name: Worker(made_by, backend, shape, thread_count())
            for name, (made_by, backend) in BACKENDS.items()
            if name in backends
        }
        results = _measure(workers, sorted(set(lengths)), repeats, status.update)
        for worker in workers.values():
            worker.close()
    record = Record("attention", dtype, shape | {"lengths": list(lengths)}, {"backends": results}, describe_machine())
    print_table(record, console)
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    if plot is not None:
        pictures.scaling(record, plot)
    return 0


def _usual_lengths() -> tuple[int, ...]:
    worker = Worker(MAKERS["device"])
    longest = 13 if worker.call("describe")["platform"] == "cpu" else 16
    worker.close()
    return tuple(2**power for power in range(7, longest + 1))


def _measure(
    workers: Mapping[str, Worker], lengths: list[int], repeats: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Lengths in rising order, so that the peak so far is the peak of the last; at each the backends take turns."""
    results: dict[str, dict[str, Any]] = {name: {"points": [], "refused": None} for name in workers}
    for length in lengths:
        runs: dict[str, list[tuple[float, float]]] = {
            name: [] for name, own in results.items() if own["refused"] is None
        }
        for turn in range(repeats + 1):
            for name in [name for name in runs if results[name]["refused"] is None]:
                say(f"{name} at length {length}")
                try:
                    if turn == 0:
                        workers[name].call("start", length)
                    else:
                        runs[name].append(workers[name].call("once"))
                except Refused as refusal:
                    results[name]["refused"] = f"from length {length} on: {refusal}"
        for name in [name for name in runs if results[name]["refused"] is None]:
            seconds, processor = map(statistics.median, zip(*runs[name], strict=True))
            used = {"seconds": seconds, "processor": processor, "memory": workers[name].call("memory_used")}
            results[name]["points"].append({"length": length, **used})
    for own in results.values():
        points = own["points"]
        own["exponents"] = {key: fit_exponent([(p["length"], p[key]) for p in points]) for key in ("seconds", "memory")}
    return results


def fit_exponent(points: list[tuple[float, float]]) -> float | None:
    """The power b of ``y = a x^b``, by least squares in logarithms over the largest x; None for too few points."""
    positive = [(x, y) for x, y in points if y > 0][-_FIT_FROM:]
    if len(positive) < 2:
        return None
    x, y = np.log(np.array(positive)).T
    return float(np.polyfit(x, y, 1)[0])


def print_table(record: Record, console: Console) -> None:
    shape = record.settings
    table = Table(
        title=f"attention, forward and backward: batch {shape['batch']}, {shape['heads']} heads of "
        f"{shape['head_dim']}, {shape['dtype']}; time, processor time, memory; {record.machine['device']}",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("length", justify="right")
    backends = {name: own for name, own in record.results["backends"].items() if own["points"]}
    for name in backends:
        table.add_column(name, justify="right", no_wrap=True)
    by_length = [{point["length"]: point for point in own["points"]} for own in backends.values()]
    for length in shape["lengths"]:
        cells = [
            f"{points[length]['seconds'] * 1e3:,.1f} ms  {points[length]['processor'] * 1e3:,.1f} ms  "
            f"{points[length]['memory'] / 2**20:,.0f} MiB"
            if length in points
            else ""
            for points in by_length
        ]
        table.add_row(str(length), *cells)
    table.add_section()
    table.add_row("grows as", *(_growth(own["exponents"]) for own in backends.values()))
    console.print(table)
    for name, own in record.results["backends"].items():
        if own["refused"]:
            console.print(f"{name} took no part {own['refused']}", markup=False)


def _growth(exponents: dict[str, float | None]) -> str:
    time, memory = ("?" if exponents[key] is None else f"n^{exponents[key]:.2f}" for key in ("seconds", "memory"))
    return f"{time}  {memory}"
