"""The recurrent layer in both twins, against torch.nn.LSTM: one-sided, two-sided, packed, and token by token."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from twins import (
    ROWS,
    SOURCE,
    SOURCE_LENGTHS,
    STACK,
    check_gradients,
    flax_gradients,
    same_bits,
    small,
    to_numpy,
    to_torch,
    torch_gradients,
    torch_weights,
    twin_modules,
    ulps,
)

import flax_transformer.nn.lstm as flax_lstm
import flax_transformer.nn.masks as flax_masks
import torch_reference.nn.lstm as torch_lstm
import torch_reference.nn.masks as torch_masks
from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.parity.measure import scaled_ulp

DIRECTIONS = {"left_to_right": "", "right_to_left": "_reverse"}


def make_twins(dtype: str, two_sided: bool) -> tuple[Any, Any]:
    with jax.enable_x64(dtype == "float64"):
        return twin_modules(flax_lstm.LSTM, torch_lstm.LSTM, small(dtype, mixer="lstm"), two_sided=two_sided)


def make_input(dtype: str, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ROWS, SOURCE, small().d_model)).astype(dtype)


def oracle(twin: Any, two_sided: bool) -> torch.nn.LSTM:
    """torch.nn.LSTM with the same weights. Of its two biases one is zero."""
    width = twin.left_to_right.width
    lstm = torch.nn.LSTM(small().d_model, width, batch_first=True, bidirectional=two_sided, dtype=torch.float64)
    ours, state = torch_weights(twin), {}
    for name, suffix in DIRECTIONS.items():
        if f"{name}.input_proj.weight" in ours:
            state[f"weight_ih_l0{suffix}"] = torch.tensor(ours[f"{name}.input_proj.weight"])
            state[f"bias_ih_l0{suffix}"] = torch.tensor(ours[f"{name}.input_proj.bias"])
            state[f"weight_hh_l0{suffix}"] = torch.tensor(ours[f"{name}.recurrent_proj.weight"])
            state[f"bias_hh_l0{suffix}"] = torch.zeros(4 * width, dtype=torch.float64)
    lstm.load_state_dict(state)
    return lstm


def read_packed(lstm: torch.nn.LSTM, x: torch.Tensor, lengths: np.ndarray) -> torch.Tensor:
    """Rows without tokens cannot be packed, and stay zero."""
    real = np.flatnonzero(lengths)
    packed = pack_padded_sequence(x[real], torch.tensor(lengths[real]), batch_first=True, enforce_sorted=False)
    outputs, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])
    return torch.zeros(len(x), *outputs.shape[1:], dtype=x.dtype).index_copy(0, torch.tensor(real), outputs)


def run_flax(twin: Any, x: np.ndarray, upstream: np.ndarray, lengths: np.ndarray | None) -> tuple[np.ndarray, Any, Any]:
    """Output, gradient of the input, and gradients of the weights."""
    graph, params = nnx.split(twin)
    mask = flax_masks.AttentionMask(None if lengths is None else jnp.asarray(lengths))

    @jax.jit
    def run(params: nnx.State, x: jax.Array, upstream: jax.Array) -> Any:
        output, pull_back = jax.vjp(lambda params, x: nnx.merge(graph, params).mix(x, mask)[0], params, x)
        return output, pull_back(upstream)

    output, (of_params, of_x) = run(params, x, upstream)
    return to_numpy(output), to_numpy(of_x), flax_gradients(of_params)


def run_torch(twin: Any, x: np.ndarray, upstream: np.ndarray, lengths: np.ndarray | None) -> tuple[Any, Any, Any]:
    """The same."""
    inputs = to_torch(x, requires_grad=True)
    twin.zero_grad()
    output, _ = twin.mix(inputs, torch_masks.AttentionMask(None if lengths is None else to_torch(lengths)))
    output.backward(to_torch(upstream))
    return to_numpy(output), to_numpy(inputs.grad), torch_gradients(twin)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("lengths", [None, SOURCE_LENGTHS], ids=["all real", "ragged"])
@pytest.mark.sample(2)
def test_both_twins_are_torch_nn_lstm(two_sided: bool, lengths: np.ndarray | None) -> None:
    flax_twin, torch_twin = make_twins("float64", two_sided)
    lstm, x, upstream = oracle(torch_twin, two_sided), make_input("float64", 1), make_input("float64", 2)
    inputs = to_torch(x, requires_grad=True)
    expected = lstm(inputs)[0] if lengths is None else read_packed(lstm, inputs, lengths)
    expected.backward(to_torch(upstream))
    assert inputs.grad is not None
    for run, twin in ((run_flax, flax_twin), (run_torch, torch_twin)):
        output, of_x, of_weights = run(twin, x, upstream, lengths)
        np.testing.assert_allclose(output, to_numpy(expected), rtol=0, atol=1e-13)
        np.testing.assert_allclose(of_x, to_numpy(inputs.grad), rtol=0, atol=1e-13)
        for name, suffix in DIRECTIONS.items() if two_sided else [("left_to_right", "")]:
            for ours, theirs in (("input_proj.weight", "weight_ih"), ("recurrent_proj.weight", "weight_hh")):
                gradient = to_numpy(getattr(lstm, f"{theirs}_l0{suffix}").grad)
                np.testing.assert_allclose(of_weights[f"{name}.{ours}"], gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.sample(2)
def test_both_twins_agree(two_sided: bool, dtype: str) -> None:
    x, upstream = make_input(dtype, 1), make_input(dtype, 2)
    flax_twin, torch_twin = make_twins(dtype, two_sided)
    by_flax, of_x, of_flax = run_flax(flax_twin, x, upstream, SOURCE_LENGTHS)
    by_torch, of_x_in_torch, of_torch = run_torch(torch_twin, x, upstream, SOURCE_LENGTHS)
    assert ulps(by_flax, by_torch) <= STACK
    assert ulps(of_x, of_x_in_torch) <= STACK
    rounded, exact = (
        run_torch(make_twins(each, two_sided)[1], make_input(each, 1), make_input(each, 2), SOURCE_LENGTHS)[2]
        for each in ("float32", "float64")
    )
    check_gradients(
        of_flax, of_torch, dtype, {name: scaled_ulp(rounded[name], exact[name], "float32") for name in exact}
    )


@pytest.mark.parametrize("side", ["flax", "torch"])
@pytest.mark.sample(1)
def test_padding_is_not_read_and_no_later_token_reaches_an_earlier_one(side: str) -> None:
    x = make_input("float32", 1)
    padding = np.arange(SOURCE)[:, None] >= SOURCE_LENGTHS[:, None, None]
    run = {"flax": run_flax, "torch": run_torch}[side]
    for two_sided in (True, False):
        twin = make_twins("float32", two_sided)[side == "torch"]
        outputs = [run(twin, np.where(padding, other, x), x, SOURCE_LENGTHS)[0] for other in (x, np.float32(7))]
        assert same_bits(*outputs)
        assert (outputs[0][np.broadcast_to(padding, outputs[0].shape)] == 0).all()
    later = np.arange(SOURCE)[:, None] >= 4
    before, after = (run(twin, np.where(later, other, x), x, None)[0] for other in (x, -x))
    assert same_bits(np.ascontiguousarray(before[:, :4]), np.ascontiguousarray(after[:, :4]))
    assert (before[:, 4:] != after[:, 4:]).any(axis=-1).all()


@pytest.mark.parametrize("side", ["flax", "torch"])
@pytest.mark.sample(2)
def test_token_by_token_it_is_the_whole_pass(side: str, dtype: str) -> None:
    twin, x = make_twins(dtype, two_sided=False)[side == "torch"], make_input(dtype, 1)
    array, masks = {"flax": (jnp.asarray, flax_masks), "torch": (to_torch, torch_masks)}[side]
    whole = to_numpy(twin.mix(array(x), masks.AttentionMask(causal=True))[0])
    state, steps = twin.empty_cache(ROWS, SOURCE), []
    for places in (slice(0, 1), slice(1, 7), slice(7, 11)):
        output, state = twin.mix(array(np.ascontiguousarray(x[:, places])), masks.AttentionMask(), cache=state)
        assert [tuple(leaf.shape) for leaf in state] == [(ROWS, small().d_model)] * 2
        steps.append(to_numpy(output))
    assert ulps(np.concatenate(steps, axis=1), whole) <= STACK
    forgetful = to_numpy(twin.mix(array(np.ascontiguousarray(x[:, 7:])), masks.AttentionMask())[0])
    assert ulps(forgetful, np.ascontiguousarray(whole[:, 7:])) > 1e5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"relative_buckets": 8}, "relative_buckets: expected 0 with mixer='lstm', got 8"),
        ({"positions": "rope"}, "positions: expected positions without rope with mixer='lstm', got 'rope'"),
        ({"d_model": 9, "num_heads": 3}, "d_model: expected an even width, which both directions share, got 9"),
        (
            {"architecture": "classifier", "attention_dropout": 0.1},
            "attention_dropout: expected 0.0 with mixer='lstm', got 0.1",
        ),
        (
            {"architecture": "masked", "attention_backend": "xla"},
            "attention_backend: expected 'auto' with mixer='lstm', got 'xla'",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_where_the_config_is_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ModelConfig(mixer="lstm", **fields)
    assert str(caught.value) == f"ModelConfig.{message}"
    ModelConfig(**fields)


def test_its_decoder_still_drops_weights_of_attention_to_the_memory() -> None:
    assert ModelConfig(mixer="lstm", attention_dropout=0.1, attention_backend="xla", smeared_keys=True).writes_weights
