"""Pictures of records."""

from pathlib import Path
from typing import Any

from flax_transformer.bench.records import Record
from flax_transformer.errors import UserError
from flax_transformer.outputs import PICTURE


def throughput(record: Record, file: Path) -> None:
    """Tokens per second of each candidate, with every turn as a dot."""
    figure, axes = _figure()
    tokens = record.results["tokens_per_step"]
    rows = {name: own for name, own in record.results["candidates"].items() if own["refused"] is None}
    for i, own in enumerate(rows.values()):
        axes.barh(i, own["tokens_per_second"], color=f"C{i}", alpha=0.6)
        axes.plot([tokens / seconds for seconds in own["seconds"]], [i] * len(own["seconds"]), "k.", markersize=4)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set(title=f"{record.what}, {record.label}", xlabel="tokens per second")
    _save(figure, file)


def scaling(record: Record, file: Path) -> None:
    """Seconds and memory against length, both logarithmic, a line for each backend."""
    figure, (times, memories) = _figure(columns=2)
    for name, own in record.results["backends"].items():
        points = own["points"]
        if not points:
            continue
        lengths = [point["length"] for point in points]
        for axes, key, unit in ((times, "seconds", 1e-3), (memories, "memory", 2**20)):
            exponent = own["exponents"][key]
            label = name if exponent is None else f"{name}: length^{exponent:.2f}"
            axes.loglog(lengths, [point[key] / unit for point in points], "o-", label=label)
    times.set(title="forward and backward", xlabel="length", ylabel="milliseconds")
    memories.set(title="memory above that of the inputs", xlabel="length", ylabel="MiB")
    for axes in (times, memories):
        axes.set_xscale("log", base=2)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, file)


def mixers(record: Record, file: Path) -> None:
    """Time of a pass, memory, cost of a new token and recall, a line for each mixer."""
    figure, grid = _figure(columns=2, rows=2)
    times, tokens, memories, recall = grid.flat
    for name, own in record.results["length"].items():
        lengths = [point["length"] for point in own["points"]]
        times.loglog(lengths, [point["seconds"] * 1e3 for point in own["points"]], "o-", label=name)
        memories.loglog(lengths, [point["memory"] / 2**20 for point in own["points"]], "o-", label=name)
        new = record.results["new_token"][name]
        tokens.loglog([p["place"] for p in new], [p["seconds"] * 1e6 for p in new], "o-", label=name)
        far = record.results["recall"][name]
        recall.semilogx([p["distance"] for p in far], [p["accuracy"] for p in far], "o-", label=name)
    times.set(title="forward and backward", xlabel="length", ylabel="milliseconds")
    memories.set(title="memory of a pass", xlabel="length", ylabel="MiB")
    tokens.set(title="a new token", xlabel="tokens before it", ylabel="microseconds")
    recall.set(title="recall after training", xlabel="distance", ylabel="accuracy", ylim=(0, 1.05))
    for axes in (times, tokens, memories, recall):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, file)


def _figure(columns: int = 1, rows: int = 1) -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UserError("--plot needs matplotlib, which is an extra: pip install 'flax-transformer[plot]'") from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(6 * columns, 3.6 * rows), layout="constrained")


def _save(figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata=PICTURE if file.suffix.lower() == ".png" else None)
