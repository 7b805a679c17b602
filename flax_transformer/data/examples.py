"""What every dataset is turned into: source texts with target texts or class ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flax_transformer.config import Architecture


@dataclass(frozen=True)
class Examples:
    """``targets[i]`` belongs to ``sources[i]``: a text (seq2seq) or a class id (classifier).

    ``places[i]``, file and line, is what a message about the example names; empty where there are no files.

    Raises ``ValueError`` where they differ in number.
    """

    sources: Sequence[str]
    targets: Sequence[Any]
    places: Sequence[str] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise ValueError(f"expected a target for each source, got {len(self.sources)} and {len(self.targets)}")
        if self.places and len(self.places) != len(self.sources):
            raise ValueError(f"expected a place for each source, got {len(self.sources)} and {len(self.places)}")

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, indices: Iterable[int]) -> "Examples":
        """The examples of these indices, in their order."""
        chosen = list(indices)
        places = [self.places[i] for i in chosen] if self.places else ()
        return Examples([self.sources[i] for i in chosen], [self.targets[i] for i in chosen], places)

    @classmethod
    def unanswered(cls, sources: Sequence[str], architecture: Architecture) -> "Examples":
        """Texts to predict for: their targets are empty texts, or class 0."""
        return cls(sources, [""] * len(sources) if architecture == "seq2seq" else [0] * len(sources))


@dataclass(frozen=True)
class Splits:
    """A dataset, and the files it was read from. ``classes`` names the class ids in order; it is empty for seq2seq."""

    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
