"""One thing that can be wrong with a Transformer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One row of the debug guide.

    Args:
        explains: keys of causes that this one brings about; findings of these are folded under it.
    """

    key: str
    title: str
    symptom: str
    reason: str
    fix: str
    explains: frozenset[str] = frozenset()


def cause(key: str, title: str, symptom: str, reason: str, fix: str, explains: str = "") -> Cause:
    return Cause(key, title, symptom, reason, fix, frozenset(explains.split()))
