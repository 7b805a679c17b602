"""Masks are equal bit for bit, and mean what they say."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from twins import ROWS, SOURCE, SOURCE_LENGTHS, TARGET, same_bits, to_torch

import flax_transformer.nn.masks as flax_masks
import torch_reference.nn.masks as torch_masks

QUERIES, KEYS, HEADS = TARGET, SOURCE, 3
DENSE = np.random.default_rng(0).random((ROWS, HEADS, QUERIES, KEYS)) < 0.7


def allowed(row: int, head: int, query: int, key: int, lengths: bool, causal: bool, offset: int, dense: bool) -> bool:
    """The definition, for one pair of a query and a key."""
    return (
        (not lengths or key < SOURCE_LENGTHS[row])
        and (not causal or key <= offset + query)
        and (not dense or bool(DENSE[row, head, query, key]))
    )


def test_padding_masks_are_true_at_real_tokens() -> None:
    expected = np.array([[position < length for position in range(SOURCE)] for length in SOURCE_LENGTHS])
    assert same_bits(flax_masks.padding_mask(jnp.asarray(SOURCE_LENGTHS), SOURCE), expected)
    assert same_bits(torch_masks.padding_mask(to_torch(SOURCE_LENGTHS), SOURCE), expected)
    one_too_many = flax_masks.padding_mask(jnp.asarray(SOURCE_LENGTHS + 1), SOURCE)
    assert not same_bits(one_too_many, expected)


@pytest.mark.parametrize("offset", [0, 4])
def test_causal_masks_are_true_up_to_the_query(offset: int) -> None:
    expected = np.array([[key <= offset + query for key in range(KEYS)] for query in range(QUERIES)])
    assert same_bits(flax_masks.causal_mask(QUERIES, KEYS, offset), expected)
    assert same_bits(flax_masks.causal_mask(QUERIES, KEYS, jnp.asarray(offset)), expected)
    assert same_bits(torch_masks.causal_mask(QUERIES, KEYS, offset), expected)
    # torch, JAX and Flax align their own causal masks like this, which is wrong behind a cache.
    top_left = np.tril(np.ones((QUERIES, KEYS), bool))
    assert same_bits(top_left, expected) == (offset == 0)


@pytest.mark.parametrize(("lengths", "causal", "dense"), list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("offset", [0, 4])
def test_a_mask_is_the_conjunction_of_its_parts(lengths: bool, causal: bool, offset: int, dense: bool) -> None:
    flax_mask = flax_masks.AttentionMask(
        jnp.asarray(SOURCE_LENGTHS) if lengths else None, causal, offset, jnp.asarray(DENSE) if dense else None
    ).materialize(QUERIES, KEYS)
    torch_mask = torch_masks.AttentionMask(
        to_torch(SOURCE_LENGTHS) if lengths else None, causal, offset, to_torch(DENSE) if dense else None
    ).materialize(QUERIES, KEYS)
    if not (lengths or causal or dense):
        assert flax_mask is None
        assert torch_mask is None
        return
    assert flax_mask is not None
    assert same_bits(flax_mask, torch_mask)
    shape = (ROWS, HEADS, QUERIES, KEYS)
    expected = np.array([allowed(*index, lengths, causal, offset, dense) for index in np.ndindex(shape)])
    assert same_bits(np.broadcast_to(flax_mask, shape).copy(), expected.reshape(shape))


def test_causality_is_structure_and_the_rest_are_leaves() -> None:
    """A compiled function is compiled again for another ``causal``, and not for other lengths or another offset."""
    traces = []

    @jax.jit
    def reachable(mask: flax_masks.AttentionMask) -> jax.Array | None:
        traces.append(mask.causal)
        return mask.materialize(QUERIES, KEYS)

    mask = flax_masks.AttentionMask(jnp.asarray(SOURCE_LENGTHS), query_offset=jnp.asarray(4))
    reachable(mask)
    reachable(dataclasses.replace(mask, key_lengths=mask.key_lengths + 1, query_offset=jnp.asarray(2)))
    assert traces == [False]
    causal = reachable(dataclasses.replace(mask, causal=True))
    assert traces == [False, True]
    assert same_bits(causal, dataclasses.replace(mask, causal=True).materialize(QUERIES, KEYS))


def test_named_dimensions_are_checked_in_these_tests() -> None:
    """Without the import hook of conftest.py no annotation of the twins would be checked anywhere."""
    with pytest.raises(jaxtyping.TypeCheckError):
        flax_masks.padding_mask(jnp.zeros((ROWS, 1), jnp.int32), SOURCE)
    with pytest.raises(jaxtyping.TypeCheckError):
        torch_masks.padding_mask(to_torch(np.zeros((ROWS, 1), np.int32)), SOURCE)
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.zeros((ROWS, SOURCE)) + jnp.zeros(SOURCE)
