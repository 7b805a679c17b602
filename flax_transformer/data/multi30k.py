"""Multi30k, task 1 (Elliott et al., 2016): captions of images, English <-> German."""

import itertools
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
    files: list[tuple[Path, Path]] = []
    if config.path is None:
        splits = load_hub(HUB_ID, ("train", "validation", "test"), languages)
    else:
        source, target = languages
        folder = Path(config.path)
        files = [(find_file(folder, f"{name}.{source}"), find_file(folder, f"{name}.{target}")) for name in _FILES]
        splits = [_read_aligned(*pair) for pair in files]
    train, validation, test = (
        Examples([source.strip() for source, _ in pairs], [target.strip() for _, target in pairs]) for pairs in splits
    )
    return Splits(train, validation, test, files=tuple(itertools.chain.from_iterable(files)))


def _read_aligned(source: Path, target: Path) -> list[tuple[str, str]]:
    sources, targets = read_lines(source), read_lines(target)
    if not sources or len(sources) != len(targets):
        counts = f"{len(sources)} and {len(targets)}"
        raise UserError(f"{source} and {target}: expected as many lines in one as in the other, got {counts}")
    return list(zip(sources, targets, strict=True))
