"""Packed rows give what rows of their own give: logits, losses and gradients, in both twins and on every backend."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from mutants import TINY
from mutants_packing import PACKING_MUTANTS, PackingMutant
from mutation import mutated, with_mistake
from packed_rows import both_batches, differences
from twins import GRADIENT, OPERATION, figures

from flax_transformer.config import ModelConfig
from flax_transformer.nn import attention
from flax_transformer.nn.kernels import blockwise
from flax_transformer.nn.kernels.flash import flash_attention
from flax_transformer.nn.masks import AttentionMask
from flax_transformer.nn.models import create_model
from flax_transformer.nn.segments import segment_positions
from flax_transformer.parity import flax_side, torch_side
from flax_transformer.parity.cases import Case, make_case
from flax_transformer.training.step import batch_loss, count_tokens

# Far over rounding, and far below any difference of meaning.
EQUAL, DIFFERENT = 1e-12, 1e-6
SIDES: dict[str, Any] = {"torch": torch_side, "flax": flax_side}
VARIANTS: dict[str, dict[str, Any]] = {
    "sinusoidal": {},
    "learned": {"positions": "learned", "position_offset": 2},
    "rope": {"positions": "rope"},
    "relative bias": {"positions": "none", "relative_buckets": 8, "relative_max_distance": 6},
    "smeared keys": {"positions": "sinusoidal_halves", "smeared_keys": True},
    "token types": {"architecture": "classifier", "token_types": 2, "embedding_norm": True},
    "mean": {"architecture": "classifier"},
    "max": {"architecture": "classifier", "pooling": "max", "positions": "rope"},
    "first": {"architecture": "classifier", "pooling": "first", "head_hidden": "tanh"},
    "masked": {"architecture": "masked"},
}


def case_of(backend: str = "xla", **model: Any) -> Case:
    exact = {"dtype": "float64", "param_dtype": "float64", "num_classes": 5, "attention_backend": backend}
    return make_case(dataclasses.replace(TINY, **exact, **model), 0, label_smoothing=0.1)


def outcome(side: str, case: Case, batch: Any) -> Any:
    return SIDES[side].run(case.config, case.weights, batch, gradients=True)


def found(side: str, case: Case) -> dict[str, float]:
    """How far packed rows on one side lie from rows of their own in PyTorch."""
    alone, packed = both_batches(case.model)
    return differences(outcome(side, case, packed), outcome("torch", case, alone), packed)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["xla", "auto"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_rows_are_rows_of_their_own_in_pytorch(variant: str, backend: str) -> None:
    assert max(found("torch", case_of(backend, **VARIANTS[variant])).values()) <= EQUAL


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.sample(4)
def test_packed_rows_are_rows_of_their_own_in_jax(variant: str) -> None:
    assert max(found("flax", case_of(**VARIANTS[variant])).values()) <= EQUAL


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("variant", ["mean", "rope", "relative bias", "smeared keys"])
@pytest.mark.sample(1)
def test_attention_block_by_block_keeps_segments_apart(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_blocks = functools.partial(blockwise.blockwise_attention, blocks=(4, 4))
    monkeypatch.setattr(attention, "blockwise_attention", in_blocks)
    case = case_of(**VARIANTS[variant])
    packed = jax.tree.map(jnp.asarray, both_batches(case.model)[1])
    results = []
    for backend in ("xla", "blockwise"):
        config: ModelConfig = dataclasses.replace(case.model, attention_backend=backend)
        graph, params = nnx.split(create_model(config, 0))

        @jax.jit
        def learn(params: nnx.State, graph: Any = graph) -> Any:
            loss = jax.value_and_grad(lambda params: batch_loss(nnx.merge(graph, params), packed)[0])
            return loss(params)

        results.append(jax.tree.leaves(learn(params)))
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(*results, strict=True)) <= EQUAL


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mutant", PACKING_MUTANTS, ids=lambda mutant: mutant.name)
@pytest.mark.sample(9)
def test_each_mistake_is_noticed(mutant: PackingMutant) -> None:
    side = "flax" if mutant.file.startswith("flax") else "torch"
    case = case_of(**mutant.model)
    alone, packed = both_batches(case.model)
    expected = outcome("torch", case, alone)
    with mutated(mutant.file, mutant.old, mutant.new):
        mistaken = outcome(side, case, packed)
    assert max(differences(mistaken, expected, packed).values()) > DIFFERENT


def test_positions_begin_anew_in_each_segment() -> None:
    segments = jnp.array([[1, 1, 1, 2, 3, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 3], [0] * 8])
    expected = [[0, 1, 2, 0, 0, 1, 0, 1], [0, 0, 1, 2, 3, 4, 5, 0], [*range(8)]]
    assert segment_positions(segments).tolist() == expected


def test_the_tokens_of_packed_rows_are_counted() -> None:
    for variant in ("sinusoidal", "mean", "masked"):
        alone, packed = both_batches(case_of(**VARIANTS[variant]).model)
        assert int(count_tokens(packed)) == int(count_tokens(alone)) > 0


Attend = Callable[..., jax.Array]


def segments_of(length: int, seed: int, empty: int = 1) -> jax.Array:
    """Rows of segments of any lengths with padding behind them; the last one of filler."""
    rng = np.random.default_rng(seed)
    rows = [np.repeat(np.arange(1, 8), rng.multinomial(length - 5, np.ones(7) / 7)) for _ in range(2)]
    return jnp.asarray([*(np.pad(row, (0, 5)) for row in rows), *([0] * length for _ in range(empty))], jnp.int32)


def attended(attend: Attend, dtype: Any, lengths: tuple[int, int], **mask: Any) -> list[np.ndarray]:
    """The output, and the gradients of query, key and value."""
    rng = np.random.default_rng(0)
    *inputs, upstream = (jnp.asarray(rng.standard_normal((3, lengths[side], 2, 16)), dtype) for side in (0, 1, 1, 0))

    @jax.jit
    def both(inputs: list[jax.Array], upstream: jax.Array, mask: dict[str, Any]) -> list[jax.Array]:
        output, pull_back = jax.vjp(lambda *inputs: attend(*inputs, AttentionMask(**{**fixed, **mask})), *inputs)
        return [output, *pull_back(upstream)]

    fixed = {name: value for name, value in mask.items() if not isinstance(value, jax.Array)}
    return [np.asarray(x) for x in both(inputs, upstream, {k: v for k, v in mask.items() if k not in fixed})]


# Of self-attention, and of cross-attention, whose padding has no key where the memory is full.
SELF = {"query_segments": segments_of(37, 0), "key_segments": segments_of(37, 0), "causal": True}
CROSS = {"query_segments": segments_of(37, 0), "key_segments": jnp.maximum(segments_of(53, 1), 1)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("mask", "keys"), [(SELF, 37), (CROSS, 53)], ids=["self", "cross"])
def test_blocks_know_segments(mask: dict[str, Any], keys: int) -> None:
    request: Any = jnp.float64, (37, keys)
    in_blocks = functools.partial(blockwise.blockwise_attention, blocks=(16, 16))
    plain = attended(attention.plain_attention, *request, **mask)
    given = attended(in_blocks, *request, **mask)
    assert max(figures(given, plain, "float64")) <= GRADIENT["float64"]
    assert (given[0][np.asarray(mask["query_segments"]) == 0] == 0).all()
    ignorant = attended(attention.plain_attention, *request, causal=mask.get("causal", False))
    assert min(figures(given, ignorant, "float64")) > 1e9


def test_blocks_without_a_common_segment_are_not_computed() -> None:
    """Else numbers that are none would come through: a weight of zero times one of them is none either."""
    segments = jnp.repeat(jnp.array([[1, 2, 3, 0]]), 16, axis=1)
    foreign = jnp.where(jnp.arange(64) // 16 == 1, 0.0, jnp.nan)[None, :, None, None]
    query, key, value = (jnp.ones((1, 64, 2, 16)) + foreign for _ in range(3))
    mask = AttentionMask(query_segments=segments, key_segments=segments)

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return blockwise.blockwise_attention(query, key, value, mask, blocks=(16, 16))

    output, pull_back = jax.vjp(attend, query, key, value)
    for array in (output, *pull_back(jnp.ones_like(output))):
        assert np.isfinite(array[:, 16:32]).all()
    plain = attention.plain_attention(query, key, value, mask)
    assert np.isnan(plain[:, 16:32]).all()


# Segments that most blocks have no part of.
LONG = {"query_segments": segments_of(101, 0), "key_segments": segments_of(101, 0)}
BLOCKWISE_MISTAKES = {
    "segments ignored": ("query_segments=of_queries, key_segments=of_keys)", ")"),
    "segments of the first queries": ("of_queries, query, task.block_queries", "of_queries, 0, task.block_queries"),
    "segments of the first keys": ("of_keys, key, task.block_keys", "of_keys, 0, task.block_keys"),
    "a block too few in front": ("first_key // self.block_keys, ", "first_key // self.block_keys + 1, "),
    "a block too few behind": ("-(-end_key // self.block_keys)", "end_key // self.block_keys"),
    "bounds by the queries with the least id": ("<= query_segments.max(axis=1)[:, None]", "<= least[:, None]"),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mistake", BLOCKWISE_MISTAKES)
@pytest.mark.sample(1)
def test_mistakes_in_blocks_are_noticed(mistake: str) -> None:
    code = with_mistake(blockwise, *BLOCKWISE_MISTAKES[mistake])
    mistaken = attended(functools.partial(code.blockwise_attention, blocks=(16, 16)), jnp.float64, (101, 101), **LONG)
    plain = attended(attention.plain_attention, jnp.float64, (101, 101), **LONG)
    assert max(figures(mistaken, plain, "float64")) > 1e9


FLASH_SELF = {"query_segments": segments_of(128, 0), "key_segments": segments_of(128, 0), "causal": True}
FLASH_CROSS = {"query_segments": segments_of(128, 0), "key_segments": jnp.maximum(segments_of(256, 1), 1)}


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(
    ("mask", "keys"),
    [(FLASH_SELF, 128), pytest.param(FLASH_CROSS, 256, marks=pytest.mark.slow)],
    ids=["self", "cross"],
)
def test_the_tpu_kernel_knows_segments(mask: dict[str, Any], keys: int) -> None:
    request: Any = jnp.float32, (128, keys)
    by_kernel = attended(flash_attention, *request, **mask)
    output, *gradients = figures(by_kernel, attended(attention.plain_attention, *request, **mask), "float32")
    assert output <= OPERATION
    assert max(gradients) <= GRADIENT["float32"]
    assert (by_kernel[0][np.asarray(mask["query_segments"]) == 0] == 0).all()
    for mistake in ({"causal": mask.get("causal", False)}, {**mask, "key_segments": mask["key_segments"] + 1}):
        mistaken = attended(attention.plain_attention, *request, **mistake)
        assert min(figures(by_kernel, mistaken, "float32")) > 1e4


def test_packed_attention_compiles_to_the_tpu_kernel() -> None:
    x = jnp.zeros((3, 128, 2, 64), jnp.bfloat16)
    flash = jax.jit(lambda x: flash_attention(x, x, x, AttentionMask(**FLASH_SELF)))
    assert "tpu_custom_call" in flash.trace(x).lower(lowering_platforms=("tpu",)).as_text()
