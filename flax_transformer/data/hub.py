"""Datasets of the Hugging Face hub, for those who give no file of their own."""

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from flax_transformer.errors import UserError

_SECONDS = 5  # to wait for a first answer


def load_hub(name: str, splits: Sequence[str], columns: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    """The rows of each split. Downloaded once, then kept in the cache of the ``datasets`` library.

    Raises :class:`UserError` where the hub cannot be reached.
    """
    if not _is_reachable():
        os.environ["HF_HUB_OFFLINE"] = "1"  # else the library tries again for the better part of a minute
    import datasets

    try:
        dataset: Any = datasets.load_dataset(name)
    except OSError as error:
        raise UserError(
            f"{name}: expected to load it from the hub ({error}); give a downloaded copy with --data.path"
        ) from error
    return [list(zip(*(dataset[split][column] for column in columns), strict=True)) for split in splits]


def _is_reachable() -> bool:
    """Whether the hub answers at all, whatever it says."""
    hub = urllib.request.Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
    try:
        urllib.request.urlopen(hub, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
