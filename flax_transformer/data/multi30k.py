"""Multi30k, task 1 (Elliott et al., 2016): captions of images, English <-> German."""

from collections.abc import Sequence
from pathlib import Path

from flax_transformer.config import Multi30kData
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.files import find_file, read_lines
from flax_transformer.data.hub import load_hub
from flax_transformer.errors import UserError

HUB_ID = "bentrevett/multi30k"
_FILES = ("train", "val", "test_2016_flickr")


def load_multi30k(config: Multi30kData) -> Splits:
    """29,000 training, 1,014 validation and 1,000 test pairs, as published."""
    languages = config.direction.split("-")
    if config.path is None:
        splits = load_hub(HUB_ID, ("train", "validation", "test"), languages)
    else:
        splits = [_read_aligned(Path(config.path), name, languages) for name in _FILES]
    train, validation, test = (
        Examples([source.strip() for source, _ in pairs], [target.strip() for _, target in pairs]) for pairs in splits
    )
    return Splits(train, validation, test)


def _read_aligned(folder: Path, name: str, languages: Sequence[str]) -> list[tuple[str, str]]:
    paths = [find_file(folder, f"{name}.{language}") for language in languages]
    sources, targets = (read_lines(path) for path in paths)
    if not sources or len(sources) != len(targets):
        counts = f"{len(sources)} and {len(targets)}"
        raise UserError(f"{paths[0]} and {paths[1]}: expected as many lines in one as in the other, got {counts}")
    return list(zip(sources, targets, strict=True))
