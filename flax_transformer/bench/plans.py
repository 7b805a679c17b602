"""``bench plans``: what the TPU's own compiler says of many slices and settings, for the tables of docs/TPU.md."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from flax_transformer.bench.checks import check_names

PLANS = Path("benchmarks", "results", "plans")
# Topology -> its chips.
_SLICES = {"v5e:2x4": 8, "v5p:2x2x2": 8, "v6e:4x4": 16, "v6e:16x16": 256}
# Preset -> source tokens of a step on each chip (and as many of the target), and flags that it takes to fit a v5e.
_LOADS: dict[str, tuple[int, tuple[str, ...]]] = {"base": (16_384, ()), "large": (8_192, ("--mesh.fsdp", "8"))}
_LAYERS = {"unrolled": (), "unrolled, remat": ("--remat", "full"), "scan": ("--scan-layers",)}
_LAYERS |= {"scan, remat": ("--scan-layers", "--remat", "full")}

_DEPTHS = (6, 12, 24, 48)

_NO_DROPOUT = ("--attention-dropout", "0")
_NO_BIAS = ("--relative-buckets", "0")
_LOOP = ("--scan-layers", "--remat", "dots")
_DEEP = ("--scan-layers", "--remat", "full")
# Fine-tuning of published checkpoints on texts of 512 tokens: preset, slice, rows, further flags.
_FINE_TUNING: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "bert": ("bert-base", "v5e:2x4", 256, ()),
    "bert-no-attention-dropout": ("bert-base", "v5e:2x4", 256, _NO_DROPOUT),
    "t5": ("t5-base", "v5e:2x4", 64, _LOOP),
    "t5-no-attention-dropout": ("t5-base", "v5e:2x4", 64, (*_NO_DROPOUT, *_LOOP)),
    "t5-blockwise": ("t5-base", "v5e:2x4", 64, ("--attention", "blockwise", *_LOOP)),
    "t5-no-bias": ("t5-base", "v5e:2x4", 64, (*_NO_DROPOUT, *_NO_BIAS, *_LOOP)),
    "t5-xl-v6e": ("t5-xl", "v6e:4x4", 128, ("--mesh.fsdp", "16", *_NO_DROPOUT, *_DEEP)),
    "t5-xl-v5p": ("t5-xl", "v5p:2x2x2", 128, ("--mesh.fsdp", "8", *_NO_DROPOUT, *_DEEP)),
    "t5-xxl-v6e": ("t5-xxl", "v6e:4x4", 64, ("--mesh.fsdp", "16", *_NO_DROPOUT, *_DEEP)),
    "t5-xxl-v5p": ("t5-xxl", "v5p:2x2x2", 64, ("--mesh.fsdp", "8", *_NO_DROPOUT, *_DEEP)),
}
# Rows with one example and with several: preset, rows, tokens of a row.
_PACKING = (("base", 1024, 128), ("bert-base", 256, 512))

Job = tuple[str, list[str]]


def plans(topologies: tuple[str, ...] = tuple(_SLICES), folder: Path = PLANS, limit: int | None = None) -> int:
    """Compile training steps for TPU slices that need not be there; one that has its record already is left out.

    Args:
        topologies: of those in the tables.
        folder: of the records.
        limit: stop after so many; each takes minutes.
    """
    every = [*_lengths(), *_depths(), *_fine_tuning(), *_packing()]
    check_names("--topologies", topologies, dict.fromkeys(flags[1] for _, flags in every))
    console = Console(stderr=True)
    jobs = [(name, flags) for name, flags in every if flags[1] in topologies and not _file(folder, name).exists()]
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, flags in track(jobs[:limit], "compiling", console=console):
        command = [sys.executable, "-m", "flax_transformer", "plan", *flags, "--json", str(_file(folder, name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            failed += 1
            console.print(f"{name}: {done.stderr.strip()[-500:]}", markup=False)
    return 1 if failed else 0


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _lengths() -> Iterator[Job]:
    """Both presets on each slice, at three lengths, with plain and with flash attention."""
    for preset, (tokens, more) in _LOADS.items():
        for topology, chips in _SLICES.items():
            for length in (512, 2048, 8192):
                for attention in ("flash", "xla"):
                    size = ("--batch", str(chips * tokens // length), "--length", str(length))
                    flags = ["--topology", topology, "--preset", preset, *size, "--attention", attention, *more]
                    yield f"{topology.replace(':', '-')}-{preset}-{length}-{attention}", flags


def _depths() -> Iterator[Job]:
    """The base model made deeper, on a v5e; without dropout, which takes no memory."""
    for depth in _DEPTHS:
        for name, more in _LAYERS.items():
            flags = ["--topology", "v5e:2x4", "--layers", str(depth), "--batch", "256", "--dropout", "0", *more]
            yield _depth_name(depth, name), flags


def _fine_tuning() -> Iterator[Job]:
    for name, (preset, topology, rows, more) in _FINE_TUNING.items():
        yield name, ["--topology", topology, "--preset", preset, "--batch", str(rows), *more]


def _packing() -> Iterator[Job]:
    """On a v5e, whose flash kernel knows segments but drops no weights."""
    for preset, rows, length in _PACKING:
        for name, more in (("", ()), ("-packed", ("--packing",))):
            flags = ["--topology", "v5e:2x4", "--preset", preset, "--batch", str(rows), "--length", str(length)]
            yield f"rows-{preset}-{length}{name}", [*flags, *_NO_DROPOUT, *more]


def _depth_name(depth: int, layers: str) -> str:
    return f"depth-{depth}-{layers.replace(', ', '-')}"


def load_plans(folder: Path) -> dict[str, dict[str, Any]]:
    """The records by name, as far as they are there."""
    files = sorted(folder.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


LENGTH_COLUMNS = ["slice", "preset", "length", "TFLOP per chip"]
LENGTH_COLUMNS += [
    f"{name}: {what}" for name in ("flash", "plain") for what in ("HBM", "GB moved", "minimum time", "MFU")
]


def length_rows(plans: dict[str, dict[str, Any]]) -> Iterable[list[str]]:
    """A line for each slice, preset and length that has a record with flash attention."""
    jobs = list(_lengths())
    for (flash, flags), (plain, _) in zip(jobs[::2], jobs[1::2], strict=True):
        if flash in plans:
            flops = f"{plans[flash]['model_flops'] / 1e12:.2f}"
            yield [flags[1], flags[3], flags[7], flops, *_cost(plans[flash]), *_cost(plans.get(plain))]


FINE_TUNING_COLUMNS = ["checkpoint", "slice", "rows", "flags", "attention", "HBM", "GB moved", "minimum time", "MFU"]
FINE_TUNING_COLUMNS += ["tokens/s in all", "compile time"]


def fine_tuning_rows(plans: dict[str, dict[str, Any]]) -> Iterable[list[str]]:
    for name, (preset, topology, rows, more) in _FINE_TUNING.items():
        if name in plans:
            plan = plans[name]
            flags = f"`{' '.join(more)}`" if more else ""
            costs = [plan["attention"], *_cost(plan), _speed(plan), f"{plan['compile_seconds']:.0f} s"]
            yield [preset, topology, str(rows), flags, *costs]


PACKING_COLUMNS = ["preset", "rows", "length"] + [
    f"{name}: {what}"
    for name in ("one example", "packed")
    for what in ("HBM", "GB moved", "minimum time", "MFU", "tokens/s in all")
]


def packing_rows(plans: dict[str, dict[str, Any]]) -> Iterable[list[str]]:
    jobs = list(_packing())
    for (alone, flags), (packed, _) in zip(jobs[::2], jobs[1::2], strict=True):
        if alone in plans and packed in plans:
            costs = (cell for plan in (plans[alone], plans[packed]) for cell in (*_cost(plan), _speed(plan)))
            yield [flags[3], flags[5], flags[7], *costs]


def _speed(plan: dict[str, Any]) -> str:
    return f"{plan['tokens_per_second']:,.0f}" if plan["step_time"] is not None else ""


def _cost(plan: dict[str, Any] | None) -> list[str]:
    if plan is None:
        return [""] * 4
    if plan["step_time"] is None:  # the compiler gave up
        return [_gib(plan), "", "", ""]
    times = {"compute": plan["compute_time"], "HBM": plan["memory_time"], "links": plan["link_time"]}
    slowest = max(times, key=lambda name: times[name])
    least = f"{plan['step_time'] * 1e3:.0f} ms ({slowest})"
    return [_gib(plan), f"{plan['hbm_bytes'] / 1e9:.0f}", least, f"{plan['mfu']:.0%}"]


def _gib(plan: dict[str, Any]) -> str:
    return f"{plan['hbm_needed'] / 2**30:.1f} GiB" + ("" if plan["fits"] else " (does not fit)")


DEPTH_COLUMNS = ["layers", *(f"{name}: {what}" for name in _LAYERS for what in ("HBM", "compile time"))]


def depth_rows(plans: dict[str, dict[str, Any]]) -> Iterable[list[str]]:
    for depth in _DEPTHS:
        own = [plans.get(_depth_name(depth, name)) for name in _LAYERS]
        if any(own):
            yield [f"{depth} + {depth}", *(cell for plan in own for cell in _depth_cells(plan))]


def _depth_cells(plan: dict[str, Any] | None) -> list[str]:
    return ["", ""] if plan is None else [_gib(plan), f"{plan['compile_seconds']:.0f} s"]
