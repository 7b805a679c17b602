"""Datasets of the Hugging Face hub, for those who give no file of their own."""

from collections.abc import Sequence
from typing import Any

from flax_transformer.errors import UserError


def load_hub(name: str, splits: Sequence[str], columns: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    """The rows of each split. Downloaded once, then kept in the cache of the ``datasets`` library.

    Raises :class:`UserError` where the hub cannot be reached.
    """
    import datasets

    try:
        dataset: Any = datasets.load_dataset(name)
    except OSError as error:
        raise UserError(
            f"{name}: expected to load it from the hub ({error}); give a downloaded copy with --data.path"
        ) from error
    return [list(zip(*(dataset[split][column] for column in columns), strict=True)) for split in splits]
