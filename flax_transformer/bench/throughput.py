"""``bench train`` and ``bench forward``: equal models in turns, and the ratio of their speeds."""

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from flax_transformer.bench import plot
from flax_transformer.bench.agreement import compare
from flax_transformer.bench.checks import check_counts, check_files
from flax_transformer.bench.measure import Measured, pair_ratios, spread, take_turns
from flax_transformer.bench.records import Record, describe_machine, thread_count
from flax_transformer.bench.worker import Refused, Worker
from flax_transformer.bench.workload import Preset, make_config, require_device
from flax_transformer.config import FloatDtype, TrainConfig, to_dict
from flax_transformer.errors import UserError
from flax_transformer.planning.flops import forward_flops, tokens_per_step, train_flops

What = Literal["train", "forward"]
Peer = Literal["torch", "torch-compile", "torch-nn", "hf"]
PEERS: tuple[Peer, ...] = ("torch", "torch-compile", "torch-nn")
# Who makes each candidate.
MAKERS: dict[str, str] = {
    "flax": "flax_transformer.bench.flax_side:Flax",
    "device": "flax_transformer.bench.flax_side:Device",
    "torch": "flax_transformer.bench.torch_side:Torch",
    "torch-compile": "flax_transformer.bench.torch_side:Torch",
    "torch-nn": "flax_transformer.bench.torch_side:Torch",
    "hf": "flax_transformer.bench.torch_side:Torch",
}


def train(
    preset: Preset = "tiny",
    against: tuple[Peer, ...] = PEERS,
    dtype: FloatDtype = "float32",
    batch: int | None = None,
    length: int | None = None,
    dropout: float = 0.1,
    rounds: int = 7,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Training steps per second: forward pass, loss, gradients, clipping and AdamW.

    Args:
        preset: tiny: encoder, 4 layers, 256 wide; assignment: encoder, 4 x 768; base: 6+6 layers, 512 wide; large:
            12+12 layers, 1024 wide, for a GPU.
        against: torch: the PyTorch twin; torch-compile: the same compiled; torch-nn: the layers of torch.nn; hf: BERT
            or Marian from transformers, of equal size.
        dtype: of matrix products.
        batch: rows; what suits the preset if not given.
        length: tokens of each source (and target); what suits the preset if not given.
        dropout: rate, on attention weights too; 0 compares the arithmetic alone.
        rounds: turns of each candidate.
        json: file for the record, or a folder that it is to be named in.
        plot: a picture (.png).
    """
    config = make_config(preset, dtype=dtype, batch=batch, length=length, dropout=dropout)
    return _bench("train", preset, config, against, rounds, json, plot)


def forward(
    preset: Preset = "tiny",
    against: tuple[Peer, ...] = PEERS,
    dtype: FloatDtype = "float32",
    batch: int | None = None,
    length: int | None = None,
    rounds: int = 7,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Forward passes per second, without dropout and gradients.

    Args:
        preset: as in train.
        against: as in train.
        dtype: of matrix products.
        batch: rows; what suits the preset if not given.
        length: tokens of each source (and target); what suits the preset if not given.
        rounds: turns of each candidate.
        json: file for the record, or a folder that it is to be named in.
        plot: a picture (.png).
    """
    config = make_config(preset, dtype=dtype, batch=batch, length=length, dropout=0.0)
    return _bench("forward", preset, config, against, rounds, json, plot)


def _bench(
    what: What,
    preset: Preset,
    config: TrainConfig,
    against: Sequence[Peer],
    rounds: int,
    json: Path | None,
    picture: Path | None,
) -> int:
    check_counts(rounds=rounds)
    check_files(json, picture)
    console = Console(width=None if Console().is_terminal else 160)
    with _start(what, preset, config, against) as (device, workers), console.status("starting") as status:
        equal = {name: worker for name, worker in workers.items() if name not in ("flax", "hf")}
        try:
            agreements, refused = compare(config.model, workers["flax"], equal, status.update)
        except Refused as refusal:
            raise UserError(f"flax cannot take part: {refusal}") from refusal
        wrong = {name: agreement for name, agreement in agreements.items() if not agreement.holds}
        for name, agreement in wrong.items():
            console.print(f"{name} does not compute what flax computes: {agreement}; nothing is timed", markup=False)
        if wrong:
            return 1
        taking_part = {name: worker for name, worker in workers.items() if name not in refused}
        measured = take_turns(taking_part, rounds, status.update)
        peaks = [w.call("matmul_peak") for name, w in taking_part.items() if measured[name].refused is None]
    measured |= {name: Measured(refused=reason) for name, reason in refused.items()}
    record = Record(
        what,
        f"{preset}-{config.model.dtype}-dropout{config.model.dropout:g}" if what == "train" else preset,
        to_dict(config),
        _results(what, config, measured, max(peaks, default=0.0))
        | {"agreement": {name: asdict(agreement) for name, agreement in agreements.items()}},
        describe_machine(device),
    )
    print_table(record, console)
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    if picture is not None:
        plot.throughput(record, picture)
    return 0 if measured["flax"].refused is None else 1


@contextmanager
def _start(what: What, preset: Preset, config: TrainConfig, against: Sequence[Peer]):
    """The name of the device, and every candidate in a process of its own, all with the same weights."""
    with ExitStack() as stack:

        def worker(name: str, *arguments: Any) -> Worker:
            started = Worker(MAKERS[name], *arguments)
            stack.callback(started.close)
            return started

        device = worker("device").call("describe")
        require_device(preset, device["platform"] != "cpu")
        folder = Path(stack.enter_context(TemporaryDirectory()))
        workers = {"flax": worker("flax", config, what)}
        try:
            workers["flax"].call("save_weights", folder)
        except Refused as refusal:
            raise UserError(f"flax cannot take part: {refusal}") from refusal
        for name in dict.fromkeys(against):
            workers[name] = worker(name, config, name, what, thread_count(), folder)
        yield None if device["platform"] == "cpu" else device["kind"], workers


def _results(what: What, config: TrainConfig, measured: dict[str, Measured], peak: float) -> dict[str, Any]:
    flops = train_flops(config) if what == "train" else forward_flops(config)
    ours = measured["flax"].seconds
    candidates = {}
    for name, own in measured.items():
        candidates[name] = asdict(own)
        if own.refused is None:
            step = median(own.seconds)
            candidates[name] |= {
                "step_seconds": step,
                "spread": spread(own.seconds),
                "tokens_per_second": tokens_per_step(config) / step,
                "flops_utilisation": flops / step / peak if peak else None,
            }
            if name != "flax" and ours:
                candidates[name]["ratios"] = pair_ratios(ours, own.seconds)
    return {
        "tokens_per_step": tokens_per_step(config),
        "flops_per_step": flops,
        "matmul_peak": peak,
        "candidates": candidates,
    }


def best_ratio(record: Record) -> tuple[str, float] | None:
    """The fastest PyTorch candidate that computes the same, and how many times as fast as it flax is."""
    candidates = record.results["candidates"]
    fit = {name: own for name, own in candidates.items() if name in PEERS and own.get("ratios")}
    if not fit:
        return None
    best = max(fit, key=lambda name: fit[name]["tokens_per_second"])
    return best, median(fit[best]["ratios"])


def held_gib(own: dict[str, Any]) -> float:
    """The most GiB that a candidate held: of the device, or of its process where that is the host."""
    return own["memory"].get("device", own["memory"]["rss"]) / 2**30


def print_table(record: Record, console: Console) -> None:
    results, model = record.results, record.settings["model"]
    sizes = record.settings["batch"]
    table = Table(
        title=f"{record.what} {record.label}: batch {sizes['size']}, length {sizes['max_source_length']}, "
        f"{model['dtype']}, {results['flops_per_step'] / 1e9:,.0f} GFLOP a step; {record.machine['device']}",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("candidate", no_wrap=True)
    for column in (
        "tokens/s",
        "ms a step",
        "spread",
        "of matmul peak",
        "first step",
        "host",
        "memory",
        "flax is faster",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for name, own in results["candidates"].items():
        if own["refused"] is None:
            table.add_row(name, *_cells(own))
    console.print(table)
    for name, own in results["candidates"].items():
        if own["refused"] is not None:
            console.print(f"{name} took no part: {own['refused']}", markup=False)
    console.print(f"matmul peak {results['matmul_peak'] / 1e9:,.0f} GFLOP/s, {record.machine['threads']} threads each")
    disturbed = [share for own in results["candidates"].values() for share in own["background_load"]]
    if max(disturbed, default=0.0) > 0.1:
        console.print(f"[bold]other processes took up to {max(disturbed):.0%} of the cores: do not trust this[/bold]")
    if launch := record.machine["launch"]:
        console.print("launched with " + ", ".join(f"{name}={value}" for name, value in launch.items()), markup=False)
    for name, agreement in results["agreement"].items():
        console.print(f"{name} computes the same: logits {agreement['logits']:.1f} scaled ULP apart")
    if best := best_ratio(record):
        console.print(f"[bold]flax is {best[1]:.2f} times as fast as {best[0]}, the best of PyTorch[/bold]")


def _cells(own: dict[str, Any]) -> list[str]:
    ratio = (
        f"{median(own['ratios']):.2f} ({min(own['ratios']):.2f}-{max(own['ratios']):.2f})" if "ratios" in own else ""
    )
    return [
        f"{own['tokens_per_second']:,.0f}",
        f"{own['step_seconds'] * 1e3:,.1f}",
        f"± {own['spread']:.1%}",
        f"{own['flops_utilisation']:.0%}" if own["flops_utilisation"] else "",
        f"{own['first']:.1f} s",
        f"{median(own['dispatch']) * 1e3:,.1f} ms",
        f"{held_gib(own):.2f} GiB",
        ratio,
    ]
