"""``bench generate``: greedy generation by one model in turns; new tokens per second, and what a further one costs.

All candidates have the same weights, which are random. The end token is forbidden, so that all take as many steps.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from rich.console import Console
from rich.table import Table

from flax_transformer.bench.checks import check_counts, check_files
from flax_transformer.bench.measure import Measured, pair_ratios, spread, take_turns
from flax_transformer.bench.records import Record
from flax_transformer.bench.worker import Refused, Worker
from flax_transformer.config import ModelConfig, save_config, to_dict
from flax_transformer.errors import UserError
from flax_transformer.interop.export import CONFIG_FILE, WEIGHTS_FILE
from flax_transformer.parity.cases import random_weights
from flax_transformer.presets import SIZES

Preset = Literal["small", "base"]
Peer = Literal["torch", "hf", "ct2", "ct2-int8", "onnx", "naive"]

MAKERS = {
    "flax": "flax_transformer.bench.generators:Flax",
    "torch": "flax_transformer.bench.generators:Torch",
    "hf": "flax_transformer.bench.generators:HuggingFace",
    "ct2": "flax_transformer.bench.generators:CTranslate2",
    "ct2-int8": "flax_transformer.bench.generators:CTranslate2Int8",
    "onnx": "flax_transformer.bench.generators:OnnxRuntime",
    "naive": "flax_transformer.bench.generators:Naive",
}


def throughput(
    preset: Preset = "small",
    against: tuple[Peer, ...] = ("torch", "hf"),
    batches: tuple[int, ...] = (1, 8, 64),
    new_tokens: int = 64,
    source_length: int = 64,
    rounds: int = 5,
    json: Path | None = None,
) -> int:
    """New tokens per second of greedy generation.

    Args:
        preset: small: 3+3 layers, 256 wide; base: 6+6 layers, 512 wide.
        against: torch: the PyTorch twin; hf: transformers, with MarianMT (small only, since it has no final norms);
            ct2 and ct2-int8: CTranslate2; onnx: ONNX Runtime; naive: the twin without a cache.
        batches: rows at a time.
        new_tokens: of each row.
        source_length: tokens of each source.
        rounds: turns of each candidate.
        json: file for the record, or a folder that it is to be named in.
    """
    return _bench("throughput", preset, against, batches, (new_tokens,), source_length, rounds, json)


def slope(
    preset: Preset = "small",
    against: tuple[Peer, ...] = ("torch", "hf"),
    batch: int = 8,
    new_tokens: tuple[int, ...] = (16, 32, 64, 128, 256, 512),
    source_length: int = 64,
    rounds: int = 3,
    json: Path | None = None,
) -> int:
    """What a new token costs, and how much more with each position.

    Args:
        preset: as in throughput.
        against: as in throughput.
        batch: rows at a time.
        new_tokens: of each row; at least three numbers.
        source_length: tokens of each source.
        rounds: turns of each candidate.
        json: file for the record, or a folder that it is to be named in.
    """
    if len(new_tokens) < 3:
        raise UserError(f"--new-tokens: expected at least three numbers to fit a curve to, got {len(new_tokens)}")
    return _bench("slope", preset, against, (batch,), new_tokens, source_length, rounds, json)


def _bench(
    what: str,
    preset: Preset,
    against: Sequence[Peer],
    batches: Sequence[int],
    new_tokens: Sequence[int],
    source_length: int,
    rounds: int,
    json: Path | None,
) -> int:
    check_counts(batches=batches, new_tokens=new_tokens, source_length=source_length, rounds=rounds)
    check_files(json)
    config, console = SIZES[preset], Console(width=None if Console().is_terminal else 160)
    if config.final_norm and "hf" in against:
        console.print("hf takes no part: MarianMT has no final norms")
        against = [peer for peer in against if peer != "hf"]
    found: list[dict[str, Any]] = []
    with ExitStack() as stack, console.status("starting") as status:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        _save_weights(config, folder)
        workers = {name: Worker(MAKERS[name], config, folder) for name in dict.fromkeys(("flax", *against))}
        for worker in workers.values():
            stack.callback(worker.close)
        for batch in batches:
            for count in new_tokens:
                measured = _set_shapes(workers, (batch, source_length, count))
                taking_part = {name: worker for name, worker in workers.items() if name not in measured}
                measured |= take_turns(taking_part, rounds, status.update)
                figures = _figures(measured, batch * count)
                for name, share in _shares_of_equal_rows(taking_part, measured).items():
                    figures[name]["equal_rows"] = share
                found.append({"batch": batch, "new_tokens": count, "candidates": figures})
    results = {"shapes": found, "slopes": {name: _slopes(found, name) for name in workers}}
    settings = {"model": to_dict(config), "source_length": source_length}
    record = Record("generate", f"{what}-{preset}", settings, results)
    _print(record, console)
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    return 0


def _save_weights(config: ModelConfig, folder: Path) -> None:
    """An export without tokenizer, which each candidate reads."""
    save_config(config, folder / CONFIG_FILE)
    safetensors.numpy.save_file(dict(random_weights(config, seed=0)), folder / WEIGHTS_FILE, metadata={"format": "pt"})


def _set_shapes(workers: dict[str, Worker], shape: tuple[int, int, int]) -> dict[str, Measured]:
    """Of the candidates that cannot take part, why."""
    refused = {}
    for name, worker in workers.items():
        try:
            worker.call("set_shape", *shape)
        except Refused as refusal:
            refused[name] = Measured(refused=str(refusal))
    if "flax" in refused:
        raise UserError(f"flax cannot take part: {refused['flax'].refused}")
    return refused


def _shares_of_equal_rows(workers: dict[str, Worker], measured: dict[str, Measured]) -> dict[str, float]:
    """Of each candidate, the share of rows whose tokens are those of flax; a near tie may be decided otherwise."""
    outputs = {name: worker.call("outputs") for name, worker in workers.items() if measured[name].refused is None}
    return {name: float(np.mean((tokens == outputs["flax"]).all(axis=1))) for name, tokens in outputs.items()}


def _figures(measured: dict[str, Measured], tokens: int) -> dict[str, dict[str, Any]]:
    """Of each candidate, with how many times as fast flax was, round by round."""
    ours = measured["flax"].seconds
    figures = {}
    for name, own in measured.items():
        figures[name] = asdict(own)
        if own.refused is None:
            figures[name] |= {
                "tokens_per_second": tokens / median(own.seconds),
                "spread": spread(own.seconds),
                "ratios": pair_ratios(ours, own.seconds) if ours else [],
            }
    return figures


def _slopes(found: Sequence[dict[str, Any]], name: str) -> dict[int, dict[str, float]]:
    """By batch, the milliseconds that a further token costs: the first one, and how much more with each position.

    A parabola is fitted to the time of n tokens: the encoder, what each token costs, and what grows with the position.
    """
    lines = {}
    for batch in dict.fromkeys(shape["batch"] for shape in found):
        shapes = [shape for shape in found if shape["batch"] == batch and not shape["candidates"][name]["refused"]]
        if len(shapes) >= 3:
            counts = [shape["new_tokens"] for shape in shapes]
            totals = [1e3 * median(shape["candidates"][name]["seconds"]) for shape in shapes]
            half_rise, first, _ = np.polyfit(counts, totals, 2, w=1 / np.array(totals))
            lines[batch] = {"first": float(first), "rise": 2 * float(half_rise)}
    return lines


def _print(record: Record, console: Console) -> None:
    table = Table(title=f"generate {record.label}: {record.machine['device']}", title_justify="left", pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    columns = ("batch", "new tokens", "tokens/s", "ms a token", "spread", "first call", "flax is faster", "same rows")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for shape in record.results["shapes"]:
        batch, count = shape["batch"], shape["new_tokens"]
        for name, own in shape["candidates"].items():
            if own["refused"] is not None:
                console.print(f"{name} took no part: {own['refused']}", markup=False)
                continue
            milliseconds = 1e3 * batch / own["tokens_per_second"]
            ratios = own["ratios"] if name != "flax" else []
            ratio = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
            cells = (f"{own['tokens_per_second']:,.0f}", f"{milliseconds:.2f}", f"± {own['spread']:.1%}")
            table.add_row(
                name, str(batch), str(count), *cells, f"{own['first']:.2f} s", ratio, f"{own['equal_rows']:.0%}"
            )
    console.print(table)
    for name, lines in record.results["slopes"].items():
        for batch, line in lines.items():
            cost = f"{line['first']:.2f} ms for the first token, {1e3 * line['rise']:+.2f} us more with each position"
            console.print(f"{name}, batch {batch}: {cost}")
