"""The batches of a run: padded rows in buckets, or packed rows of one shape."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from flax_transformer.config import BatchConfig
from flax_transformer.data.batches import Batch, Encoded, Shape, TrainingBatches, chunks
from flax_transformer.data.masking import Key
from flax_transformer.data.packing import NOTHING, pack


def training_batches(
    encoded: Encoded, config: BatchConfig, *, epochs: int, seed: int, rows: Int[np.ndarray, " rows"] | None = None
) -> TrainingBatches:
    """Batches as ``config.packing`` asks for them. Arguments as of :class:`TrainingBatches`."""
    kind = PackedBatches if config.packing else TrainingBatches
    return kind(encoded, config, epochs=epochs, seed=seed, rows=rows)


class PackedBatches(TrainingBatches):
    """Batches of packed rows, all of one shape. Every example is in each epoch exactly once, as in others.

    The rows are packed once, and so an epoch always has as many. In each epoch the examples of equal lengths change
    places and the rows their order.
    """

    def _arrange(self) -> int:
        sources = self.encoded.sources.lengths
        self._shape = Shape(self._config.max_source_length, 0)
        lengths = sources[:, None]
        if self.encoded.target_lengths is not None:
            self._shape = Shape(self._config.max_source_length, self._config.max_target_length)
            lengths = np.stack([sources, self.encoded.target_lengths], axis=1)
        self._packing = pack(lengths, self._shape[: lengths.shape[1]])
        return -(-len(self._packing.places) // self._config.size)

    def _shuffled(self, rng: np.random.Generator) -> list[tuple[Shape, np.ndarray]]:
        return [(self._shape, indices) for indices in chunks(self._packing.shuffled(rng), self._config.size)]

    def _make(
        self, encoded: Encoded, indices: Int[np.ndarray, "rows segments"], shape: Shape, keys: Sequence[Key] | None
    ) -> Batch:
        return encoded.packed(indices, shape, keys)

    def fillers(self) -> list[Batch]:
        nothing = np.full((self._config.size, self._packing.places.shape[1]), NOTHING)
        return [self._make(self.encoded, nothing, self._shape, None)]
