"""Checks of what a model is called with, as far as known: under ``jax.jit`` shapes and dtypes, else values too."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from flax_transformer.errors import UserError


def check_ids(name: str, ids: Array, vocab_size: int) -> None:
    """Token ids must be whole numbers in ``[0, vocab_size)``, since JAX would clamp others silently.

    Args:
        name: what to call them in an error.
        ids: of shape (batch, length).
        vocab_size: rows of the token table.

    Raises:
        UserError: wrong shape, dtype or, outside of ``jax.jit``, values.
    """
    if ids.ndim != 2:
        raise UserError(f"{name}: expected token ids of shape (batch, length), got shape {ids.shape}")
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(f"{name}: expected integer token ids, got {ids.dtype}")
    if isinstance(ids, Tracer) or not ids.size:
        return
    lowest, highest = _extremes(ids)
    if lowest < 0 or highest >= vocab_size:
        raise UserError(f"{name}: expected token ids in [0, {vocab_size}), got {lowest} to {highest}")


def check_lengths(name: str, lengths: Array | None, ids: Array) -> None:
    """Lengths must be a whole number in ``[0, length]`` for each row of ``ids``.

    Args:
        name: what to call them in an error.
        lengths: of shape (batch,), or None where all tokens are real.
        ids: of shape (batch, length).

    Raises:
        UserError: wrong shape, dtype or, outside of ``jax.jit``, values.
    """
    if lengths is None:
        return
    batch, width = ids.shape
    if lengths.shape != (batch,):
        raise UserError(f"{name}: expected one length for each of {batch} rows, got shape {lengths.shape}")
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise UserError(f"{name}: expected integer lengths, got {lengths.dtype}")
    if isinstance(lengths, Tracer) or not lengths.size:
        return
    lowest, highest = _extremes(lengths)
    if lowest < 0 or highest > width:
        raise UserError(f"{name}: expected lengths in [0, {width}], the width of the rows, got {lowest} to {highest}")


def _extremes(values: Array) -> tuple[int, int]:
    """The least and the greatest. By numpy: within ``jax.jit`` a reduction of jax's is traced even of known values."""
    known = np.asarray(values)
    return int(known.min()), int(known.max())
