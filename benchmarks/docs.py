"""``python -m benchmarks.docs`` writes the tables of docs/PERFORMANCE.md and docs/TPU.md from the records."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from flax_transformer.bench import mixers, plans
from flax_transformer.bench.records import Record, load_record
from flax_transformer.bench.throughput import best_ratio, held_gib

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = Path(__file__).parent / "results"
PAGE = DOCS / "PERFORMANCE.md"
_MARKED = re.compile(r"(<!-- records: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Put the newest records of each kind between the markers ``<!-- records: KIND -->`` and ``<!-- end -->``."""
    records = newest(load_record(file) for file in sorted(results.glob("*.json")))

    def table(match: re.Match[str]) -> str:
        own = [record for record in records if record.what == match[2]]
        lines = []
        for machine in dict.fromkeys(map(_machine, own)):
            lines += [machine, "", *_TABLES[match[2]]([record for record in own if _machine(record) == machine]), ""]
        return match[1] + "\n".join(lines[:-1] or ["Not measured yet."]) + "\n" + match[3]

    page.write_text(_MARKED.sub(table, page.read_text(encoding="utf-8")), encoding="utf-8")


def write_plans(page: Path = DOCS / "TPU.md") -> None:
    """The same for the plans of TPU slices."""
    own = plans.load_plans(RESULTS / "plans")
    tables = {
        "lengths": _table(plans.LENGTH_COLUMNS, plans.length_rows(own)),
        "depths": _table(plans.DEPTH_COLUMNS, plans.depth_rows(own)),
        "fine-tuning": _table(plans.FINE_TUNING_COLUMNS, plans.fine_tuning_rows(own)),
        "packing": _table(plans.PACKING_COLUMNS, plans.packing_rows(own)),
    }
    text = _MARKED.sub(lambda match: match[1] + "\n".join(tables[match[2]]) + "\n" + match[3], page.read_text("utf-8"))
    page.write_text(text, encoding="utf-8")


def newest(records: Iterable[Record]) -> list[Record]:
    """The last record of each benchmark, device and launch, in order of their names."""
    kept: dict[tuple[str, ...], Record] = {}
    for record in sorted(records, key=lambda record: record.date):
        kept[record.machine["device"], record.what, record.label, record.launch] = record
    return [kept[key] for key in sorted(kept)]


def _machine(record: Record) -> str:
    """What the records of a table have in common."""
    machine, versions = record.machine, record.machine["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("jax", "torch") if name in versions)
    hardware = f"{machine['device']}, {machine['threads']} threads"
    return f"{hardware}; {libraries}; {record.date[:10]}, commit {machine['commit']}:"


def _table(columns: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)]


def _throughput(records: list[Record]) -> list[str]:
    columns = ["model", "launch", "flax", "torch", "torch-compile", "torch-nn", "flax / best of PyTorch"]
    columns += ["MFU: flax / torch", "peak", "memory: flax / torch"]
    rows = []
    for record in records:
        candidates = record.results["candidates"]
        cells = [_speed(candidates.get(name)) for name in ("flax", "torch", "torch-compile", "torch-nn")]
        best = best_ratio(record)
        ratios = candidates[best[0]]["ratios"] if best else []
        ratio = f"**{best[1]:.2f}** ({min(ratios):.2f} to {max(ratios):.2f})" if best else ""
        used = " / ".join(_used(candidates.get(name)) for name in ("flax", "torch"))
        memory = " / ".join(_memory(candidates.get(name)) for name in ("flax", "torch"))
        peak = f"{record.results['matmul_peak'] / 1e9:,.0f} GFLOP/s"
        rows.append([_model(record), record.launch, *cells, ratio, used, peak, f"{memory} GiB"])
    return _table(columns, rows)


def _model(record: Record) -> str:
    sizes = record.settings["batch"]
    return f"{record.label.replace('-', ' ')}, {sizes['size']} x {sizes['max_source_length']}"


def _speed(own: dict | None) -> str:
    if own is None or own["refused"] is not None:
        return ""
    return f"{own['tokens_per_second']:,.0f} ± {own['spread']:.1%}"


def _used(own: dict | None) -> str:
    return f"{own['flops_utilisation']:.0%}" if own and own.get("flops_utilisation") else "?"


def _memory(own: dict | None) -> str:
    return f"{held_gib(own):.1f}" if own and own.get("memory") else "?"


def _e2e(records: list[Record]) -> list[str]:
    columns = ["run", "launch", "loop", "real tokens/s", "padding", "epoch", "memory", "speedup of flax"]
    rows = []
    for record in records:
        for name, own in record.results["candidates"].items():
            waste = record.results["waste"]["longest" if name == "torch-longest" else "buckets"]
            rows.append(
                [
                    record.label.replace("-", " "),
                    record.launch,
                    name,
                    f"{own['tokens_per_second']:,.0f}",
                    f"{waste:.1%}",
                    f"{own['epoch_seconds'] / 60:.1f} min",
                    f"{held_gib(own):.2f} GiB",
                    f"**{own['ratio']:.2f}**" if "ratio" in own else "",
                ]
            )
    return _table(columns, rows)


def _attention(records: list[Record]) -> list[str]:
    lines = []
    for record in records:
        backends = {name: own for name, own in record.results["backends"].items() if own["points"]}
        points = [{point["length"]: point for point in own["points"]} for own in backends.values()]
        rows = [
            [str(length), *(_point(by_length.get(length)) for by_length in points)]
            for length in record.settings["lengths"]
        ]
        growth = [
            ", ".join("?" if own["exponents"][key] is None else f"n^{own['exponents'][key]:.2f}" for key in _GROWTHS)
            for own in backends.values()
        ]
        lines += [*_table(["length", *backends], [*rows, ["scaling", *growth]]), ""]
    return lines[:-1]


_GROWTHS = ("seconds", "memory")


def _point(point: dict | None) -> str:
    return f"{point['seconds'] * 1e3:,.1f} ms, {point['memory'] / 2**20:,.0f} MiB" if point else ""


def _mixers(records: list[Record]) -> list[str]:
    lines = []
    for record in records:
        for title, columns, rows in mixers.tables(record):
            lines += [f"{title[0].upper()}{title[1:]}:", "", *_table(columns, rows), ""]
    return lines[:-1]


def _input(records: list[Record]) -> list[str]:
    rows = [
        [
            record.label,
            f"{record.results['step_seconds'] * 1e3:.1f} ms",
            f"{record.results['wait_seconds'] * 1e3:.3f} ms ({record.results['share']:.2%})",
            f"{record.results['longest_wait_seconds'] * 1e3:.2f} ms",
            f"{record.results['making_seconds'] * 1e3:.2f} ms",
        ]
        for record in records
    ]
    return _table(["run", "step", "wait for the batch", "longest wait", "making a batch (prefetch thread)"], rows)


def _startup(records: list[Record]) -> list[str]:
    rows = []
    for record in records:
        help_, first, second = (median(record.results[key]) for key in ("help", "first_start", "second_start"))
        rows.append([record.label, f"{help_:.2f} s", f"{first:.1f} s", f"{second:.1f} s", f"**{first / second:.2f}**"])
    return _table(["model", "--help", "first start", "second start", "speedup"], rows)


# A candidate -> its column.
_GENERATORS = {
    "flax": "flax",
    "torch": "PyTorch twin",
    "hf": "transformers",
    "onnx": "ONNX Runtime",
    "ct2": "CTranslate2",
    "ct2-int8": "CTranslate2, int8",
}


def _generate(records: list[Record]) -> list[str]:
    """New tokens per second, and in parentheses how many times as many as flax."""
    rows, loads = [], []
    for record in records:
        if record.label.startswith("throughput"):
            for shape in record.results["shapes"]:
                cells = [_generated(shape["candidates"].get(name)) for name in _GENERATORS]
                rows.append([record.label.removeprefix("throughput-"), str(shape["batch"]), *cells])
                loads += [load for own in shape["candidates"].values() for load in own["background_load"]]
    told = f"Other processes took {min(loads):.0%} to {max(loads):.0%} of the cores in a turn." if loads else ""
    return [*_table(["model", "batch", *_GENERATORS.values()], rows), "", told]


def _generated(own: dict | None) -> str:
    if own is None or own["refused"] is not None:
        return ""
    return f"{own['tokens_per_second']:,.0f} ({1 / median(own['ratios']):.2f})"


_TABLES: dict[str, Callable[[list[Record]], list[str]]] = {
    "train": _throughput,
    "forward": _throughput,
    "e2e": _e2e,
    "attention": _attention,
    "generate": _generate,
    "mixers": _mixers,
    "input": _input,
    "startup": _startup,
}


if __name__ == "__main__":
    write()
    write_plans()
