"""Examine every planted bug, in every kind of model that it is planted in."""

import sys
from dataclasses import dataclass

from flax_transformer import doctor
from tests.doctor.planting import Bug, load


@dataclass(frozen=True)
class Outcome:
    """``first`` is the cause that the diagnosis names first; ``probes`` are those that found something."""

    bug: Bug
    kind: str
    seed: int
    verdict: str
    first: str
    probes: tuple[str, ...]
    text: str

    @property
    def found(self) -> bool:
        return self.verdict in ("ill", "warning")

    @property
    def named(self) -> bool:
        return self.first in self.bug.causes.split()


_PIECES = {"loss": ("loss",), "generate": ("begin", "cache", "generate"), "max_length": ("overrun",)}


def examine_bug(file: str, bug: Bug, kind: str, seed: int) -> Outcome:
    module = load(file, bug)
    given = module.build(kind, module.Config(**dict(bug.options)), seed)
    if file == "flax_models.py":  # each piece costs seconds of compilation
        given = {name: value for name, value in given.items() if _is_wanted(name, bug)}
    try:
        report = doctor.examine(**given)
    except doctor.NotExaminable as error:
        return Outcome(bug, kind, seed, "not examinable", "", (), str(error))
    verdict = "ill" if report.is_ill else "warning" if report.has_warnings else "healthy"
    first = report.diagnoses[0].result.cause if report.diagnoses else ""
    probes = tuple(r.probe for r in report.results if r.verdict in ("ill", "warning", "advice"))
    return Outcome(bug, kind, seed, verdict, first, probes, str(report))


def _is_wanted(name: str, bug: Bug) -> bool:
    return name not in _PIECES or any(cause.startswith(_PIECES[name]) for cause in bug.causes.split())


def main() -> None:
    """``python -m tests.doctor.matrix torch [seed] [part of a name]``"""
    framework, seed, part = (*sys.argv[1:], *("torch", "0", "")[len(sys.argv) - 1 :])
    bugs = __import__(f"tests.doctor.{framework}_bugs", fromlist=["BUGS"]).BUGS
    for bug in bugs:
        for kind in bug.kinds.split() if part in bug.name else ():
            outcome = examine_bug(f"{framework}_models.py", bug, kind, int(seed))
            mark = "ok" if outcome.found and outcome.named else "found" if outcome.found else "MISSED"
            print(f"{mark:7} {kind:8} {bug.name:45} {outcome.verdict:12} {outcome.first:25} ({bug.causes})", flush=True)
            if part:
                print(outcome.text)


if __name__ == "__main__":
    main()
