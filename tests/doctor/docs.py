"""Write what came of the planted bugs, and of the walk-through, into docs/DOCTOR.md.

python -m tests.doctor.matrix torch torch.jsonl
python -m tests.doctor.matrix flax flax.jsonl
python examples/doctor/walkthrough.py torch --json walk-torch.json
python examples/doctor/walkthrough.py flax --json walk-flax.json
python -m tests.doctor.docs .

The walk-through stays as it is where its files are not there.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.doctor.matrix import Outcome, read_outcomes, share_found, share_named

DOCS = Path(__file__).parents[2] / "docs"
# Columns of the table: related probes share one.
GROUPS = {
    "finite": ("finite", "constant", "probabilities", "lengths"),
    "same": ("determinism", "state"),
    "batch": ("batch",),
    "future": ("causality", "both directions"),
    "past": ("own token", "history"),
    "source": ("source",),
    "positions": ("target positions", "source positions", "position ids"),
    "order": ("order", "embedding ratio"),
    "padding": ("padding",),
    "masks": ("masks", "weights"),
    "wiring": ("wiring", "structure"),
    "scale": ("scale",),
    "gradients": ("gradients", "gradient depth", "initial loss"),
    "loss": ("loss shift", "end token", "loss padding"),
    "generation": ("generation", "cached step"),
    "length": ("length",),
}


def bug_tables(folder: Path) -> Iterator[str]:
    for framework, words in (("torch", "PyTorch"), ("flax", "Flax NNX")):
        outcomes = read_outcomes(folder / f"{framework}.jsonl")
        names = list(dict.fromkeys(o.bug for o in outcomes))
        planted = len({(o.bug, o.kind) for o in outcomes})
        seeds = len({o.seed for o in outcomes})
        exact = share_found([o for o in outcomes if o.exact])
        yield (
            f"**{words}.** {len(names)} bugs, {planted} with the kinds of model that they are planted in, "
            f"{len(outcomes)} examinations in {seeds} seed{'s' * (seeds > 1)}: {share_found(outcomes):.1%} ill or "
            f"warned in all, of the exact ones {exact:.1%}; {share_named(outcomes):.1%} named by the first line of the "
            "diagnosis.\n"
        )
        yield f"| bug | kinds | named | {' | '.join(GROUPS)} |"
        yield "| --- | --- | --- |" + " --- |" * len(GROUPS)
        for name in names:
            of_bug = [o for o in outcomes if o.bug == name]
            kinds = ", ".join(dict.fromkeys(o.kind for o in of_bug))
            causes = ", ".join(dict.fromkeys(o.first.replace("-", " ") for o in of_bug))
            cells = " | ".join(_cell(of_bug, probes) for probes in GROUPS.values())
            yield f"| {name} | {kinds} | {causes} | {cells} |"
        yield ""


def _cell(outcomes: Sequence[Outcome], probes: Sequence[str]) -> str:
    ill = [any(probe in probes for probe in outcome.ill) for outcome in outcomes]
    warned = [any(probe in probes for probe in outcome.warned) for outcome in outcomes]
    if any(ill):
        return "x" if all(ill) else "(x)"
    return "w" if all(warned) else "(w)" if any(warned) else ""


def walkthrough(folder: Path) -> Iterator[str]:
    paths = {name: _read_path(folder / f"walk-{name}.json") for name in ("torch", "flax")}
    yield "| framework | what the doctor says first | loss after training | texts right |"
    yield "| --- | --- | --- | --- |"
    for framework, path in paths.items():
        for step in path:
            yield f"| {framework} | {step['said']} | {np.mean(step['losses'][-20:]):.3f} | {step['right']:.0%} |"
    _draw(paths, DOCS / "images" / "doctor-walkthrough.png")
    yield "\n![Loss curves before each fix and after the last](images/doctor-walkthrough.png)"


def _read_path(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))


def _draw(paths: dict[str, list[dict[str, Any]]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=110)
    for axis, (framework, path) in zip(figure.subplots(1, 2, sharey=True)[: len(paths)], paths.items(), strict=True):
        for step in path:
            smooth = np.convolve(step["losses"], np.ones(20) / 20, mode="valid")
            axis.plot(smooth, label=f"{step['cause'].replace('-', ' ') or 'healthy'}: {step['right']:.0%} right")
        axis.set_title({"torch": "PyTorch", "flax": "Flax NNX"}[framework])
        axis.set_xlabel("step")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("training loss")
    figure.savefig(file)


def replace_between(text: str, name: str, lines: Iterator[str]) -> str:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return before + begin + "\n".join(lines).rstrip() + "\n" + end + after


def main() -> None:
    folder, page = Path(sys.argv[1]), DOCS / "DOCTOR.md"
    text = page.read_text(encoding="utf-8")
    if (folder / "walk-torch.json").exists():
        text = replace_between(text, "walkthrough", walkthrough(folder))
    page.write_text(replace_between(text, "bugs", bug_tables(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
