"""Examine every planted bug, in every kind of model that it is planted in, and keep what was said."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from flax_transformer import doctor
from tests.doctor.planting import Bug, load

_PIECES = {"loss": ("loss",), "generate": ("begin", "cache", "generate"), "max_length": ("overrun",)}


@dataclass(frozen=True)
class Outcome:
    """One examination of one bug.

    Args:
        first: the cause that the diagnosis names first.
        named: whether that is what was planted.
        ill, warned: the probes that called it ill, and those that warned.
    """

    bug: str
    kind: str
    seed: int
    verdict: str
    first: str
    named: bool
    exact: bool
    ill: tuple[str, ...]
    warned: tuple[str, ...]

    @property
    def found(self) -> bool:
        return self.verdict in ("ill", "warning")


def bugs_of(framework: str) -> Sequence[Bug]:
    """Of "torch" or "flax"."""
    return import_module(f"tests.doctor.{framework}_bugs").BUGS


def examine_bug(framework: str, bug: Bug, kind: str, seed: int) -> Outcome:
    report = report_on(framework, bug, kind, seed)
    verdict = "ill" if report.is_ill else "warning" if report.has_warnings else "healthy"
    first = report.diagnoses[0].result.cause if report.diagnoses else ""
    ill, warned = (tuple(r.probe for r in report.results if r.verdict == v) for v in ("ill", "warning"))
    return Outcome(bug.name, kind, seed, verdict, first, first in bug.causes.split(), bug.exact, ill, warned)


def report_on(framework: str, bug: Bug | None, kind: str, seed: int, **options: object) -> doctor.Report:
    """Of the clean model of this kind, with the bug planted if there is one."""
    module = load(f"{framework}_models.py", bug)
    config = module.Config(**(dict(bug.options) if bug is not None else {}), **options)
    given = module.build(kind, config, seed)
    if framework == "flax" and bug is not None:  # each piece costs seconds of compilation
        given = {name: value for name, value in given.items() if _is_wanted(name, bug)}
    return doctor.examine(**given)


def _is_wanted(name: str, bug: Bug) -> bool:
    return name not in _PIECES or any(cause.startswith(_PIECES[name]) for cause in bug.causes.split())


def share_found(outcomes: Sequence[Outcome]) -> float:
    """Of the bugs, in each kind of model that they are planted in: those called ill or warned of in all seeds."""
    return _share(outcomes, lambda outcome: outcome.found)


def share_named(outcomes: Sequence[Outcome]) -> float:
    """Those whose diagnosis names what was planted first, in all seeds."""
    return _share(outcomes, lambda outcome: outcome.found and outcome.named)


def _share(outcomes: Sequence[Outcome], is_right: Callable[[Outcome], bool]) -> float:
    planted: dict[tuple[str, str], bool] = {}
    for outcome in outcomes:
        key = (outcome.bug, outcome.kind)
        planted[key] = planted.get(key, True) and is_right(outcome)
    return sum(planted.values()) / len(planted)


def read_outcomes(file: Path) -> list[Outcome]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def _cases(framework: str, seeds: int) -> Iterator[tuple[Bug, str, int]]:
    for bug in bugs_of(framework):
        for kind in bug.kinds.split():
            for seed in range(seeds):
                yield bug, kind, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=["torch", "flax"])
    parser.add_argument("file", type=Path, help="JSON lines, one a bug, kind and seed; what is there is not run again")
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    done = {(o.bug, o.kind, o.seed) for o in read_outcomes(flags.file)}
    with flags.file.open("a", encoding="utf-8") as file:
        for bug, kind, seed in _cases(flags.framework, flags.seeds):
            if (bug.name, kind, seed) in done:
                continue
            outcome = examine_bug(flags.framework, bug, kind, seed)
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            if not (outcome.found and outcome.named):
                print(f"{bug.name}, {kind}, seed {seed}: {outcome.verdict}, {outcome.first} ({bug.causes})", flush=True)


if __name__ == "__main__":
    main()
