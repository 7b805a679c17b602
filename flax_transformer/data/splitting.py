"""Parts of a dataset that share no text."""

from collections.abc import Sequence

import numpy as np

from flax_transformer.errors import UserError


def first_of_each(texts: Sequence[str], exclude: Sequence[str] = ()) -> list[int]:
    """Indices of the texts that have not come before and are not in ``exclude``."""
    seen = set(exclude)
    return [i for i, text in enumerate(texts) if not (text in seen or seen.add(text))]


def set_aside(texts: Sequence[str], sizes: Sequence[int], seed: int) -> list[list[int]]:
    """Indices of parts with ``sizes`` distinct texts, then of the rest, drawn at random; copies go together.

    Raises :class:`UserError` where nothing would be left for the rest.
    """
    numbers: dict[str, int] = {}
    text_of = np.array([numbers.setdefault(text, len(numbers)) for text in texts])
    distinct = len(numbers)
    if distinct <= sum(sizes):
        raise UserError(f"expected more than {sum(sizes)} distinct texts to split, got {distinct}")
    part_of = np.full(distinct, len(sizes))
    part_of[np.random.default_rng(seed).permutation(distinct)[: sum(sizes)]] = np.repeat(np.arange(len(sizes)), sizes)
    return [np.flatnonzero(part_of[text_of] == part).tolist() for part in range(len(sizes) + 1)]
