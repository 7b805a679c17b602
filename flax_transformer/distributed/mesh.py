"""Which axes of an array lie along which axes of the device mesh: one table, for weights and activations alike.

A weight carries the names of its axes (``nnx.Param(..., axes=("embed", "heads"))``); the optimizer's state is made of
the same variables and carries them too. XLA derives the rest of a partitioned program from that and from the few
activations that :func:`constrain` pins (GSPMD: Xu et al., 2021).
"""

import math
from collections.abc import Mapping

import jax
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array

Axes = tuple[str | None, ...]

MESH_AXES = ("data", "fsdp", "model")
# Axis of an array -> the axes of the mesh that it is cut along; any other axis is whole on every device.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),  # d_model of a weight: gathered where it is used, as in ZeRO-3 (Rajbhandari et al., 2020)
    "heads": ("model",),  # these three are Megatron's cuts (Shoeybi et al., 2019)
    "hidden": ("model",),
    "vocab": ("model",),
}


def partition(axes: Axes, shape: tuple[int, ...], mesh: Mapping[str, int]) -> PartitionSpec:
    """How an array is cut. What does not divide stays whole, and so do vectors along fsdp, being small.

    Args:
        axes: the names of the last axes, None for one without a rule. One before them is that of stacked layers.
        mesh: sizes of the mesh's axes.
    """
    stacked = len(shape) - len(axes)

    def along(axis: str | None, size: int) -> tuple[str, ...] | None:
        cut = tuple(name for name in RULES.get(axis or "", ()) if mesh[name] > 1)
        if axis == "embed" and len(axes) == 1:
            return None
        return cut if cut and size % math.prod(mesh[name] for name in cut) == 0 else None

    return PartitionSpec(*[None] * stacked, *map(along, axes, shape[stacked:]))


def current_mesh() -> AbstractMesh | None:
    """The mesh that the program being traced is for (``jax.set_mesh``); None if it is for one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.size <= 1 else mesh


def target_platform() -> str:
    """The platform that the program being traced is for: that of the mesh, which need not be attached, or jax's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def constrain(x: Array, *axes: str | None) -> Array:
    """Pin how an activation is cut; on one device, ``x`` itself."""
    mesh = current_mesh()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, partition(axes, x.shape, mesh.shape))
