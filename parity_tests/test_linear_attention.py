"""Linear attention in both twins, against its quadratic form: by chunks, token by token, under every mask it takes."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from twins import (
    OPERATION,
    ROWS,
    SOURCE,
    SOURCE_LENGTHS,
    STACK,
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

import flax_transformer.nn.linear_attention as flax_linear
import flax_transformer.nn.masks as flax_masks
import torch_reference.nn.linear_attention as torch_linear
import torch_reference.nn.masks as torch_masks
from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.parity.measure import scaled_ulp

HEADS, HEAD_DIM = 3, 5
SIDES: dict[str, tuple[Any, Any]] = {"flax": (flax_linear, jnp.asarray), "torch": (torch_linear, to_torch)}


def draw(*lengths: int, dtype: str = "float64") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [2 * rng.standard_normal((ROWS, length, HEADS, HEAD_DIM)).astype(dtype) for length in lengths]


def defined(query: np.ndarray, key: np.ndarray, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """One query at a time, over the keys it may attend to, with all weights written out."""

    def phi(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0))) + 1

    attended = np.zeros(query.shape)
    for row, at, head in np.ndindex(query.shape[:3]):
        keys = np.flatnonzero(keep[row, at])
        if len(keys):
            weights = phi(key[row, keys, head]) @ phi(query[row, at, head])
            attended[row, at, head] = weights @ value[row, keys, head] / weights.sum()
    return attended


def kept(queries: int, keys: int, lengths: np.ndarray | None = None, causal: bool = False) -> np.ndarray:
    keep = np.ones((ROWS, queries, keys), bool)
    if lengths is not None:
        keep &= np.arange(keys) < lengths[:, None, None]
    return keep & np.tri(queries, keys, dtype=bool) if causal else keep


def causal(side: str, *inputs: np.ndarray, lengths: np.ndarray | None = None, **named: Any) -> tuple[np.ndarray, Any]:
    module, array = SIDES[side]
    output, state = module.causal_linear_attention(
        *map(array, inputs), None if lengths is None else array(lengths), **named
    )
    return to_numpy(output), state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("lengths", [None, SOURCE_LENGTHS], ids=["all real", "ragged"])
def test_it_is_its_quadratic_form(side: str, lengths: np.ndarray | None) -> None:
    module, array = SIDES[side]
    query, key, value = draw(TARGET, SOURCE, SOURCE)
    state = module.sum_up(array(key), array(value), None if lengths is None else array(lengths))
    output = to_numpy(module.read_out(array(query), state))
    np.testing.assert_allclose(output, defined(query, key, value, kept(TARGET, SOURCE, lengths)), rtol=0, atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("chunk", [1, 3, 11, 64])
@pytest.mark.sample(4)
def test_its_causal_form_is_its_quadratic_form_in_chunks_of_any_size(side: str, chunk: int) -> None:
    inputs = draw(SOURCE, SOURCE, SOURCE)
    for lengths in (None, SOURCE_LENGTHS):
        output, _ = causal(side, *inputs, lengths=lengths, chunk=chunk)
        expected = defined(*inputs, kept(SOURCE, SOURCE, lengths, causal=True))
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("side", SIDES)
def test_float32_inputs_of_any_sign_keep_their_features(side: str) -> None:
    """Below -17 elu(x) + 1 rounds to 0 in float32 if it is computed as expm1(x) + 1."""
    module, array = SIDES[side]
    x = np.array([-40.0, -20.0, -1e-9, 0.0, 1e-9, 3.0], np.float32)
    features = to_numpy(module.feature_map(array(x)))
    assert features.dtype == np.float32
    exact = x.astype(np.float64)
    np.testing.assert_allclose(features, np.where(exact > 0, exact + 1, np.exp(np.minimum(exact, 0))), rtol=3e-7)


def test_the_slope_at_zero_is_one_on_both_sides() -> None:
    """Where the two branches meet, a maximum or a clamp would give either twin a slope of its own."""
    x = torch.zeros(1, requires_grad=True)
    torch_linear.feature_map(x).sum().backward()
    assert float(jax.grad(lambda x: flax_linear.feature_map(x).sum())(jnp.zeros(1))[0]) == 1.0
    assert x.grad is not None
    assert float(x.grad[0]) == 1.0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("side", SIDES)
def test_no_token_behind_it_reaches_a_token(side: str) -> None:
    """Not within its chunk, and not by the sums of a later one."""
    query, key, value = draw(SOURCE, SOURCE, SOURCE)
    output, _ = causal(side, query, key, value, chunk=4)
    for place in (2, 4, 9):
        later = np.arange(SOURCE)[:, None, None] >= place
        changed, _ = causal(side, query, np.where(later, key + 1, key), np.where(later, -value, value), chunk=4)
        assert same_bits(np.ascontiguousarray(changed[:, :place]), np.ascontiguousarray(output[:, :place]))
        assert (changed[:, place:] != output[:, place:]).all()


@pytest.mark.parametrize("side", SIDES)
def test_padding_is_not_summed_up(side: str) -> None:
    module, array = SIDES[side]
    query, key, value = draw(TARGET, SOURCE, SOURCE, dtype="float32")
    padding = np.arange(SOURCE)[:, None, None] >= SOURCE_LENGTHS[:, None, None, None]
    states = [
        module.sum_up(
            array(np.where(padding, other, key)), array(np.where(padding, other, value)), array(SOURCE_LENGTHS)
        )
        for other in (np.float32(0), np.float32(7))
    ]
    outputs = [to_numpy(module.read_out(array(query), state)) for state in states]
    assert same_bits(*outputs)
    assert (outputs[0][SOURCE_LENGTHS == 0] == 0).all()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.sample(2)
def test_token_by_token_it_is_the_whole_pass(side: str, dtype: str) -> None:
    """The state has one size, and a step may take any number of tokens."""
    inputs = draw(SOURCE, SOURCE, SOURCE, dtype=dtype)
    whole, _ = causal(side, *inputs)
    state, steps = None, []
    for places in (slice(0, 1), slice(1, 2), slice(2, 7), slice(7, 11)):
        output, state = causal(side, *(np.ascontiguousarray(x[:, places]) for x in inputs), state=state)
        assert [tuple(leaf.shape) for leaf in state] == [(ROWS, HEADS, HEAD_DIM, HEAD_DIM), (ROWS, HEADS, HEAD_DIM)]
        steps.append(output)
    assert ulps(np.concatenate(steps, axis=1), whole) <= OPERATION
    forgetful, _ = causal(side, *(np.ascontiguousarray(x[:, 7:]) for x in inputs))
    assert ulps(forgetful, np.ascontiguousarray(whole[:, 7:])) > 1e5


def sizes_of(jaxpr: Any) -> Iterator[int]:
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for parameter in equation.params.values():
            if hasattr(parameter, "jaxpr"):
                yield from sizes_of(parameter.jaxpr)


def test_no_array_grows_with_the_square_of_the_length() -> None:
    def largest(length: int) -> int:
        x = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
        gradient = jax.grad(lambda *x: flax_linear.causal_linear_attention(*x)[0].sum(), argnums=(0, 1, 2))
        return max(sizes_of(jax.make_jaxpr(gradient)(x, x, x).jaxpr))

    assert largest(8192) <= 4.1 * largest(2048)
    assert largest(8192) < 8192 * 100


def make_input(config: ModelConfig, length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ROWS, length, config.d_model)).astype(config.dtype)


def run_torch(dtype: str, is_causal: bool, lengths: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Output and gradients of self-attention."""
    config = small(dtype, mixer="linear", attention_backend="auto")
    with jax.enable_x64(dtype == "float64"):
        _, twin = twin_modules(flax_linear.LinearAttention, torch_linear.LinearAttention, config)
    mask = torch_masks.AttentionMask(None if lengths is None else to_torch(lengths), is_causal)
    output, _ = twin.mix(to_torch(make_input(config, SOURCE, 1)), mask)
    output.backward(to_torch(make_input(config, SOURCE, 2)))
    return to_numpy(output), torch_gradients(twin)


def run_flax(dtype: str, is_causal: bool, lengths: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The same."""
    config = small(dtype, mixer="linear", attention_backend="auto")
    twin, _ = twin_modules(flax_linear.LinearAttention, torch_linear.LinearAttention, config)
    graph, params = nnx.split(twin)
    mask = flax_masks.AttentionMask(None if lengths is None else jnp.asarray(lengths), is_causal)

    @jax.jit
    def run(params: nnx.State, x: jax.Array, upstream: jax.Array) -> Any:
        output, pull_back = jax.vjp(lambda params: nnx.merge(graph, params).mix(x, mask)[0], params)
        return output, pull_back(upstream)[0]

    output, gradients = run(params, make_input(config, SOURCE, 1), make_input(config, SOURCE, 2))
    return to_numpy(output), flax_gradients(gradients)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("lengths", [None, SOURCE_LENGTHS], ids=["all real", "ragged"])
@pytest.mark.sample(4)
def test_the_layers_of_both_twins_agree(is_causal: bool, lengths: np.ndarray | None, dtype: str) -> None:
    by_flax, of_flax = run_flax(dtype, is_causal, lengths)
    by_torch, of_torch = run_torch(dtype, is_causal, lengths)
    assert ulps(by_flax, by_torch) <= STACK
    assert all(np.isfinite(gradient).all() for gradient in of_flax.values())
    # The rounding error of float32, which hardly depends on the dtype in ULP: a query's gradient is all but cancelled.
    rounded, exact = (run_torch(each, is_causal, lengths)[1] for each in ("float32", "float64"))
    floors = {name: scaled_ulp(rounded[name], exact[name], "float32") for name in exact}
    check_gradients(of_flax, of_torch, dtype, floors)


def test_a_memory_is_summed_up_once_and_read_by_any_number_of_queries(dtype: str) -> None:
    config = small(dtype, mixer="linear", attention_backend="auto")
    twins = twin_modules(flax_linear.LinearAttention, torch_linear.LinearAttention, config)
    memory, x = make_input(config, SOURCE, 1), make_input(config, TARGET, 2)
    outputs = []
    for twin, masks, array in zip(twins, (flax_masks, torch_masks), (jnp.asarray, to_torch), strict=True):
        state = twin.project(array(memory), lengths=array(SOURCE_LENGTHS))
        mask = masks.AttentionMask(array(SOURCE_LENGTHS))
        outputs.append(to_numpy(twin(array(x), state, mask)))
        alone = to_numpy(twin(array(x[:, 3:4]), state, mask))
        assert ulps(alone, np.ascontiguousarray(outputs[-1][:, 3:4])) <= OPERATION
        counted = to_numpy(twin(array(x), twin.project(array(memory)), mask))
        assert ulps(counted, outputs[-1]) > 1e5
    assert ulps(*outputs) <= OPERATION


@pytest.mark.parametrize("side", SIDES)
def test_a_mask_that_sums_cannot_follow_is_refused(side: str) -> None:
    _, array = SIDES[side]
    config = small(mixer="linear", attention_backend="auto")
    attention = twin_modules(flax_linear.LinearAttention, torch_linear.LinearAttention, config)[side == "torch"]
    x = array(np.ones((1, 2, config.d_model), np.float32))
    masks = {"flax": flax_masks, "torch": torch_masks}[side]
    with pytest.raises(UserError, match="expected a mask of key lengths and causality, got a dense mask or a bias"):
        attention.mix(x, masks.AttentionMask(dense=array(np.ones((1, 1, 2, 2), bool))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_dropout": 0.1}, "attention_dropout: expected 0.0 with mixer='linear', got 0.1"),
        ({"relative_buckets": 8}, "relative_buckets: expected 0 with mixer='linear', got 8"),
        ({"scale_attention": False}, "scale_attention: expected True with mixer='linear', got False"),
        ({"smeared_keys": True}, "smeared_keys: expected False with mixer='linear', got True"),
        ({"attention_backend": "xla"}, "attention_backend: expected 'auto' with mixer='linear', got 'xla'"),
        ({"positions": "rope"}, "positions: expected positions without rope with mixer='linear', got 'rope'"),
    ],
)
def test_what_has_no_meaning_is_refused_where_the_config_is_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ModelConfig(mixer="linear", **fields)
    assert str(caught.value) == f"ModelConfig.{message}"
    ModelConfig(**fields)
