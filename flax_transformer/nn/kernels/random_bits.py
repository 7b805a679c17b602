"""The random masks of dropout, drawn by the fastest generator of each platform.

On CPU ``jax.random`` lowers to a rolled loop with many passes over memory, which made dropout a third of a training
step. There the same cipher, Threefry-2x32 with all 20 rounds (Salmon et al., SC 2011), is written out so that XLA
fuses it, together with the comparison, into one kernel. The choice is made while lowering, so a step compiled on a CPU
machine for a TPU holds the TPU's generator.

XLA for TPU would fuse the cipher too, into each operation that reads a mask of attention weights: six times for one
attention with its gradient, which would then take three times as long to compile. There such a mask is drawn once and
written out, a byte for each weight.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_AXES_OF_WEIGHTS = 4  # (batch, heads, queries, keys)


def _rotate_left(x: UInt32[Array, "*shape"], by: int) -> UInt32[Array, "*shape"]:
    return (x << jnp.uint32(by)) | (x >> jnp.uint32(32 - by))


def threefry2x32(
    key: UInt32[Array, "2"], x0: UInt32[Array, "*shape"], x1: UInt32[Array, "*shape"]
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Encrypt the counters ``(x0, x1)`` under ``key``: Threefry-2x32-20 (Salmon et al., section 4.2)."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x0, x1 = x0 + schedule[0], x1 + schedule[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = _rotate_left(x1, rotation) ^ x0
        x0 = x0 + schedule[(block + 1) % 3]
        x1 = x1 + schedule[(block + 2) % 3] + jnp.uint32(block + 1)
    return x0, x1


def key_words(key: PRNGKeyArray) -> UInt32[Array, "2"]:
    """The two words that Threefry takes, of a key of any generator."""
    words = jax.random.key_data(key).reshape(-1)
    return jnp.stack([words[0], words[-1]])


def keep_at(
    words: UInt32[Array, "2"], drop_rate: float, rows: UInt32[Array, "*shape"], columns: UInt32[Array, "*shape"]
) -> Bool[Array, "*shape"]:
    """What a mask drawn from ``words`` says of the elements of these rows and columns, wherever they are asked for."""
    bits, _ = threefry2x32(words, rows, columns)
    return bits >= jnp.uint32(round(drop_rate * 2**32))


def _fused_keep_mask(key: PRNGKeyArray, drop_rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    # The row and the column of an element are its counter: no mask of a realistic size overflows 32 bits of either.
    table = (math.prod(shape[:-1]), shape[-1])
    rows = jax.lax.broadcasted_iota(jnp.uint32, table, 0)
    columns = jax.lax.broadcasted_iota(jnp.uint32, table, 1)
    return keep_at(key_words(key), drop_rate, rows, columns).reshape(shape)


def drawn_once(keep: Bool[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """``keep``, which a TPU writes out; otherwise XLA would draw its bits again in each operation that reads it."""
    return jax.lax.platform_dependent(keep, tpu=jax.lax.optimization_barrier, default=lambda keep: keep)


# Jitted on its own, so that the masks of one shape in all layers are traced once.
@functools.partial(jax.jit, static_argnums=(1, 2))
def keep_mask(key: PRNGKeyArray, drop_rate: float, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """True with probability ``1 - drop_rate``, independently for each element; a pure function of ``key``."""
    keep = jax.lax.platform_dependent(
        key,
        cpu=lambda key: _fused_keep_mask(key, drop_rate, shape),
        default=lambda key: jax.random.bernoulli(key, 1.0 - drop_rate, shape),
    )
    return drawn_once(keep) if len(shape) == _AXES_OF_WEIGHTS else keep
