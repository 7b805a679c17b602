"""Attention block by block is plain attention: under every mask, bias and dropout, forward and backward."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_masks import MASKS, flax_mask
from flax import nnx
from mutation import with_mistake
from twins import BFLOAT16, GRADIENT, OPERATION, ROWS, SOURCE_LENGTHS, figures, small, ulps

from flax_transformer.intermediates import Recorder, recording
from flax_transformer.nn import attention, models
from flax_transformer.nn.kernels import blockwise, distances
from flax_transformer.nn.kernels.flash import FLASH_OUTPUTS
from flax_transformer.nn.kernels.random_bits import keep_at, key_words
from flax_transformer.nn.masks import AttentionMask
from flax_transformer.parity.measure import scaled_ulp

# Sequences of several blocks, the last of which overlap those before them.
QUERIES, KEYS, HEADS, HEAD_DIM, BLOCKS = 37, 53, 3, 7, (16, 16)
RATE = 0.3
DENSE = np.random.default_rng(0).random((ROWS, HEADS, QUERIES, KEYS)) < 0.7
DENSE[1, :, 2] = False
LENGTHS = np.array([53, 1, 0, 16, 40], np.int32)
LARGER: dict[str, Any] = {"key_lengths": LENGTHS, "query_offset": 16}
BIASES = ("no bias", "of every pair", "one for all rows and queries", "of distances")

Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]


def mask_of(name: str) -> dict[str, Any]:
    """The masks of plain attention's tests, for these sizes."""
    parts = {part: LARGER.get(part, value) for part, value in MASKS[name].items()}
    if "dense" in parts:
        parts["dense"] = DENSE[:, : parts["dense"].shape[1]]
    return parts


def inputs_of(bias: str, dtype: Any, seed: int) -> tuple[Inputs, jax.Array]:
    """Query, key, value and bias, and a gradient of the output."""
    rng = np.random.default_rng(seed)
    query, key, value, upstream = (
        jnp.asarray(rng.standard_normal((ROWS, length, HEADS, HEAD_DIM)), dtype)
        for length in (QUERIES, KEYS, KEYS, QUERIES)
    )
    shape = {
        "no bias": None,
        "of every pair": (ROWS, HEADS, QUERIES, KEYS),
        "one for all rows and queries": (1, HEADS, 1, KEYS),
        "of distances": (HEADS, QUERIES + KEYS - 1),
    }[bias]
    return (query, key, value, None if shape is None else jnp.asarray(rng.standard_normal(shape), dtype)), upstream


def kept(key: jax.Array, shape: tuple[int, int, int, int] = (ROWS, HEADS, QUERIES, KEYS)) -> jax.Array:
    """The mask of dropout, written out: the element of a row and a column depends on nothing else."""
    row, head, query, column = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(4))
    rows = (row * jnp.uint32(shape[1]) + head) * jnp.uint32(shape[2]) + query
    return keep_at(key_words(key), RATE, rows, column)


def attend_plainly(inputs: Inputs, mask: AttentionMask, key: jax.Array | None) -> jax.Array:
    def drop(weights: jax.Array) -> jax.Array:
        return weights if key is None else jnp.where(kept(key), weights / (1 - RATE), 0)

    return attention.plain_attention(*inputs[:3], mask, on_weights=drop)


def attend_in_blocks(
    inputs: Inputs, mask: AttentionMask, key: jax.Array | None, blocks: tuple[int, int] = BLOCKS, code: Any = blockwise
) -> jax.Array:
    dropout = None if key is None else blockwise.WeightDropout(key, RATE)
    return code.blockwise_attention(*inputs[:3], mask, dropout=dropout, blocks=blocks)


def run(
    attend: Callable[..., jax.Array], mask: dict[str, Any], bias: str, drops: bool, dtype: Any, seed: int = 0
) -> list[np.ndarray]:
    """The output, and the gradients of query, key, value and bias."""
    inputs, upstream = inputs_of(bias, dtype, seed)
    key = jax.random.key(seed) if drops else None

    def with_bias(inputs: Inputs) -> jax.Array:
        given = distances.DistanceBias(inputs[3]) if inputs[3] is not None and inputs[3].ndim == 2 else inputs[3]
        return attend(inputs, flax_mask({**mask, "bias": given}), key)

    @jax.jit
    def both(inputs: Inputs, upstream: jax.Array) -> list[jax.Array]:
        output, pull_back = jax.vjp(with_bias, inputs)
        return [output, *jax.tree.leaves(pull_back(upstream))]

    return [np.asarray(array) for array in both(inputs, upstream)]


def agree(given: list[np.ndarray], expected: list[np.ndarray], dtype: str) -> bool:
    output, *gradients = figures(given, expected, dtype)
    return output <= OPERATION and max(gradients) <= GRADIENT[dtype]


@pytest.mark.parametrize(("bias", "drops"), [("no bias", False), ("of distances", True)])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.sample(5)
def test_blocks_give_what_plain_attention_gives(mask: str, bias: str, drops: bool) -> None:
    check_blocks(mask, bias, drops, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("drops", [False, True], ids=["all weights", "dropout"])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("mask", MASKS)
def test_blocks_give_what_plain_attention_gives_in_every_combination(
    mask: str, bias: str, drops: bool, dtype: str
) -> None:
    check_blocks(mask, bias, drops, dtype)


def check_blocks(mask: str, bias: str, drops: bool, dtype: str) -> None:
    request = mask_of(mask), bias, drops, dtype
    in_blocks, plain = (run(attend, *request) for attend in (attend_in_blocks, attend_plainly))
    assert agree(in_blocks, plain, dtype)
    if "key_lengths" in request[0]:
        assert (in_blocks[0][LENGTHS == 0] == 0).all()
        assert all(np.isfinite(gradient).all() for gradient in in_blocks)


@pytest.mark.parametrize(("blocks", "seed"), [((16, 32), 1), ((48, 16), 2), ((1000, 1000), 3)])
@pytest.mark.sample(2)
def test_neither_the_blocks_nor_the_seed_matter(blocks: tuple[int, int], seed: int, dtype: str) -> None:
    request = mask_of("all"), "of distances", True, dtype, seed
    in_blocks = run(functools.partial(attend_in_blocks, blocks=blocks), *request)
    assert agree(in_blocks, run(attend_plainly, *request), dtype)


@pytest.mark.parametrize("drops", [False, True], ids=["all weights", "dropout"])
def test_bfloat16_keeps_its_statistics_in_float32(drops: bool) -> None:
    request = mask_of("causal and ragged"), "of distances", drops, jnp.bfloat16
    in_blocks, plain = (run(attend, *request) for attend in (attend_in_blocks, attend_plainly))
    assert all(array.dtype == jnp.bfloat16 for array in in_blocks)
    exact = run(attend_plainly, *request[:3], jnp.float32)
    for given, expected, reference in zip(in_blocks, plain, exact, strict=True):
        own = scaled_ulp(expected, reference, "bfloat16")  # the rounding of the inputs, too
        assert scaled_ulp(given, expected, "bfloat16") <= max(BFLOAT16, 2 * own)


def test_large_scores_neither_overflow_nor_vanish(dtype: str) -> None:
    def scaled(attend: Callable[..., jax.Array], inputs: Inputs, *rest: Any) -> jax.Array:
        return attend((1e4 * inputs[0], *inputs[1:]), *rest)

    request = mask_of("causal and ragged"), "no bias", False, dtype
    in_blocks, plain = (run(functools.partial(scaled, f), *request) for f in (attend_in_blocks, attend_plainly))
    assert all(np.isfinite(array).all() for array in in_blocks)
    assert scaled_ulp(in_blocks[0], plain[0], dtype) <= 1e5 * OPERATION  # rounding of scores of 1e5


MISTAKES = {
    "values not rescaled": ("attended = attended * rescale[:, :, None] +", "attended = attended +"),
    "sum not rescaled": ("total = total * rescale +", "total = total +"),
    "causal bound one block short": ("last_query // self.block_keys + 1", "last_query // self.block_keys"),
    "causal bound forgets the offset": ("constants.query_offset + self.first_query(i)", "self.first_query(i)"),
    "offset of queries ignored": ("constants.query_offset + query - key", "query - key"),
    "lengths not counted from the block": ("else constants.key_lengths - key", "else constants.key_lengths"),
    "keys of the last block counted twice": ("if task.keys % task.block_keys:", "if False:"),
    "queries of the last block counted twice": ("if task.queries % task.block_queries == 0:", "if True:"),
    "row sum missing in the backward pass": ("(of_weights - weighted[:, :, None])", "of_weights"),
    "scale missing in the backward pass": ("(of_scores * task.scale)", "of_scores"),
    "weights dropped anew in the backward pass": (
        "keep = _kept(task, weights, constants.words, i, j)\n            of_weights",
        "keep = _kept(task, weights, constants.words + jnp.uint32(1), i, j)\n            of_weights",
    ),
    "all weights kept in the backward pass": (
        "kept_weights = _drop(task, weights, keep)",
        "kept_weights = weights",
    ),
    "dropout of every block alike": ("+ query + first_query", "+ query"),
    "kept weights not scaled up": ("x * (1.0 / (1.0 - task.drop_rate))", "x"),
    "normalised by the kept weights": (
        "total = total * rescale + weights.sum(axis=2)",
        "total = total * rescale + _drop(task, weights, _kept(task, weights, constants.words, i, j)).sum(axis=2)",
    ),
    "row without keys has a finite sum": ("jnp.where(total > 0, largest + jnp.log(total), jnp.inf)", "largest"),
    "bias of another place": ("key - query + task.queries", "query - key + task.queries"),
    "gradient of the bias from one block": (
        "part + pull_back(of_scores)[0], starts",
        "pull_back(of_scores)[0], starts",
    ),
}


def test_each_mistake_stands_once_in_the_code() -> None:
    code = Path(str(blockwise.__file__)).read_text(encoding="utf-8")
    assert [name for name, (old, _) in MISTAKES.items() if code.count(old) != 1] == []


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.sample(5)
def test_planted_mistakes_are_seen(mistake: str) -> None:
    mistaken = run(functools.partial(attend_in_blocks, code=with_mistake(blockwise, *MISTAKES[mistake])), *RICHEST)
    assert max(figures(mistaken, attended_plainly(), "float64")) > 1e9


RICHEST = mask_of("all"), "of distances", True, "float64"


@functools.cache
def attended_plainly() -> list[np.ndarray]:
    return run(attend_plainly, *RICHEST)


def test_memory_grows_with_the_length_and_not_with_its_square() -> None:
    def temporary_bytes(attend: Any, length: int) -> int:
        x = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
        loss = jax.grad(lambda q, k, v: attend(q, k, v, AttentionMask(causal=True)).sum(), argnums=(0, 1, 2))
        analysis: Any = jax.jit(loss).lower(x, x, x).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    in_blocks, plain = (
        [temporary_bytes(attend, length) for length in (2048, 8192)]
        for attend in (blockwise.blockwise_attention, attention.plain_attention)
    )
    assert in_blocks[1] < 4**1.05 * in_blocks[0]
    assert in_blocks[1] < plain[0]
    assert plain[1] > 15 * plain[0]


def test_the_bias_of_distances_is_that_of_every_pair() -> None:
    values = jnp.arange(2 * 9.0).reshape(2, 9)
    whole = np.asarray(distances.written_out(distances.DistanceBias(values), 4, 6))
    for head, query, key in np.ndindex(2, 4, 6):
        assert whole[0, head, query, key] == values[head, key - query + 3]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere plain attention drops other weights")
def test_a_model_with_a_relative_bias_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention, "blockwise_attention", functools.partial(blockwise.blockwise_attention, blocks=(4, 4))
    )
    relative = {"positions": "none", "relative_buckets": 8, "relative_max_distance": 6}
    rng = np.random.default_rng(0)
    source, target = (jnp.asarray(rng.integers(3, 37, (ROWS, length)), jnp.int32) for length in (11, 7))
    upstream, results = rng.standard_normal((ROWS, 7, 37)), []
    for backend in ("xla", "blockwise"):
        config = small("float64", attention_backend=backend, attention_dropout=RATE, **relative)
        graph, params, rest = nnx.split(models.create_model(config, 0), nnx.Param, ...)

        def logits(params: nnx.State, graph: Any = graph, rest: Any = rest) -> jax.Array:
            model = nnx.merge(graph, params, rest)
            lengths = jnp.asarray(SOURCE_LENGTHS)
            return model(source, target, lengths, jnp.minimum(lengths, 7), rngs=nnx.Rngs(dropout=3))

        @jax.jit
        def learn(params: nnx.State, upstream: jax.Array, logits: Any = logits) -> list[jax.Array]:
            output, pull_back = jax.vjp(logits, params)
            return [output, *jax.tree.leaves(pull_back(upstream))]

        results.append(learn(params, jnp.asarray(upstream)))
    assert all(np.isfinite(np.asarray(array)).all() for array in results[1])
    for plain, in_blocks in zip(*results, strict=True):
        assert np.abs(np.asarray(in_blocks) - np.asarray(plain)).max() <= 1e-13 * max(
            1, np.abs(np.asarray(plain)).max()
        )
    assert any(ulps(a, b) > 0 for a, b in zip(*results, strict=True)), "both took the same way"


def test_under_a_recorder_weights_are_written_out() -> None:
    config = small(attention_backend="blockwise", attention_dropout=RATE)
    module = attention.MultiHeadAttention(config, is_self_attention=True, rngs=nnx.Rngs(0))
    x = jnp.ones((ROWS, 7, config.d_model))
    with recording(Recorder({id(module): "", id(module.dropout): "dropout"})) as recorder:
        module(x, module.project(x), AttentionMask(causal=True), rngs=nnx.Rngs(dropout=0))
    assert recorder.values.keys() >= {"weights", "dropout.keep"}


def test_rematerialization_may_keep_what_the_forward_pass_gave() -> None:
    def exponentials(policy: Callable[..., bool]) -> int:
        """Two are in the forward pass, one in the backward pass; two more where the former is run again."""
        attend = jax.checkpoint(lambda x: blockwise.blockwise_attention(x, x, x, AttentionMask()).sum(), policy=policy)
        return str(jax.make_jaxpr(jax.grad(attend))(jnp.ones((1, 32, 1, 8)))).count(" exp ")

    policies = jax.checkpoint_policies
    assert exponentials(policies.save_only_these_names(FLASH_OUTPUTS)) == 3
    assert exponentials(policies.nothing_saveable) == 5
