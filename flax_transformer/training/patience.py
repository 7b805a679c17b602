"""Early stopping: whether the evaluations of a run still bring better scores."""

import math


class Patience:
    """Counts the evaluations since the last one with a better score than all before it.

    Args:
        limit: so many without a better score end the training; 0: none do.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._best, self._without = limit, -math.inf, 0

    def note(self, score: float) -> None:
        """The score of another evaluation; higher is better."""
        is_better = score > self._best
        self._best, self._without = max(score, self._best), 0 if is_better else self._without + 1

    @property
    def is_over(self) -> bool:
        return 0 < self._limit <= self._without
