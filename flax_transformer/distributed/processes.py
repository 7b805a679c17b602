"""Several processes that train together: how they find each other, and what they do in step."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flax_transformer.errors import UserError


def to_host(tree: Any) -> Any:
    """The arrays of a tree in numpy, on every process, wherever their parts lie. Waits for them."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def join_processes(coordinator: str, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Make this one of several processes that train together; before jax is used for anything else.

    Args:
        coordinator: HOST:PORT of the first process; or ``auto``, which finds all three on TPU pods, Slurm, Open MPI
            and Kubernetes.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        UserError: they did not find each other.
    """
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"expected to join {num_processes or 'the other'} processes by {coordinator} ({reason})"
        ) from error


def is_first_process() -> bool:
    """Whether this is the process that writes down what all of them have done."""
    return jax.process_index() == 0


def wait_for_all(point: str) -> None:
    """Return once every process has come to this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(point)


def in_any_process(condition: bool) -> bool:
    """Whether a condition holds in some process; all of them have to ask."""
    return bool(np.any(to_host(np.asarray(condition))))
