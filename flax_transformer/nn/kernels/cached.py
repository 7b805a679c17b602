"""Attention over a cache that is not full yet: work follows the tokens that are there, not the room for more."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flax_transformer.distributed.mesh import target_platform
from flax_transformer.intermediates import is_recording
from flax_transformer.nn.kernels.distances import DistanceBias
from flax_transformer.nn.masks import AttentionMask

_LEAST = 64  # keys of a part
# Where it was measured. A GPU's host would have to wait for the length at each layer of each token.
_PLATFORM = "cpu"


def attend_to_filled(
    attend: Callable[[Array, Array, Array, AttentionMask], Array],
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    mask: AttentionMask,
) -> Float[Array, "batch queries heads head_dim"]:
    """``attend`` over the part of a cache that holds all the keys that its queries may see.

    Under a causal mask whose offset is known only when the program runs, keys behind the last query are room for tokens
    to come. The part is all, a half, a quarter, ... of the keys, and at least 64; elsewhere it is all.
    """
    parts = _parts(key.shape[1])
    is_cache = mask.causal and not isinstance(mask.query_offset, int)
    if not is_cache or len(parts) == 1 or is_recording() or target_platform() != _PLATFORM:
        return attend(query, key, value, mask)
    # Heads first, as the cache has them: a branch would else be given a copy of all of it with the axes swapped.
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)

    def attend_to(keys: int) -> Array:
        first = [jnp.swapaxes(whole[:, :, :keys], 1, 2) for whole in (key, value)]
        return attend(query, first[0], first[1], _mask_of(mask, query.shape[1], keys))

    filled = mask.query_offset + query.shape[1]
    branches = [functools.partial(attend_to, keys) for keys in parts]
    return jax.lax.switch(jnp.searchsorted(jnp.asarray(parts), filled), branches)


def _parts(keys: int) -> list[int]:
    """All keys, half of them, and so on, in ascending order."""
    parts = [keys]
    while parts[0] >= 2 * _LEAST:
        parts.insert(0, -(-parts[0] // 2))
    return parts


def _mask_of(mask: AttentionMask, queries: int, keys: int) -> AttentionMask:
    """The mask of the first ``keys`` keys."""

    def first(part: Array | None) -> Array | None:
        return part if part is None or part.shape[-1] == 1 else part[..., :keys]

    if isinstance(mask.bias, DistanceBias):
        bias = DistanceBias(mask.bias.values[:, : queries + keys - 1])
    else:
        bias = first(mask.bias)
    return dataclasses.replace(mask, dense=first(mask.dense), bias=bias, key_segments=first(mask.key_segments))
