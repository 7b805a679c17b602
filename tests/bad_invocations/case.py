"""A command that cannot be right."""

from dataclasses import dataclass, field

TINY = [
    *("--model.d-model", "8", "--model.num-heads", "2", "--model.d-ff", "12"),
    *("--model.num-encoder-layers", "1", "--model.num-decoder-layers", "1", "--epochs", "1"),
    *("--tokenizer.vocab-size", "300", "--batch.buckets", "1", "--batch.size", "8", "--batch.max-source-length", "16"),
]
TRAIN = ("train", "classification", "--data.path", "reviews.csv", "--run", "new")


@dataclass(frozen=True)
class Case:
    """A command, to be run in the folder that :func:`make_files` fills.

    ``apart`` runs it in a process of its own. ``told`` is for texts that have no prediction: the command succeeds, and
    says so.
    """

    group: str
    arguments: tuple[str, ...]
    stdin: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)
    apart: bool = False
    told: bool = False
