"""Attention under every mask, in both twins, against its definition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from attention_masks import HEAD_DIM, HEADS, KEYS, MASKS, QUERIES, flax_mask, torch_mask
from flax import nnx
from torch.nn import functional
from twins import (
    BFLOAT16,
    GRADIENT,
    OPERATION,
    ROWS,
    SOURCE,
    SOURCE_LENGTHS,
    TARGET,
    check_gradients,
    flax_gradients,
    same_bits,
    small,
    to_numpy,
    to_torch,
    torch_gradients,
    twin_modules,
    ulps,
)

import flax_transformer.nn.attention as flax_attention
import flax_transformer.nn.masks as flax_masks
import torch_reference.nn.attention as torch_attention
import torch_reference.nn.kernels as torch_kernels
import torch_reference.nn.masks as torch_masks
from flax_transformer.intermediates import Recorder, recording
from flax_transformer.parity.measure import EPS, scaled_ulp


def allowed(mask: dict[str, Any]) -> np.ndarray:
    """The mask written out, from the definition of its parts."""
    row, _, query, key = np.ix_(range(ROWS), range(HEADS), range(QUERIES), range(KEYS))
    keep = np.ones((ROWS, HEADS, QUERIES, KEYS), bool)
    if "key_lengths" in mask:
        keep &= key < mask["key_lengths"][row]
    if mask.get("causal"):
        keep &= key <= mask.get("query_offset", 0) + query
    return keep & mask.get("dense", True)


def defined_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """One query at a time, over the keys it may attend to, in float64."""
    attended = np.zeros(query.shape)
    for row, head, at in np.ndindex(ROWS, HEADS, QUERIES):
        keys = np.flatnonzero(keep[row, head, at])
        if len(keys):
            exponentials = np.exp(key[row, keys, head] @ query[row, at, head] / np.sqrt(HEAD_DIM))
            attended[row, at, head] = exponentials @ value[row, keys, head] / exponentials.sum()
    return attended


def operands(dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Query, key, value, and a gradient of the output."""
    rng = np.random.default_rng(1)
    shapes = [(ROWS, length, HEADS, HEAD_DIM) for length in (QUERIES, KEYS, KEYS, QUERIES)]
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def flax_pass(attention: Any, mask: dict[str, Any], dtype: str) -> list[np.ndarray]:
    """The output, and the gradients of query, key and value."""
    *inputs, upstream = map(jnp.asarray, operands(dtype))
    output, pull_back = jax.vjp(lambda *inputs: attention(*inputs, flax_mask(mask)), *inputs)
    return [to_numpy(array) for array in (output, *pull_back(upstream))]


def torch_pass(attention: Any, mask: dict[str, Any], dtype: str) -> list[np.ndarray]:
    *inputs, upstream = operands(dtype)
    inputs = [to_torch(array, requires_grad=True) for array in inputs]
    output = attention(*inputs, torch_mask(mask))
    output.backward(to_torch(upstream))
    return [to_numpy(array) for array in (output, *(array.grad for array in inputs))]


def test_torch_is_told_of_causality_alone_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (to_torch(array)[:, :QUERIES] for array in operands("float64")[:3])
    told: list[dict[str, Any]] = []
    fused = functional.scaled_dot_product_attention

    def record(*inputs: Any, **options: Any) -> Any:
        told.append(options)
        return fused(*inputs, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", record)
    mask = torch_attention.AttentionMask(causal=True)
    in_words = torch_kernels.fused_attention(query, key, value, mask)
    assert told[0]["is_causal"]
    assert told[0]["attn_mask"] is None
    assert ulps(to_numpy(in_words), torch_attention.plain_attention(query, key, value, mask)) <= OPERATION
    uncaused = torch_kernels.fused_attention(query, key, value, torch_attention.AttentionMask())
    assert ulps(to_numpy(in_words), uncaused) > 1e5


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_both_twins_attend_as_defined(mask: dict[str, Any], dtype: str) -> None:
    by_flax = flax_pass(flax_attention.plain_attention, mask, dtype)
    by_torch = torch_pass(torch_attention.plain_attention, mask, dtype)
    by_torch_fused = torch_pass(torch_kernels.fused_attention, mask, dtype)
    query, key, value, _ = operands(dtype)
    defined = defined_attention(*(x.astype(np.float64) for x in (query, key, value)), allowed(mask)).astype(dtype)
    for given in (by_flax, by_torch, by_torch_fused):
        assert ulps(given[0], defined) <= OPERATION
        for gradient, expected in zip(given[1:], by_torch[1:], strict=True):
            assert ulps(gradient, expected) <= GRADIENT[dtype]

    without_keys = ~allowed(mask).any(axis=3).transpose(0, 2, 1)
    assert without_keys.any() == (mask.keys() >= {"key_lengths"} or "dense" in mask)
    for output, *gradients in (by_flax, by_torch, by_torch_fused):
        assert (output[without_keys] == 0).all()
        assert all(np.isfinite(gradient).all() for gradient in gradients)
        assert (gradients[0][without_keys] == 0).all()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_weights_are_a_distribution_over_the_keys_that_the_mask_allows(mask: dict[str, Any], dtype: str) -> None:
    query, key, _, _ = operands(dtype)
    by_flax = flax_attention.attention_weights(jnp.asarray(query), jnp.asarray(key), flax_mask(mask))
    by_torch = torch_attention.attention_weights(to_torch(query), to_torch(key), torch_mask(mask))
    assert ulps(by_flax, by_torch) <= OPERATION
    keep = allowed(mask)
    for weights in map(to_numpy, (by_flax, by_torch)):
        assert np.array_equal(weights > 0, keep), "weights reach other keys than the mask allows"
        np.testing.assert_allclose(weights.sum(axis=3), keep.any(axis=3), rtol=8 * EPS[dtype])


@pytest.mark.parametrize(
    ("mistake", "smallest"),
    {
        "transposed causal mask": 1e5,
        "True read as blocked": 1e5,
        "scores not scaled": 1e5,
        "scaled by the number of keys": 1e5,
        "mean of the values where nothing is allowed": 1e5,
        "scores masked with 0": 1e5,
    }.items(),
)
def test_the_definition_tells_planted_mistakes(mistake: str, smallest: float) -> None:
    mask = MASKS["all"]
    query, key, value, _ = operands("float64")
    keep = allowed(mask)
    sound = defined_attention(query, key, value, keep)
    match mistake:
        case "transposed causal mask":
            flipped = np.triu(np.ones((QUERIES, KEYS), bool), k=4) & allowed({**mask, "causal": False})
            mistaken = defined_attention(query, key, value, flipped)
        case "True read as blocked":
            mistaken = defined_attention(query, key, value, ~keep)
        case "scores not scaled":
            mistaken = defined_attention(query * np.sqrt(HEAD_DIM), key, value, keep)
        case "scaled by the number of keys":
            mistaken = defined_attention(query * np.sqrt(HEAD_DIM / KEYS), key, value, keep)
        case "mean of the values where nothing is allowed":
            nothing = ~keep.any(axis=3).transpose(0, 2, 1)[..., None]
            mistaken = np.where(nothing, value.mean(axis=1, keepdims=True), sound)
        case "scores masked with 0":
            scores = np.where(keep, np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(HEAD_DIM), 0)
            weights = np.exp(scores) / np.exp(scores).sum(axis=3, keepdims=True)
            mistaken = np.einsum("bhqk,bkhd->bqhd", weights, value)
    assert scaled_ulp(mistaken, sound, "float64") > smallest


def test_weights_may_be_dropped_after_the_softmax() -> None:
    query, key, value, _ = operands("float32")
    keep = np.random.default_rng(2).random((ROWS, HEADS, QUERIES, KEYS)) < 0.5
    mask = MASKS["causal and ragged"]
    by_flax = flax_attention.plain_attention(
        *map(jnp.asarray, (query, key, value)),
        flax_mask(mask),
        on_weights=lambda weights: jnp.where(keep, weights / 0.5, 0),
    )
    by_torch = torch_attention.plain_attention(
        *map(to_torch, (query, key, value)),
        torch_mask(mask),
        on_weights=lambda weights: torch.where(to_torch(keep), weights / 0.5, 0),
    )
    assert ulps(by_flax, by_torch) <= OPERATION
    # A softmax over the kept keys alone is another thing.
    renormalised = defined_attention(query, key, value, allowed(mask) & keep).astype(np.float32)
    assert ulps(by_torch, renormalised) > 1e5


def test_bfloat16_keeps_its_softmax_in_float32() -> None:
    query, key, value, _ = operands("float32")
    flax_inputs = [jnp.asarray(x, jnp.bfloat16) for x in (query, key, value)]
    torch_inputs = [to_torch(x).bfloat16() for x in (query, key, value)]
    mask = MASKS["causal and ragged"]
    assert flax_attention.attention_weights(*flax_inputs[:2], flax_mask(mask)).dtype == jnp.float32
    by_flax = flax_attention.plain_attention(*flax_inputs, flax_mask(mask))
    by_torch = torch_attention.plain_attention(*torch_inputs, torch_mask(mask))
    assert by_flax.dtype == jnp.bfloat16
    assert by_torch.dtype == torch.bfloat16
    assert scaled_ulp(np.asarray(by_flax, np.float32), to_numpy(by_torch.float()), "bfloat16") <= BFLOAT16


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
@pytest.mark.parametrize("is_self_attention", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_multi_head_layers_agree(positions: str, is_self_attention: bool, bias: bool) -> None:
    config = small("float64", positions=positions, bias=bias)
    modules = flax_attention.MultiHeadAttention, torch_attention.MultiHeadAttention
    flax_twin, torch_twin = twin_modules(*modules, config, is_self_attention=is_self_attention)
    rng = np.random.default_rng(0)
    x, memory, upstream = (rng.standard_normal((ROWS, length, config.d_model)) for length in (TARGET, SOURCE, TARGET))
    mask: dict[str, Any] = {"key_lengths": SOURCE_LENGTHS}
    graph, params = nnx.split(flax_twin)

    def attend(params: nnx.State, x: jax.Array, memory: jax.Array) -> jax.Array:
        twin = nnx.merge(graph, params)
        return twin(x, twin.project(memory), flax_mask(mask))

    by_flax, pull_back = jax.vjp(attend, params, jnp.asarray(x), jnp.asarray(memory))
    of_params, *of_inputs = pull_back(jnp.asarray(upstream))
    torch_inputs = [to_torch(array, requires_grad=True) for array in (x, memory)]
    by_torch = torch_twin(torch_inputs[0], torch_twin.project(torch_inputs[1]), torch_mask(mask))
    by_torch.backward(to_torch(upstream))

    assert ulps(by_flax, by_torch) <= OPERATION
    for gradient, tensor in zip(of_inputs, torch_inputs, strict=True):
        assert ulps(gradient, tensor.grad) <= GRADIENT["float64"]
    check_gradients(flax_gradients(of_params), torch_gradients(torch_twin), "float64")


def test_a_transposed_projection_of_equal_shape_is_seen() -> None:
    config = small("float64")
    torch_twin = torch_attention.MultiHeadAttention(config, is_self_attention=True)
    x = torch.randn(ROWS, TARGET, config.d_model, dtype=torch.float64, generator=torch.manual_seed(0))
    mask = torch_masks.AttentionMask()
    sound = torch_twin(x, torch_twin.project(x), mask)
    with torch.no_grad():
        torch_twin.query.weight.copy_(torch_twin.query.weight.T.clone())
    assert ulps(torch_twin(x, torch_twin.project(x), mask), sound) > 1e5


def test_rope_turns_self_attention_only() -> None:
    """Position by position, by way of the offset: a memory has no positions to be turned by."""
    for is_self_attention in (True, False):
        config = small("float32", positions="rope")
        modules = flax_attention.MultiHeadAttention, torch_attention.MultiHeadAttention
        flax_twin, torch_twin = twin_modules(*modules, config, is_self_attention=is_self_attention)
        x = np.random.default_rng(0).standard_normal((ROWS, TARGET, config.d_model)).astype(np.float32)
        for project, array in ((flax_twin.project, jnp.asarray(x)), (torch_twin.project, to_torch(x))):
            assert same_bits(project(array, 3).key, project(array, 0).key) == (not is_self_attention)
            assert same_bits(project(array, 3).value, project(array, 0).value)


def test_attention_dropout_acts_on_weights_alike() -> None:
    config = small(attention_dropout=0.3)
    modules = flax_attention.MultiHeadAttention, torch_attention.MultiHeadAttention
    flax_twin, torch_twin = twin_modules(*modules, config, is_self_attention=True)
    x = np.random.default_rng(0).standard_normal((ROWS, TARGET, config.d_model)).astype(np.float32)
    names = {id(flax_twin): "", id(flax_twin.dropout): "dropout"}
    with recording(Recorder(names)) as recorder:
        memory = flax_twin.project(jnp.asarray(x))
        by_flax = flax_twin(jnp.asarray(x), memory, flax_masks.AttentionMask(causal=True), rngs=nnx.Rngs(dropout=0))
    keep = to_torch(np.asarray(recorder.values["dropout.keep"]))
    assert keep.shape == (ROWS, config.num_heads, TARGET, TARGET)
    torch_twin.train()
    with recording(Recorder({id(m): name for name, m in torch_twin.named_modules()}, {"dropout.keep": keep})):
        by_torch = torch_twin(to_torch(x), torch_twin.project(to_torch(x)), torch_masks.AttentionMask(causal=True))
    assert ulps(by_flax, by_torch) <= OPERATION
    without = torch_twin.eval()(to_torch(x), torch_twin.project(to_torch(x)), torch_masks.AttentionMask(causal=True))
    assert ulps(by_torch, without) > 1e5


def test_auto_gives_what_plain_attention_gives() -> None:
    x = np.random.default_rng(0).standard_normal((ROWS, TARGET, small().d_model)).astype(np.float32)
    outputs = []
    for backend in ("xla", "auto"):
        config = small(attention_backend=backend)
        modules = flax_attention.MultiHeadAttention, torch_attention.MultiHeadAttention
        flax_twin, torch_twin = twin_modules(*modules, config, is_self_attention=True)
        mask: dict[str, Any] = {"causal": True, "key_lengths": SOURCE_LENGTHS}
        outputs.append(flax_twin(jnp.asarray(x), flax_twin.project(jnp.asarray(x)), flax_mask(mask)))
        outputs.append(torch_twin(to_torch(x), torch_twin.project(to_torch(x)), torch_mask(mask)))
    assert all(ulps(output, outputs[0]) <= OPERATION for output in outputs)
