"""Batches for the step: made ahead of need by a thread, and on the device when they are asked for."""

from collections.abc import Callable, Iterator, Sequence

import grain
import jax

from flax_transformer.data.batches import Batch

_AHEAD = 4  # batches: enough to hide the making of one, little enough to hold on the device


def prefetch(
    batches: Sequence[Batch], first_step: int = 0, place: Callable[[Batch], Batch] = jax.device_put
) -> Iterator[Batch]:
    """The batches from ``first_step`` on, as device arrays.

    ``batches`` is indexed by step, so the step is the whole state of the input: a run that resumes at a step sees what
    the uninterrupted one would have seen.

    Args:
        place: puts a batch onto the device, or a process's rows of one onto the devices of a mesh.
    """
    if first_step >= len(batches):
        return iter(())
    placed = grain.MapDataset.source(batches)[first_step:].map(place)
    return iter(placed.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)))
