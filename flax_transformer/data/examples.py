"""What every dataset is turned into: source texts, or pairs of them, with target texts or class ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flax_transformer.config import Architecture

# What a model reads: a text, or a pair of texts, such as premise and hypothesis.
Source = str | tuple[str, str]


def texts_of(source: Source) -> tuple[str, ...]:
    """The text, or both texts of a pair."""
    return (source,) if isinstance(source, str) else source


def source_of(texts: Sequence[str]) -> Source:
    """The inverse of :func:`texts_of`."""
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


@dataclass(frozen=True)
class Examples:
    """``sources[i]`` is a text, or of a classifier a pair of texts. ``targets[i]`` belongs to it: a text (seq2seq), a
    class id (classifier), a tuple of the truth of each label (multilabel), or None (masked tokens).

    ``places[i]``, file and line, is what a message about the example names; empty where there are no files.
    ``groups[i]`` is the group that the example is scored in: the empty name is that of the main scores, and the scores
    of any other group are given beside them, as ``group/score``. Without groups all are scored together.

    Raises ``ValueError`` where they differ in number.
    """

    sources: Sequence[Any]
    targets: Sequence[Any]
    places: Sequence[str] = field(default=(), compare=False, repr=False)
    groups: Sequence[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"expected a target for each source, got {len(self.sources)} and {len(self.targets)}")
        for name in ("places", "groups"):
            given = len(getattr(self, name))
            if given and given != len(self.sources):
                raise ValueError(f"expected one of {name} for each source, got {len(self.sources)} and {given}")

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, indices: Iterable[int]) -> "Examples":
        """The examples of these indices, in their order."""
        chosen = list(indices)
        places, groups = ([rows[i] for i in chosen] if rows else () for rows in (self.places, self.groups))
        return Examples([self.sources[i] for i in chosen], [self.targets[i] for i in chosen], places, groups)

    @classmethod
    def unanswered(cls, sources: Sequence[Source], architecture: Architecture) -> "Examples":
        """Texts to predict for: their targets are empty texts, or class 0."""
        return cls(sources, [""] * len(sources) if architecture == "seq2seq" else [0] * len(sources))


@dataclass(frozen=True)
class Splits:
    """A dataset, and the files it was read from. ``classes`` names the class ids in order; without any it is empty."""

    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
