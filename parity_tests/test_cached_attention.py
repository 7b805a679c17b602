"""Attention over the filled part of a cache is attention over all of it, and both twins generate the same with it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from generators import assert_same, draw_source, make_twins, run_flax, run_torch, small
from mutation import mutated

from flax_transformer.config import GenerationConfig
from flax_transformer.nn.attention import plain_attention
from flax_transformer.nn.kernels import cached
from flax_transformer.nn.kernels.distances import DistanceBias
from flax_transformer.nn.masks import AttentionMask

ROWS, HEADS, HEAD_DIM, KEYS = 3, 2, 5, 300  # parts of 75, 150 and 300 keys
MASKS: dict[str, Callable[[np.random.Generator, int], dict[str, Any]]] = {
    "causal": lambda rng, queries: {},
    "key lengths": lambda rng, queries: {"key_lengths": jnp.array([300, 80, 1])},
    "dense": lambda rng, queries: {"dense": jnp.asarray(rng.random((ROWS, 1, queries, KEYS)) < 0.7)},
    "dense for all keys": lambda rng, queries: {"dense": jnp.array([True, False, True])[:, None, None, None]},
    "bias": lambda rng, queries: {"bias": jnp.asarray(rng.standard_normal((1, HEADS, queries, KEYS)))},
    "bias of distances": lambda rng, queries: {
        "bias": DistanceBias(jnp.asarray(rng.standard_normal((HEADS, queries + KEYS - 1))))
    },
}


def worst_difference(mask: str, queries: int, offsets: list[int], code: Any = cached) -> float:
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.standard_normal((ROWS, queries, HEADS, HEAD_DIM)))
    key, value = jnp.asarray(rng.standard_normal((2, ROWS, KEYS, HEADS, HEAD_DIM)))
    parts = MASKS[mask](rng, queries)

    @jax.jit
    def both(offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        asked = AttentionMask(causal=True, query_offset=offset, **parts)
        return code.attend_to_filled(plain_attention, query, key, value, asked), plain_attention(
            query, key, value, asked
        )

    outputs = [both(jnp.int32(offset)) for offset in offsets]
    return max(float(jnp.abs(part - whole).max()) for part, whole in outputs)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("queries", [1, 4])
def test_the_filled_part_gives_what_the_whole_cache_gives(x64: None, mask: str, queries: int) -> None:
    boundaries = [0, 70, 74, 75, 76, 146, 149, 150, 151, KEYS - queries]
    assert worst_difference(mask, queries, boundaries) < 1e-14


@pytest.mark.parametrize(("offset", "expected"), [(0, 125), (124, 125), (125, 250), (499, 500), (999, 1000)])
def test_the_smallest_part_that_holds_the_tokens_is_attended_to(offset: int, expected: int) -> None:
    def keys(query: Any, key: jax.Array, value: Any, mask: AttentionMask) -> jax.Array:
        return jnp.full(query.shape, float(key.shape[1]))

    query, key = jnp.ones((1, 1, 1, 4)), jnp.ones((1, 1000, 1, 4))
    mask = AttentionMask(causal=True, query_offset=jnp.int32(offset))
    assert (cached.attend_to_filled(keys, query, key, key, mask) == expected).all()


@pytest.mark.parametrize("strategy", ["beam", "sample"])
@pytest.mark.parametrize("changes", [{"positions": "rope"}, {"positions": "none", "relative_buckets": 8}], ids=repr)
def test_both_twins_generate_the_same_beyond_the_first_part(x64: None, strategy: Any, changes: dict[str, Any]) -> None:
    config = small("float64", max_length=170, **changes)
    twins, source = make_twins(config, seed=0), draw_source(config, 0)
    settings = GenerationConfig(140, strategy=strategy, min_new_tokens=130, beam_width=2 if strategy == "beam" else 4)
    by_flax = run_flax(twins.flax, source, settings)
    assert max(map(len, by_flax.tokens)) >= 130
    assert_same(by_flax, run_torch(twins.torch, source, settings))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("filled = mask.query_offset + query.shape[1]", "filled = mask.query_offset"),
        ("mask.bias.values[:, : queries + keys - 1]", "mask.bias.values[:, -(queries + keys - 1) :]"),
    ],
    ids=["newest key left out", "bias of the last keys"],
)
def test_a_mistake_shows(x64: None, old: str, new: str) -> None:
    with mutated("flax_transformer/nn/kernels/cached.py", old, new):
        assert worst_difference("bias of distances", 1, [75, 150, 10]) > 1e-3
