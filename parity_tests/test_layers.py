"""Linear maps, norms, activations, layers and stacks: outputs and all gradients of both twins."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from twins import (
    BFLOAT16,
    GRADIENT,
    OPERATION,
    ROWS,
    SOURCE,
    SOURCE_LENGTHS,
    STACK,
    TARGET,
    TARGET_LENGTHS,
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

import flax_transformer.nn.layers as flax_layers
import flax_transformer.nn.linear as flax_linear
import flax_transformer.nn.masks as flax_masks
import torch_reference.nn.layers as torch_layers
import torch_reference.nn.linear as torch_linear
import torch_reference.nn.masks as torch_masks
from flax_transformer.nn import attention as flax_attention
from flax_transformer.nn.attention import KeyValue as FlaxKeyValue
from flax_transformer.parity.measure import EPS, scaled_ulp
from torch_reference.nn import attention as torch_attention
from torch_reference.nn.attention import KeyValue as TorchKeyValue

D_MODEL = small().d_model
LINEAR = functools.partial(flax_linear.Linear, axes=(None, None))
# Layers and stacks are compared in float64: in float32 the check suite compares them, intermediate by intermediate.
DOUBLE = "float64"


def normal(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check_twins(flax_twin: Any, torch_twin: Any, dtype: str, *inputs: np.ndarray, masks: Any = ((), ())) -> None:
    """Output, gradients of inputs and gradients of parameters, of modules called with arrays and then masks."""
    graph, params = nnx.split(flax_twin)

    @jax.jit
    def run(params: nnx.State, *inputs: jax.Array) -> jax.Array:
        output = nnx.merge(graph, params)(*inputs, *masks[0])
        return output[0] if isinstance(output, tuple) else output

    by_flax, pull_back = jax.vjp(run, params, *map(jnp.asarray, inputs))
    torch_inputs = [to_torch(array, requires_grad=True) for array in inputs]
    by_torch = torch_twin(*torch_inputs, *masks[1])
    by_torch = by_torch[0] if isinstance(by_torch, tuple) else by_torch
    upstream = normal(dtype, *by_torch.shape, seed=1)
    by_torch.backward(to_torch(upstream))
    of_params, *of_inputs = pull_back(jnp.asarray(upstream))
    assert ulps(by_flax, by_torch) <= STACK
    for gradient, tensor in zip(of_inputs, torch_inputs, strict=True):
        assert ulps(gradient, tensor.grad) <= GRADIENT[dtype]
    check_gradients(flax_gradients(of_params), torch_gradients(torch_twin), dtype)


# --- linear maps and norms ---


@pytest.mark.parametrize("bias", [True, False])
def test_linear_maps_agree(bias: bool, dtype: str) -> None:
    config = small(dtype, bias=bias)
    twins = twin_modules(LINEAR, torch_linear.Linear, 13, 19, config, parent="head")
    graph, params = nnx.split(twins[0])
    x, upstream = normal(dtype, ROWS, SOURCE, 13), normal(dtype, ROWS, SOURCE, 19, seed=1)
    by_flax, pull_back = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, jnp.asarray(x))
    of_params, of_x = pull_back(jnp.asarray(upstream))
    torch_x = to_torch(x, requires_grad=True)
    by_torch = twins[1](torch_x)
    by_torch.backward(to_torch(upstream))
    assert ulps(by_flax, by_torch) <= OPERATION
    assert ulps(of_x, torch_x.grad) <= GRADIENT[dtype]
    assert ulps(to_numpy(of_params["kernel"][...]).T, twins[1].weight.grad) <= GRADIENT[dtype]
    assert ("bias" in of_params) == bias == (twins[1].bias is not None)
    if bias:
        assert ulps(of_params["bias"][...], twins[1].bias.grad) <= GRADIENT[dtype]


def test_products_are_taken_in_bfloat16_over_float32_weights() -> None:
    config = small("float32", dtype="bfloat16")
    flax_twin, torch_twin = twin_modules(LINEAR, torch_linear.Linear, 13, 19, config, parent="head")
    x = normal("float32", ROWS, 13)
    by_flax, by_torch = flax_twin(jnp.asarray(x)), torch_twin(to_torch(x))
    assert by_flax.dtype == jnp.bfloat16
    assert by_torch.dtype == torch.bfloat16
    assert flax_twin.kernel.dtype == jnp.float32
    assert torch_twin.weight.dtype == torch.float32
    assert scaled_ulp(np.asarray(by_flax, np.float32), to_numpy(by_torch.float()), "bfloat16") <= BFLOAT16


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.0, 1e-3), (1000.0, 1.0)])
def test_norms_agree_where_variance_is_small_or_cancels(mean: float, scale: float, dtype: str) -> None:
    config = small(dtype)
    modules = flax_linear.norm_layer, torch_linear.norm_layer
    flax_twin, torch_twin = twin_modules(*modules, config, parent="encoder.norm")
    x = (mean + scale * normal("float64", ROWS, SOURCE, D_MODEL)).astype(dtype)
    by_torch = torch_twin(to_torch(x))
    # The mean of a row is rounded, and the norm then magnifies that by mean / scale.
    conditioning = 1 + mean / scale
    assert ulps(flax_twin(jnp.asarray(x)), by_torch) <= OPERATION * conditioning
    if mean == 0:
        eps_of_flax = nnx.LayerNorm(D_MODEL, epsilon=1e-6, param_dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
        eps_of_flax.scale, eps_of_flax.bias = flax_twin.scale, flax_twin.bias
        assert ulps(eps_of_flax(jnp.asarray(x)), by_torch) > 2 * OPERATION
    else:
        fast = nnx.LayerNorm(D_MODEL, epsilon=1e-5, use_fast_variance=True, param_dtype=dtype, rngs=nnx.Rngs(0))
        fast.scale, fast.bias = flax_twin.scale, flax_twin.bias
        assert ulps(fast(jnp.asarray(x)), by_torch) > 2 * OPERATION * conditioning


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_tanh", "silu"])
def test_activations_agree_with_their_slopes(name: str, dtype: str) -> None:
    x = np.concatenate([[0.0], np.linspace(-30, 30, 997)]).astype(dtype)
    by_flax, slope = jax.vjp(flax_layers.ACTIVATIONS[name], jnp.asarray(x))
    torch_x = to_torch(x, requires_grad=True)
    by_torch = torch_layers.ACTIVATIONS[name](torch_x)
    by_torch.sum().backward()
    assert ulps(by_flax, by_torch) <= OPERATION
    # 1 - tanh^2 is rounded at 1, and then multiplied by the slope of what the tanh is taken of.
    conditioning = np.maximum(1, np.abs(x) * (0.4 + 0.054 * x**2)) if name == "gelu_tanh" else 1
    difference = np.abs(to_numpy(slope(jnp.ones_like(x))[0]) - to_numpy(torch_x.grad))
    assert (difference <= OPERATION * EPS[dtype] * conditioning).all()
    others = set(flax_layers.ACTIVATIONS) - {name}
    assert all(ulps(flax_layers.ACTIVATIONS[other](jnp.asarray(x)), by_torch) > 8 * OPERATION for other in others)


def test_the_slope_of_relu_at_zero_is_zero() -> None:
    zero = torch.zeros((), requires_grad=True)
    torch_layers.ACTIVATIONS["relu"](zero).backward()
    assert zero.grad == 0
    assert jax.grad(flax_layers.ACTIVATIONS["relu"])(0.0) == 0
    assert jax.grad(lambda x: jnp.maximum(x, 0))(0.0) == 0.5  # what it would be, written that way


# --- sublayers, layers and stacks ---


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
def test_feed_forward_sublayers_agree(activation: str, dtype: str) -> None:
    config = small(dtype, activation=activation)
    twins = twin_modules(flax_layers.FeedForward, torch_layers.FeedForward, config)
    check_twins(*twins, dtype, normal(dtype, ROWS, SOURCE, D_MODEL), masks=((None,), ()))


@pytest.mark.parametrize("norm_first", [True, False])
def test_residuals_put_the_norm_where_the_config_says(norm_first: bool, dtype: str) -> None:
    config = small(dtype, norm_first=norm_first)
    twins = twin_modules(flax_layers.Residual, torch_layers.Residual, config)
    x = 3 * normal(dtype, ROWS, SOURCE, D_MODEL)
    by_flax = twins[0].add(jnp.asarray(x), jnp.sin(twins[0].prepare(jnp.asarray(x))))
    by_torch = around_sine(twins[1], x)
    assert ulps(by_flax, by_torch) <= OPERATION
    other = twin_modules(flax_layers.Residual, torch_layers.Residual, small(dtype, norm_first=not norm_first))
    assert ulps(around_sine(other[1], x), by_torch) > 1e5


def around_sine(residual: Any, x: np.ndarray) -> torch.Tensor:
    """A torch residual around the sublayer sin(x)."""
    return residual.add(to_torch(x), torch.sin(residual.prepare(to_torch(x))))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layers_agree(norm_first: bool) -> None:
    config = small(DOUBLE, norm_first=norm_first, positions="rope")
    twins = twin_modules(flax_layers.EncoderLayer, torch_layers.EncoderLayer, config)
    masks = (
        (flax_masks.AttentionMask(jnp.asarray(SOURCE_LENGTHS)), None),
        (torch_masks.AttentionMask(to_torch(SOURCE_LENGTHS)),),
    )
    check_twins(*twins, DOUBLE, normal(DOUBLE, ROWS, SOURCE, D_MODEL), masks=masks)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("final_norm", [True, False])
def test_encoders_agree(final_norm: bool) -> None:
    config = small(DOUBLE, final_norm=final_norm, activation="silu")
    twins = twin_modules(flax_layers.Encoder, torch_layers.Encoder, config)
    assert (twins[0].norm is None) == (twins[1].norm is None) == (not final_norm)
    masks = (
        (flax_masks.AttentionMask(jnp.asarray(SOURCE_LENGTHS)),),
        (torch_masks.AttentionMask(to_torch(SOURCE_LENGTHS)),),
    )
    check_twins(*twins, DOUBLE, normal(DOUBLE, ROWS, SOURCE, D_MODEL), masks=masks)


class FlaxDecoder(nnx.Module):
    """A decoder as a function of target and memory."""

    def __init__(self, config: Any, *, rngs: nnx.Rngs) -> None:
        self.decoder = flax_layers.Decoder(config, rngs=rngs)

    def __call__(self, x: jax.Array, memory: jax.Array) -> jax.Array:
        mask = flax_masks.AttentionMask(jnp.asarray(TARGET_LENGTHS), causal=True)
        memory_mask = flax_masks.AttentionMask(jnp.asarray(SOURCE_LENGTHS))
        return self.decoder(x, memory, mask, memory_mask)


class TorchDecoder(torch.nn.Module):
    """A decoder as a function of target and memory."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.decoder = torch_layers.Decoder(config)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        mask = torch_masks.AttentionMask(to_torch(TARGET_LENGTHS), causal=True)
        memory_mask = torch_masks.AttentionMask(to_torch(SOURCE_LENGTHS))
        return self.decoder(x, memory, mask, memory_mask)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("norm_first", [True, False])
def test_decoders_agree(norm_first: bool) -> None:
    config = small(DOUBLE, norm_first=norm_first, final_norm=norm_first, num_decoder_layers=2)
    twins = twin_modules(FlaxDecoder, TorchDecoder, config)
    check_twins(*twins, DOUBLE, normal(DOUBLE, ROWS, TARGET, D_MODEL), normal(DOUBLE, ROWS, SOURCE, D_MODEL, seed=2))


def decode_by_token(decoder: Any, key_value: Any, empty: Any, masks: Any, x: Any, memory: Any, concatenate: Any) -> Any:
    """The decoder over one token after the other, its cache filled on the way."""
    memory = decoder.project_memory(memory)
    cache = [key_value(empty(), empty()) for _ in decoder.layers]
    outputs = []
    for offset in range(TARGET):
        mask = masks.AttentionMask(causal=True, query_offset=offset)
        output, cache = decoder.step(x[:, offset : offset + 1], memory, mask, masks.AttentionMask(), cache=cache)
        outputs.append(output)
    return concatenate(outputs)


@pytest.mark.parametrize("positions", ["none", "rope"])
def test_decoding_over_a_cache_gives_what_the_whole_target_gives(positions: str) -> None:
    with jax.enable_x64(True):
        config = small("float64", positions=positions, num_decoder_layers=2)
        flax_twin, torch_twin = twin_modules(flax_layers.Decoder, torch_layers.Decoder, config, parent="decoder")
        x, memory = normal("float64", ROWS, TARGET, D_MODEL), normal("float64", ROWS, SOURCE, D_MODEL, seed=2)
        # Longer than the target, and filled with what must never be read.
        shape = (ROWS, config.num_heads, TARGET + 2, config.head_dim)
        by_flax = decode_by_token(
            flax_twin,
            FlaxKeyValue,
            lambda: jnp.full(shape, 7.0),
            flax_masks,
            jnp.asarray(x),
            jnp.asarray(memory),
            lambda outputs: jnp.concatenate(outputs, axis=1),
        )
        with torch.no_grad():
            by_torch = decode_by_token(
                torch_twin,
                TorchKeyValue,
                lambda: torch.full(shape, 7.0, dtype=torch.float64),
                torch_masks,
                to_torch(x),
                to_torch(memory),
                lambda outputs: torch.cat(outputs, dim=1),
            )
            causal = torch_masks.AttentionMask(causal=True)
            whole = torch_twin(to_torch(x), to_torch(memory), causal, torch_masks.AttentionMask())
        assert ulps(by_flax, whole) <= STACK
        assert ulps(by_torch, whole) <= STACK


@pytest.mark.parametrize("offset", [0, 3])
def test_a_cache_is_written_at_its_offset_and_nowhere_else(offset: int) -> None:
    old, new = normal("float32", ROWS, 3, SOURCE, 13), normal("float32", ROWS, 3, 2, 13, seed=1)
    expected = old.copy()
    expected[:, :, offset : offset + 2] = new
    flax_old, torch_old = jnp.asarray(old), to_torch(old)
    by_flax = flax_attention.write_cache(
        FlaxKeyValue(flax_old, -flax_old), FlaxKeyValue(jnp.asarray(new), -jnp.asarray(new)), jnp.asarray(offset)
    )
    by_torch = torch_attention.write_cache(
        TorchKeyValue(torch_old, -torch_old), TorchKeyValue(to_torch(new), -to_torch(new)), offset
    )
    for cache in (by_flax, by_torch):
        assert same_bits(cache.key, expected)
        assert same_bits(cache.value, -expected)
