"""Checks of what a model is called with. Values are looked at on CPU only, where that costs no synchronization."""

import torch
from torch import Tensor

from flax_transformer.errors import UserError


def check_ids(name: str, ids: Tensor, vocab_size: int) -> None:
    """Token ids must be whole numbers in ``[0, vocab_size)``.

    Args:
        name: what to call them in an error.
        ids: of shape (batch, length).
        vocab_size: rows of the token table.

    Raises:
        UserError: wrong shape, dtype or values.
    """
    if ids.ndim != 2:
        raise UserError(f"{name}: expected token ids of shape (batch, length), got shape {tuple(ids.shape)}")
    if not _is_integer(ids):
        raise UserError(f"{name}: expected integer token ids, got {ids.dtype}")
    if not _are_values_known(ids):
        return
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= vocab_size:
        raise UserError(f"{name}: expected token ids in [0, {vocab_size}), got {lowest} to {highest}")


def check_lengths(name: str, lengths: Tensor | None, ids: Tensor) -> None:
    """Lengths must be a whole number in ``[0, length]`` for each row of ``ids``.

    Args:
        name: what to call them in an error.
        lengths: of shape (batch,), or None where all tokens are real.
        ids: of shape (batch, length).

    Raises:
        UserError: wrong shape, dtype or values.
    """
    if lengths is None:
        return
    batch, width = ids.shape
    if lengths.shape != (batch,):
        raise UserError(f"{name}: expected one length for each of {batch} rows, got shape {tuple(lengths.shape)}")
    if not _is_integer(lengths):
        raise UserError(f"{name}: expected integer lengths, got {lengths.dtype}")
    if not _are_values_known(lengths):
        return
    lowest, highest = int(lengths.min()), int(lengths.max())
    if lowest < 0 or highest > width:
        raise UserError(f"{name}: expected lengths in [0, {width}], the width of the rows, got {lowest} to {highest}")


def _is_integer(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _are_values_known(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.numel() > 0 and not torch.compiler.is_compiling()
