"""``bench mixers``: what an RNN, full attention and linear attention cost against the length, and what they recall.

Guides to long inputs set three kinds of layers against each other: recurrent (time linear in the length, but one token
after the other), full attention (time and memory quadratic, all tokens at once) and linear attention (linear, all
tokens at once, but it recalls less). Here each of these claims is measured on layers with equally many parameters.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flax_transformer.bench import plot as pictures
from flax_transformer.bench.attention import fit_exponent
from flax_transformer.bench.checks import check_counts, check_files
from flax_transformer.bench.records import Record, describe_machine
from flax_transformer.bench.worker import Refused, Worker
from flax_transformer.config import FloatDtype
from flax_transformer.errors import UserError

SIDE = "flax_transformer.bench.mixers_side:MixerStack"
NAMES: dict[str, str] = {"lstm": "RNN (LSTM)", "attention": "full attention", "linear": "linear attention"}
_SLOWEST = 20.0  # seconds that a pass may take; a length that must take longer is left out
_CLOSE = 0.25  # of an exponent to the one that is claimed
_FLAT = 2.0  # by this factor a time may grow, over all lengths, and still count as the same
_RECALLS, _FORGETS = 0.9, 0.6  # accuracies


@dataclass(frozen=True)
class Claim:
    """What guides say of a mixer, what was measured, and whether that bears it out."""

    mixer: str
    claim: str
    measured: str
    verdict: str


def mixers(
    lengths: tuple[int, ...] = (128, 512, 2048, 8192, 32768),
    tokens: int = 8192,
    distances: tuple[int, ...] = (16, 64, 256, 1024),
    recall_seconds: float = 60.0,
    layers: int = 1,
    width: int = 128,
    heads: int = 4,
    dtype: FloatDtype = "float32",
    repeats: int = 3,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Cost and recall of an LSTM, full attention and linear attention, with equally many parameters.

    Args:
        lengths: tokens of a sequence for the times of a training pass, and places of a new token. A mixer stops before
            a pass of more than 20 seconds.
        tokens: of a batch whose rows grow longer and fewer, which shows what runs in parallel.
        distances: tokens between what is to be recalled and the place where it is asked for.
        recall_seconds: of training at each distance, the same for each mixer; less where it has learned to recall.
        layers: of the stack.
        width: of the stack.
        heads: of both kinds of attention.
        dtype: of matrix products.
        repeats: timed runs, for which the mixers take turns; the median counts.
        json: file for the record, or a folder that it is to be named in.
        plot: a picture (.png).
    """
    check_counts(lengths=lengths, tokens=tokens, distances=distances, layers=layers)
    check_counts(width=width, heads=heads, repeats=repeats)
    check_files(json, plot)
    lengths, distances = tuple(sorted(set(lengths))), tuple(sorted(set(distances)))
    shape = {"layers": layers, "width": width, "heads": heads, "dtype": dtype}
    console = Console(width=None if Console().is_terminal else 160)
    with console.status("starting") as status:
        workers: dict[str, Worker] = {name: Worker(SIDE, name, shape) for name in NAMES}
        try:
            parameters = {name: worker.call("parameters") for name, worker in workers.items()}
        except Refused as refusal:
            raise UserError(f"not all mixers can take part: {refusal}") from refusal
        results = {
            "parameters": parameters,
            "length": _passes(workers, [(1, length) for length in lengths], repeats, status.update),
            "equal_tokens": _passes(workers, _rows(lengths, tokens), repeats, status.update),
            "new_token": _new_tokens(workers, lengths, status.update),
            "recall": _recall(workers, distances, recall_seconds, status.update),
        }
        for worker in workers.values():
            worker.close()
    settings = shape | {"lengths": list(lengths), "tokens": tokens, "distances": list(distances)}
    settings |= {"recall_seconds": recall_seconds}
    record = Record("mixers", dtype, settings, results, describe_machine())
    print_tables(record, console)
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    if plot is not None:
        pictures.mixers(record, plot)
    return 0


def _rows(lengths: tuple[int, ...], tokens: int) -> list[tuple[int, int]]:
    """Batches of equally many tokens: rows, and their length."""
    return [(tokens // length, length) for length in lengths if length <= tokens]


def _passes(
    workers: dict[str, Worker], sizes: list[tuple[int, int]], repeats: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Forward and backward passes over batches of these rows and lengths; the mixers take turns."""
    results: dict[str, dict[str, Any]] = {name: {"points": [], "refused": None} for name in workers}
    for rows, length in sizes:
        size = f"{rows} x {length}"
        started: dict[str, int] = {}
        for name in [name for name, own in results.items() if own["refused"] is None]:
            say(f"{name}: {size} tokens")
            try:
                started[name] = _start(workers[name], rows, length, results[name]["points"])
            except Refused as refusal:
                results[name]["refused"] = f"from {size} on: {refusal}"
        turns = [{name: workers[name].call("once") for name in started} for _ in range(repeats)]
        for name, memory in started.items():
            seconds, processor = (statistics.median(turn[name][part] for turn in turns) for part in (0, 1))
            point = {"rows": rows, "length": length, "seconds": seconds, "processor": processor, "memory": memory}
            results[name]["points"].append(point)
    for own in results.values():
        points = own["points"]
        own["exponents"] = {key: fit_exponent([(p["length"], p[key]) for p in points]) for key in ("seconds", "memory")}
    return results


def _start(worker: Worker, rows: int, length: int, points: list[dict[str, Any]]) -> int:
    """Compile; the bytes that the program needs.

    Raises:
        Refused: it would take too long, if the time grows by the factor by which it grew last.
    """
    if len(points) > 1:
        before, last = points[-2:]
        if last["seconds"] * max(1.0, last["seconds"] / before["seconds"]) > _SLOWEST:
            raise Refused(f"a pass would take more than {_SLOWEST:.0f} s")
    return worker.call("start", rows, length)


def _new_tokens(
    workers: dict[str, Worker], places: tuple[int, ...], say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Seconds of one more token behind ``place`` others, and the bytes that are kept of those."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for place in places:
        for name, worker in workers.items():
            say(f"{name}: token {place}")
            seconds, size = worker.call("new_token", place)
            results[name].append({"place": place, "seconds": seconds, "bytes": size})
    return results


def _recall(
    workers: dict[str, Worker], distances: tuple[int, ...], seconds: float, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for distance in distances:
        for name, worker in workers.items():
            say(f"{name}: recall at {distance} tokens")
            results[name].append({"distance": distance} | worker.call("recall", distance, seconds))
    return results


def claims(record: Record) -> list[Claim]:
    """The guide's claims beside the figures of a record."""
    results = record.results
    found = []
    for name, time, memory in (("lstm", 1, 1), ("attention", 2, 2), ("linear", 1, 1)):
        exponents = results["length"][name]["exponents"]
        for what, key, power in (("time", "seconds", time), ("memory", "memory", memory)):
            found.append(_of_growth(NAMES[name], what, power, exponents[key]))
        found.append(_of_parallelism(name, results["equal_tokens"][name]["points"]))
        found.append(_of_new_token(name, results["new_token"][name]))
        found.append(_of_recall(name, results["recall"]))
    return found


def _of_growth(mixer: str, what: str, power: int, exponent: float | None) -> Claim:
    claim = f"{what} O(n{'²' if power == 2 else ''})"
    if exponent is None:
        return Claim(mixer, claim, "too few lengths", "not measured")
    if abs(exponent - power) <= _CLOSE:
        return Claim(mixer, claim, f"n^{exponent:.2f}", "holds")
    return Claim(mixer, claim, f"n^{exponent:.2f}", "grows less" if exponent < power else "grows more")


def _of_parallelism(name: str, points: list[dict[str, Any]]) -> Claim:
    """From the same number of tokens in longer rows: what runs in parallel takes no longer for it.

    Full attention has more to do in longer rows, so that its time says nothing of what runs in parallel.
    """
    claim = "sequential" if name == "lstm" else "parallel"
    if len(points) < 2:
        return Claim(NAMES[name], claim, "too few lengths", "not measured")
    growth = points[-1]["seconds"] / points[0]["seconds"]
    measured = f"{growth:.1f} times the time in rows {points[-1]['length'] // points[0]['length']} times as long"
    if name == "attention":
        return Claim(NAMES[name], claim, measured, "its work grows, too")
    return Claim(NAMES[name], claim, measured, "holds" if (growth > _FLAT) == (name == "lstm") else "does not hold")


def _of_new_token(name: str, points: list[dict[str, Any]]) -> Claim:
    claim = "a new token costs O(n)" if name == "attention" else "a new token costs O(1)"
    growth = points[-1]["seconds"] / points[0]["seconds"]
    measured = (
        f"{growth:.1f} times the time and {points[-1]['bytes'] / points[0]['bytes']:.0f} times the bytes "
        f"at token {points[-1]['place']:,} as at {points[0]['place']:,}"
    )
    grows = growth > _FLAT
    return Claim(NAMES[name], claim, measured, "holds" if grows == (name == "attention") else "does not hold")


def _of_recall(name: str, results: dict[str, list[dict[str, Any]]]) -> Claim:
    """At the longest distance. Where attention did not learn it either, the training was too short to tell."""
    points, claim = (
        results[name],
        {"lstm": "forgets with the distance", "attention": "recalls at any distance", "linear": "recall suffers"},
    )
    accuracies = ", ".join(f"{point['accuracy']:.0%} at {point['distance']:,}" for point in points)
    far, is_learned = points[-1]["accuracy"], results["attention"][-1]["accuracy"] >= _RECALLS
    if name == "attention":
        verdict = "holds" if is_learned else "not learned in the time"
    elif far >= _RECALLS:
        verdict = "does not hold"
    else:
        verdict = ("holds" if far < _FORGETS else "in part") if is_learned else "attention did not learn it either"
    return Claim(NAMES[name], claim[name], accuracies, verdict)


def print_tables(record: Record, console: Console) -> None:
    shape = record.settings
    for title, columns, rows in tables(record):
        table = Table(
            title=f"{title}; layers: {shape['layers']}, width: {shape['width']}, {shape['dtype']}",
            title_justify="left",
            pad_edge=False,
        )
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for kind in ("length", "equal_tokens"):
        for name, own in record.results[kind].items():
            if own["refused"]:
                console.print(f"{name} took no part {own['refused']}", markup=False)


def tables(record: Record) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of each table, as the terminal and the documentation show them."""
    settings, results, names = record.settings, record.results, list(NAMES.values())
    return [
        ("claims", ["mixer", "claim", "measured", "verdict"], [[*vars(claim).values()] for claim in claims(record)]),
        (
            "a training pass, for each token",
            ["length", *names],
            _by_key(results["length"], "length", lambda p: f"{p['seconds'] / p['length'] * 1e6:,.1f} µs, {_mib(p)}"),
        ),
        (
            f"a training pass over {settings['tokens']:,} tokens",
            ["rows of", *names],
            _by_key(results["equal_tokens"], "length", lambda p: f"{p['seconds'] * 1e3:,.0f} ms"),
        ),
        (
            "a new token",
            ["behind", *names],
            _by_key(
                {name: {"points": points} for name, points in results["new_token"].items()},
                "place",
                lambda p: f"{p['seconds'] * 1e6:,.0f} µs, {p['bytes'] / 1024:,.0f} KiB",
            ),
        ),
        (
            f"recall after at most {settings['recall_seconds']:g} s of training",
            ["distance", *names],
            _by_key(
                {name: {"points": points} for name, points in results["recall"].items()},
                "distance",
                lambda p: f"{p['accuracy']:.0%} after {p['steps']:,} steps, {p['seconds']:,.0f} s",
            ),
        ),
    ]


def _mib(point: dict[str, Any]) -> str:
    return f"{point['memory'] / 2**20:,.1f} MiB"


def _by_key(results: dict[str, dict[str, Any]], key: str, show: Callable[[dict[str, Any]], str]) -> list[list[str]]:
    """A row for each value of ``key``, a cell for each mixer, empty where it took no part."""
    by_mixer = [{point[key]: point for point in results[name]["points"]} for name in NAMES]
    values = sorted(set().union(*by_mixer))
    return [[f"{value:,}", *(show(own[value]) if value in own else "" for own in by_mixer)] for value in values]
