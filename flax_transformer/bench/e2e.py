"""``bench e2e``: an epoch of IMDb from the file to its metrics, against PyTorch loops.

The candidates share reading, tokenizer and model. They differ in the framework and in padding: ``flax`` runs our
training loop, ``torch-buckets`` a PyTorch loop over the very same batches, ``torch-longest`` the usual one, which pads
every row to the longest length. A fraction of the epoch is run, in turns; the whole is computed from it and says so.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from rich.console import Console
from rich.status import Status
from rich.table import Table

from flax_transformer.bench.agreement import compare
from flax_transformer.bench.checks import check_counts, check_files
from flax_transformer.bench.epoch import Work
from flax_transformer.bench.records import Record, describe_machine, thread_count
from flax_transformer.bench.worker import Refused, Worker
from flax_transformer.bench.workload import SIZES
from flax_transformer.config import ImdbData, TrainConfig, to_dict
from flax_transformer.errors import UserError
from flax_transformer.presets import PRESETS

Peer = Literal["torch-longest", "torch-buckets"]
PEERS: tuple[Peer, ...] = ("torch-longest", "torch-buckets")


def e2e(
    preset: Literal["tiny", "assignment"] = "tiny",
    data: ImdbData = ImdbData(),  # noqa: B008, it cannot be changed
    against: tuple[Peer, ...] = PEERS,
    fraction: float = 0.03,
    dropout: float = 0.1,
    rounds: int = 5,
    json: Path | None = None,
) -> int:
    """An epoch of IMDb from the file to its metrics, against PyTorch loops with the same model.

    Args:
        preset: tiny: encoder, 4 layers, 256 wide; assignment: encoder, 4 x 768.
        data: the reviews.
        against: torch-longest: the usual loop, which pads to the longest length; torch-buckets: one with our batches.
        fraction: of the steps of an epoch, and of the test split, that is run; the whole is computed from it.
        dropout: rate, on attention weights too.
        rounds: turns that the steps are run in.
        json: file for the record, or a folder that it is to be named in.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"--fraction: expected a number in (0, 1], got {fraction:g}")
    check_counts(rounds=rounds)
    check_files(json)
    console = Console(width=None if Console().is_terminal else 160)
    config = _config(preset, data, dropout)
    with ExitStack() as stack, console.status("flax: reading") as status:
        folder = Path(stack.enter_context(TemporaryDirectory()))

        def worker(made_by: str, *arguments: Any) -> Worker:
            started = Worker(made_by, *arguments)
            stack.callback(started.close)
            return started

        workers = {"flax": worker("flax_transformer.bench.epoch_flax:FlaxEpoch", config, folder)}
        try:
            facts = workers["flax"].call("describe")
            workers["flax"].call("save_weights", folder / "weights")
        except Refused as refusal:
            raise UserError(f"flax cannot take part: {refusal}") from refusal
        config = facts.pop("config")
        for name in dict.fromkeys(against):
            padding = name.removeprefix("torch-")
            workers[name] = worker(
                "flax_transformer.bench.epoch_torch:TorchEpoch", config, padding, thread_count(), folder
            )
        peers = {name: one for name, one in workers.items() if name != "flax"}
        try:
            agreements, refused = compare(config.model, workers["flax"], peers, status.update)
        except Refused as refusal:
            raise UserError(f"flax cannot take part: {refusal}") from refusal
        for name, agreement in agreements.items():
            if not agreement.holds:
                console.print(
                    f"{name} does not compute what flax computes: {agreement}; nothing is timed", markup=False
                )
                return 1
        taking_part = {name: one for name, one in workers.items() if name not in refused}
        results = _run(taking_part, rounds, fraction, status)
    for name, own in results.items():
        own["epoch_seconds"] = _whole_epoch(own, facts)
        if name != "flax":
            own["ratio"] = results["flax"]["tokens_per_second"] / own["tokens_per_second"]
    facts |= {"fraction": fraction, "agreement": {n: asdict(a) for n, a in agreements.items()}}
    record = Record(
        "e2e",
        f"imdb-{preset}-dropout{dropout:g}",
        to_dict(config),
        facts | {"candidates": results, "refused": refused},
        describe_machine(),
    )
    print_table(record, console)
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    return 0


def _config(preset: Literal["tiny", "assignment"], data: ImdbData, dropout: float) -> TrainConfig:
    model = replace(SIZES[preset][0], dropout=dropout, attention_dropout=dropout)
    base = PRESETS["imdb"]["default" if preset == "tiny" else "assignment"]
    return replace(
        base, data=data, model=model, batch=replace(base.batch, word_dropout=0.0), label_smoothing=0.0, epochs=1
    )


def _run(workers: dict[str, Worker], rounds: int, fraction: float, status: Status) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for name, worker in workers.items():
        status.update(f"{name}: first steps")
        results[name] = {"warm_up_seconds": worker.call("warm_up"), "turns": []}
        worker.call("warm_up")
    # With longest padding an epoch has fewer steps than in buckets, each of which ends with filler.
    parts = {name: parts_of(worker.call("steps"), rounds, fraction) for name, worker in workers.items()}
    for i in range(rounds):
        for name, worker in workers.items():
            status.update(f"{name}: round {i + 1} of {rounds}")
            results[name]["turns"].append(worker.call("train", parts[name][i]))
    for name, worker in workers.items():
        status.update(f"{name}: evaluation")
        work, accuracy = worker.call("evaluate", fraction)
        turns: Sequence[Work] = results[name]["turns"]
        results[name] |= {
            "tokens_per_second": sum(turn.tokens for turn in turns) / sum(turn.seconds for turn in turns),
            "evaluation_tokens_per_second": work.tokens / work.seconds,
            "accuracy": accuracy,
            "memory": worker.call("memory"),
        }
    return results


def parts_of(steps: int, rounds: int, fraction: float) -> list[int]:
    """A fraction of the steps, but one for each round if there are as many, in parts that differ by one at most."""
    total = min(steps, max(rounds, round(fraction * steps)))
    return [total * (i + 1) // rounds - total * i // rounds for i in range(rounds)]


def _whole_epoch(own: dict[str, Any], facts: dict[str, Any]) -> float:
    """Seconds from the file to the metrics: preparation, compilation, all steps and the whole test split."""
    train = facts["train_tokens"] / own["tokens_per_second"]
    test = facts["test_tokens"] / own["evaluation_tokens_per_second"]
    return sum(facts["seconds"].values()) + own["warm_up_seconds"] + train + test


def print_table(record: Record, console: Console) -> None:
    results = record.results
    sizes = record.settings["batch"]
    table = Table(
        title=f"{record.what} {record.label}: {results['fraction']:.0%} of an epoch, batch "
        f"{sizes['size']}, at most {sizes['max_source_length']} tokens; {record.machine['device']}",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("loop", no_wrap=True)
    for column in ("real tokens/s", "evaluation", "padding", "first steps", "epoch", "memory", "flax is faster"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, own in results["candidates"].items():
        table.add_row(
            name,
            f"{own['tokens_per_second']:,.0f}",
            f"{own['evaluation_tokens_per_second']:,.0f}",
            f"{results['waste'][padding_of(name)]:.1%}",
            f"{own['warm_up_seconds']:.1f} s",
            f"{own['epoch_seconds'] / 60:.1f} min",
            f"{own['memory'].get('device', own['memory']['rss']) / 2**30:.2f} GiB",
            f"{own['ratio']:.2f}" if "ratio" in own else "",
        )
    console.print(table)
    for name, reason in results["refused"].items():
        console.print(f"{name} took no part: {reason}", markup=False)
    preparation = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in results["seconds"].items())
    console.print(f"before the first step: {preparation}; of the epoch, {results['fraction']:.0%} were run")


def padding_of(name: str) -> str:
    return "longest" if name == "torch-longest" else "buckets"
