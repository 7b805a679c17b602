"""Where the arrays of a training run lie: one mesh of devices, on one host or on many."""

import math
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from flax_transformer.config import MeshConfig, TrainConfig
from flax_transformer.distributed.mesh import MESH_AXES, partition
from flax_transformer.errors import UserError

Tree = TypeVar("Tree")


def create_mesh(config: MeshConfig, devices: list[Any] | None = None) -> Mesh:
    """The mesh (data, fsdp, model) over these devices, or over all that there are.

    Raises:
        UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    rest = config.fsdp * config.model
    data = config.data or max(1, len(devices) // rest)
    if data * rest != len(devices):
        raise UserError(
            f"mesh: expected data x fsdp x model to be the number of devices, {len(devices)}, "
            f"got {config.data or 'any'} x {config.fsdp} x {config.model}"
        )
    # As jax.make_mesh does, which on most TPUs refuses to cut the 4 x 4 chips of a slice into 2 times 8.
    placed = create_device_mesh((data, config.fsdp, config.model), devices, allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def check_batch(config: TrainConfig, mesh: Mesh) -> None:
    """Raises :class:`UserError` where a part of a batch cannot be cut into equal shares for the devices."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if config.batch.size % (shares * config.gradient_accumulation_steps):
        raise UserError(
            f"batch.size: expected a multiple of mesh.data x mesh.fsdp x gradient_accumulation_steps = "
            f"{mesh.shape['data']} x {mesh.shape['fsdp']} x {config.gradient_accumulation_steps}, "
            f"got {config.batch.size}"
        )


def _is_variable(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)


def state_shardings(state: Tree, mesh: Mesh) -> Tree:
    """The sharding of each array of a (perhaps abstract) state: parameters by their axes, the optimizer's like them."""

    def sharding(leaf: Any) -> Any:
        if not _is_variable(leaf):
            return NamedSharding(mesh, PartitionSpec())
        return leaf.replace(NamedSharding(mesh, partition(leaf.axes, leaf.shape, mesh.shape)))

    return jax.tree.map(sharding, state, is_leaf=_is_variable)


def on_mesh(abstract: Tree, mesh: Mesh) -> Tree:
    """An abstract state with its place on the mesh, as a checkpoint is restored to it."""

    def place(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, abstract, state_shardings(abstract, mesh))


def undivided(params: nnx.State, mesh: Mesh) -> list[str]:
    """The weights that an axis of the mesh should cut but does not, since their size does not divide."""
    names = []
    for path, param in nnx.to_flat_state(params):
        multiples = (math.prod(mesh.shape.values()),) * param.ndim
        if partition(param.axes, param.shape, mesh.shape) != partition(param.axes, multiples, mesh.shape):
            names.append(f"{'.'.join(map(str, path))} {tuple(param.shape)}")
    return names


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Of everything that has a row for each example: cut along data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def local_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " rows"]:
    """The rows of a batch that this process has to load: those of its own devices."""
    slices = row_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    rows = np.arange(batch_size)
    return np.unique(np.concatenate([rows[part] for part in slices if part is not None]))


def place_rows(batch: Tree, mesh: Mesh, batch_size: int) -> Tree:
    """A process's rows of a batch -> the batch, on all devices of all processes."""
    sharding = row_sharding(mesh)

    def place(rows: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:]))

    return jax.tree.map(place, batch)


def bytes_per_device(tree: Any) -> dict[str, int]:
    """Device -> bytes of these arrays that it holds, for the devices of this process."""
    held: dict[str, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[str(shard.device)] = held.get(str(shard.device), 0) + shard.data.nbytes
    return held
