"""Which kernel serves which request, and that the kernels of accelerators compute plain attention."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from twins import BFLOAT16, GRADIENT, OPERATION, ROWS, TARGET, figures, same_bits, small

import flax_transformer.nn.attention as flax_attention
import torch_reference.nn.attention as torch_attention
import torch_reference.nn.masks as torch_masks
from flax_transformer.errors import UserError
from flax_transformer.intermediates import Recorder, recording
from flax_transformer.nn.kernels import backends
from flax_transformer.nn.kernels.flash import cudnn_attention, flash_attention
from flax_transformer.nn.masks import AttentionMask


def request_of(
    queries: int = 256, keys: int = 256, head_dim: int = 64, dtype: Any = jnp.bfloat16, **mask: Any
) -> tuple[jax.Array, jax.Array, AttentionMask]:
    query, key = (jnp.zeros((1, length, 1, head_dim), dtype) for length in (queries, keys))
    return query, key, AttentionMask(**mask)


LENGTHS = jnp.array([200])
SEGMENTS = {name: jnp.ones((1, 256), jnp.int32) for name in ("query_segments", "key_segments")}
# backend, platform, drops weights, request -> what the reason must say, or None where it is served
REQUESTS: list[tuple[str, str, bool, dict[str, Any], str | None]] = [
    ("xla", "cpu", True, {"queries": 7, "dtype": jnp.float32, "dense": jnp.ones((1, 1, 7, 256), bool)}, None),
    ("cudnn", "gpu", False, {}, None),
    ("cudnn", "gpu", False, {"key_lengths": LENGTHS, "causal": True}, None),
    ("cudnn", "gpu", False, {"queries": 7, "keys": 11, "dtype": jnp.float16}, None),
    ("cudnn", "cpu", False, {}, "needs a GPU, the platform is cpu"),
    ("cudnn", "gpu", True, {}, "attention_dropout > 0"),
    ("cudnn", "gpu", False, {"dense": jnp.ones((1, 1, 256, 256), bool)}, "not a dense mask"),
    ("cudnn", "gpu", False, {"causal": True, "query_offset": 3}, "cached decoding"),
    ("cudnn", "gpu", False, {"causal": True, "query_offset": jnp.array(0)}, "cached decoding"),
    ("cudnn", "gpu", False, {"causal": True, "queries": 7}, "as many queries as keys"),
    ("cudnn", "gpu", False, {"dtype": jnp.float32}, "got float32"),
    ("cudnn", "gpu", False, {"head_dim": 12}, "multiple of 8"),
    ("cudnn", "gpu", False, {"head_dim": 136}, "up to 128"),
    ("cudnn", "gpu", False, SEGMENTS, "cannot tell the segments of packed rows apart"),
    ("flash", "tpu", False, {}, None),
    ("flash", "tpu", False, {"causal": True, **SEGMENTS}, None),
    ("flash", "tpu", False, {"key_lengths": LENGTHS, **SEGMENTS}, "segments or key lengths, not both"),
    ("flash", "tpu", False, {"queries": 128, "dtype": jnp.float32, "key_lengths": LENGTHS}, None),
    ("flash", "tpu", False, {"head_dim": 256}, None),
    ("flash", "gpu", False, {}, "needs a TPU, the platform is gpu"),
    ("flash", "tpu", True, {}, "attention_dropout > 0"),
    ("flash", "tpu", False, {"dense": jnp.ones((1, 1, 256, 256), bool)}, "not a dense mask"),
    ("flash", "tpu", False, {"causal": True, "query_offset": 3}, "cached decoding"),
    ("flash", "tpu", False, {"causal": True, "queries": 128}, "as many queries as keys"),
    ("flash", "tpu", False, {"dtype": jnp.float16}, "got float16"),
    ("flash", "tpu", False, {"head_dim": 136}, "at most 128 or a multiple"),
    ("flash", "tpu", False, {"keys": 250}, "256 queries and 250 keys"),
]


@pytest.mark.parametrize(("backend", "platform", "drops", "request_", "reason"), REQUESTS)
def test_a_backend_says_what_it_cannot_serve(
    backend: Any, platform: str, drops: bool, request_: dict[str, Any], reason: str | None, caplog: Any
) -> None:
    query, key, mask = request_of(**request_)
    reason_given = backends.unsupported_reason(backend, query, key, mask, drops, platform)
    fastest = {"gpu": "cudnn", "tpu": "flash", "cpu": "xla"}[platform]
    backends._log_once.cache_clear()
    with caplog.at_level(logging.INFO):
        chosen = backends.choose_backend("auto", query, key, mask, drops, platform)
        again = backends.choose_backend("auto", query, key, mask, drops, platform)
    assert chosen == again
    if reason is None:
        assert reason_given is None
        assert backends.choose_backend(backend, query, key, mask, drops, platform) == backend
        assert chosen == backend
        assert not caplog.messages
        return
    assert reason in (reason_given or "")
    with pytest.raises(UserError, match=f"attention_backend='{backend}' .*; choose another backend, or auto"):
        backends.choose_backend(backend, query, key, mask, drops, platform)
    if backend == fastest:
        assert chosen == "xla"
        assert caplog.messages == [f"attention falls back from {backend} to xla: {backend} {reason_given}"]


# platform, drops weights, request -> what auto takes where no flash kernel can serve
LONG: list[tuple[str, bool, dict[str, Any], str]] = [
    ("cpu", True, {"queries": 384, "keys": 384}, "xla"),
    ("cpu", False, {"queries": 512, "keys": 511}, "xla"),
    ("cpu", False, {"queries": 1, "keys": 65536}, "xla"),
    ("cpu", False, {"queries": 512, "keys": 512}, "blockwise"),
    ("cpu", True, {"queries": 8192, "keys": 8192, "causal": True, "query_offset": 3}, "blockwise"),
    ("gpu", False, {"queries": 8192, "keys": 8192}, "cudnn"),
    ("gpu", False, {"queries": 8192, "keys": 8192, "dtype": jnp.float32}, "blockwise"),
    ("gpu", True, {"queries": 2048, "keys": 2048}, "xla"),
    ("tpu", False, {"queries": 8192, "keys": 8192}, "flash"),
    ("tpu", True, {"queries": 8192, "keys": 8192}, "blockwise"),
]


@pytest.mark.parametrize(("platform", "drops", "request_", "expected"), LONG)
def test_auto_takes_blocks_where_plain_attention_would_be_long(
    platform: str, drops: bool, request_: dict[str, Any], expected: str
) -> None:
    query, key, mask = request_of(**request_)
    assert backends.choose_backend("auto", query, key, mask, drops, platform) == expected
    assert backends.choose_backend("xla", query, key, mask, drops, platform) == "xla"
    assert backends.choose_backend("blockwise", query, key, mask, drops, platform) == "blockwise"
    with recording(Recorder({})):
        seen = backends.choose_backend("auto", query, key, mask, drops, platform)
    assert seen == ("xla" if expected == "blockwise" else expected)


@pytest.mark.parametrize("backend", ["cudnn", "flash"])
def test_a_named_kernel_that_is_not_here_is_refused_by_both_twins(backend: str) -> None:
    if (backend, jax.default_backend()) in (("cudnn", "gpu"), ("flash", "tpu")):
        pytest.skip(f"{backend} is here")
    config = small(attention_backend=backend)
    flax_twin = flax_attention.MultiHeadAttention(config, is_self_attention=True, rngs=nnx.Rngs(0))
    x = jnp.zeros((ROWS, TARGET, config.d_model))
    with pytest.raises(UserError, match=f"attention_backend='{backend}' needs a"):
        flax_twin(x, flax_twin.project(x), AttentionMask())
    with pytest.raises(UserError, match=f"attention_backend='{backend}' is not available in PyTorch"):
        torch_attention.MultiHeadAttention(config, is_self_attention=True)


def test_pytorch_attends_plainly_where_blocks_are_asked_for() -> None:
    torch.manual_seed(0)
    twin = torch_attention.MultiHeadAttention(small(attention_backend="blockwise"), is_self_attention=True)
    plain = torch_attention.MultiHeadAttention(small(), is_self_attention=True)
    plain.load_state_dict(twin.state_dict())
    x = torch.randn(ROWS, TARGET, small().d_model)
    mask = torch_masks.AttentionMask(causal=True)
    assert same_bits(twin(x, twin.project(x), mask), plain(x, plain.project(x), mask))


KERNEL_MASKS = {
    "none": (128, 256, {}),
    "ragged": (128, 256, {"key_lengths": np.array([256, 0, 131], np.int32)}),
    "causal and ragged": (256, 256, {"causal": True, "key_lengths": np.array([256, 0, 131], np.int32)}),
    "in several blocks": (384, 384, {"causal": True, "key_lengths": np.array([384, 0, 131], np.int32)}),
}


def mask_of(parts: dict[str, Any]) -> AttentionMask:
    lengths = {"key_lengths": jnp.asarray(parts["key_lengths"])} if "key_lengths" in parts else {}
    return AttentionMask(**{**parts, **lengths})


def attend(
    attention: Any, queries: int, keys: int, mask: dict[str, Any], dtype: Any, head_dim: int
) -> list[np.ndarray]:
    """The output, and the gradients of query, key and value."""
    rng, rows = np.random.default_rng(0), len(mask.get("key_lengths", [0]))
    *inputs, upstream = (
        jnp.asarray(rng.standard_normal((rows, length, 2, head_dim)), dtype)
        for length in (queries, keys, keys, queries)
    )
    output, pull_back = jax.vjp(lambda *inputs: attention(*inputs, mask_of(mask)), *inputs)
    results = [np.asarray(array, np.float64) for array in (output, *pull_back(upstream))]
    assert all(np.isfinite(array).all() for array in results)
    if "key_lengths" in mask:
        assert (results[0][mask["key_lengths"] == 0] == 0).all()
    return results


@pytest.mark.slow
@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize(("queries", "keys", "mask"), KERNEL_MASKS.values(), ids=KERNEL_MASKS)
def test_the_tpu_kernel_attends_like_plain_attention(queries: int, keys: int, mask: dict[str, Any]) -> None:
    request_ = queries, keys, mask, jnp.float32, 16
    by_kernel = attend(flash_attention, *request_)
    output, *gradients = figures(by_kernel, attend(flax_attention.plain_attention, *request_), "float32")
    assert output <= OPERATION
    assert max(gradients) <= GRADIENT["float32"]


@pytest.mark.usefixtures("interpreted")
def test_the_tpu_kernel_attends_like_plain_attention_in_one_tile() -> None:
    lengths = np.array([0, 31], np.int32)
    request_ = 128, 128, {"causal": True, "key_lengths": lengths}, jnp.float32, 16
    by_kernel = attend(flash_attention, *request_)
    output, *gradients = figures(by_kernel, attend(flax_attention.plain_attention, *request_), "float32")
    assert output <= OPERATION
    assert max(gradients) <= GRADIENT["float32"]
    for mistake in ({"key_lengths": lengths}, {"causal": True, "key_lengths": lengths + 1}):
        mistaken = attend(flax_attention.plain_attention, 128, 128, mistake, jnp.float32, 16)
        assert min(figures(by_kernel, mistaken, "float32")) > 1e4


@pytest.mark.parametrize(("queries", "keys", "mask"), KERNEL_MASKS.values(), ids=KERNEL_MASKS)
def test_the_tpu_kernel_compiles_to_a_kernel(queries: int, keys: int, mask: dict[str, Any]) -> None:
    query, key = (jnp.zeros((3, length, 2, 64), jnp.bfloat16) for length in (queries, keys))
    flash = jax.jit(lambda query, key, value: flash_attention(query, key, value, mask_of(mask)))
    assert "tpu_custom_call" in flash.trace(query, key, key).lower(lowering_platforms=("tpu",)).as_text()
    plain = jax.jit(lambda query, key, value: flax_attention.plain_attention(query, key, value, mask_of(mask)))
    assert "tpu_custom_call" not in plain.trace(query, key, key).lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("queries", "keys", "mask"), KERNEL_MASKS.values(), ids=KERNEL_MASKS)
def test_the_gpu_kernel_attends_like_plain_attention(queries: int, keys: int, mask: dict[str, Any]) -> None:
    request_ = queries, keys, mask, jnp.bfloat16, 64
    kernels = cudnn_attention, flax_attention.plain_attention
    by_kernel, plain = (attend(attention, *request_) for attention in kernels)
    assert max(figures(by_kernel, plain, "bfloat16")) <= BFLOAT16
