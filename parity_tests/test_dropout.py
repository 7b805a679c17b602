"""Dropout masks are random, the generator is Threefry, and both twins do the same with one mask."""

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from twins import same_bits, to_numpy, to_torch

import flax_transformer.nn.dropout as flax_dropout
import torch_reference.nn.dropout as torch_dropout
from flax_transformer.intermediates import Recorder, recording
from flax_transformer.nn.kernels import random_bits

RATES = [0.1, 0.5, 0.9]
SHAPE = (3, 53, 211)
# Five standard deviations: a sound generator exceeds them in one of two million comparisons.
SIGMAS = 5

# Random123, tests/kat_vectors: threefry2x32, 20 rounds.
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def words(*values: int) -> jax.Array:
    return jnp.asarray(np.array(values, np.uint32))


@pytest.mark.parametrize(("key", "counter", "expected"), KNOWN_ANSWERS)
def test_threefry_gives_the_known_answers(key: tuple[int, int], counter: tuple[int, int], expected: tuple) -> None:
    given = random_bits.threefry2x32(words(*key), words(counter[0]), words(counter[1]))
    assert same_bits(jnp.concatenate(given), np.array(expected, np.uint32))


def test_threefry_is_the_cipher_of_jax() -> None:
    counters = np.random.default_rng(0).integers(2**32, size=(2, 997), dtype=np.uint32)
    key = words(0x9E3779B9, 0x7F4A7C15)
    given = jnp.concatenate(random_bits.threefry2x32(key, jnp.asarray(counters[0]), jnp.asarray(counters[1])))
    assert same_bits(given, jax.extend.random.threefry_2x32(key, jnp.asarray(counters.ravel())))


def test_the_known_answers_tell_another_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_bits, "_ROTATIONS", ((13, 15, 26, 6), (17, 29, 24, 16)))
    key, counter, expected = KNOWN_ANSWERS[2]
    given = random_bits.threefry2x32(words(*key), words(counter[0]), words(counter[1]))
    assert not same_bits(jnp.concatenate(given), np.array(expected, np.uint32))


def deviation_of_rate(keep: np.ndarray, rate: float) -> float:
    """How many standard deviations the share of kept elements is off."""
    return abs(keep.mean() - (1 - rate)) / np.sqrt(rate * (1 - rate) / keep.size)


def deviation_of_independence(a: np.ndarray, b: np.ndarray, rate: float) -> float:
    """How many standard deviations the correlation of two masks is off zero."""
    centred = (a - (1 - rate)) * (b - (1 - rate)) / (rate * (1 - rate))
    return abs(centred.mean()) * np.sqrt(centred.size)


def neighbours(keep: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The mask beside itself moved by one along each of its axes."""
    pairs = []
    for axis in range(keep.ndim):
        moved = np.moveaxis(keep, axis, 0)
        pairs.append((moved[1:], moved[:-1]))
    return pairs


@pytest.mark.parametrize("rate", RATES)
def test_masks_keep_their_rate_and_are_independent(rate: float) -> None:
    key = jax.random.key(7)
    # As training draws them: by step, and by layer. (fold_in(key, i) and split(key)[i] are one key.)
    keys = [key, jax.random.key(8), *jax.random.split(key), jax.random.fold_in(jax.random.key(8), 5)]
    masks = [np.asarray(random_bits.keep_mask(key, rate, SHAPE)) for key in keys]
    assert all(deviation_of_rate(mask, rate) < SIGMAS for mask in masks)
    for mask in masks:
        assert max(deviation_of_independence(a, b, rate) for a, b in neighbours(mask)) < SIGMAS
    for i, mask in enumerate(masks):
        assert all(deviation_of_independence(mask, other, rate) < SIGMAS for other in masks[:i])


@pytest.mark.parametrize("rate", RATES)
def test_every_row_and_every_column_keeps_its_rate(rate: float) -> None:
    keep = np.asarray(random_bits.keep_mask(jax.random.key(9), rate, (509, 503)))
    for axis in (0, 1):
        deviations = [deviation_of_rate(line, rate) for line in np.moveaxis(keep, axis, 0)]
        assert max(deviations) < SIGMAS


def test_the_statistics_see_planted_mistakes() -> None:
    keep = np.asarray(random_bits.keep_mask(jax.random.key(7), 0.1, SHAPE))
    assert deviation_of_rate(keep, 0.11) > SIGMAS
    assert deviation_of_rate(~keep, 0.1) > SIGMAS
    shared_by_all_rows = np.broadcast_to(keep[:, :1], SHAPE)
    assert max(deviation_of_independence(a, b, 0.1) for a, b in neighbours(shared_by_all_rows)) > SIGMAS
    assert deviation_of_independence(keep, keep, 0.1) > SIGMAS


def test_a_mask_is_a_function_of_its_key_compiled_or_not() -> None:
    key = jax.random.key(7)
    keep = random_bits.keep_mask(key, 0.1, SHAPE)
    assert same_bits(keep, random_bits.keep_mask(key, 0.1, SHAPE))
    assert same_bits(keep, jax.jit(lambda key: random_bits.keep_mask(key, 0.1, SHAPE))(key))
    with jax.enable_x64(True):
        assert same_bits(keep, random_bits.keep_mask(key, 0.1, SHAPE))


def test_each_platform_gets_its_own_generator() -> None:
    """Compiled on this machine for another one, a step holds that one's generator."""
    traced = jax.jit(lambda key: random_bits.keep_mask(key, 0.1, SHAPE)).trace(jax.random.key(7))
    on_cpu, on_tpu, on_gpu = (
        traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu", "cuda")
    )
    assert "@_bernoulli" not in on_cpu
    assert "@_bernoulli" in on_tpu
    assert "@_bernoulli" in on_gpu


@pytest.mark.parametrize(
    ("platform", "shape", "barriers"),
    [("tpu", (2, 3, 5, 7), 1), ("tpu", (2, 5, 7), 0), ("cpu", (2, 3, 5, 7), 0), ("cuda", (2, 3, 5, 7), 0)],
)
def test_a_tpu_draws_a_mask_of_attention_weights_once(platform: str, shape: tuple[int, ...], barriers: int) -> None:
    """Not in each of the operations that read it, as XLA would have it."""
    traced = jax.jit(lambda key: random_bits.keep_mask(key, 0.1, shape)).trace(jax.random.key(7))
    lowered = traced.lower(lowering_platforms=(platform,)).as_text()
    assert lowered.count("stablehlo.optimization_barrier") == barriers


@pytest.mark.parametrize("rate", RATES)
def test_both_twins_do_the_same_with_one_mask(rate: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, upstream = rng.standard_normal((2, 5, 7, 11)).astype(dtype)
    flax_twin, torch_twin = flax_dropout.Dropout(rate), torch_dropout.Dropout(rate).train()

    with recording(Recorder({id(flax_twin): "twin"})) as recorder:
        given, pull_back = jax.vjp(lambda x: flax_twin(x, nnx.Rngs(dropout=3)), jnp.asarray(x))
        (gradient,) = pull_back(jnp.asarray(upstream))
    keep = np.asarray(recorder.values["twin.keep"])
    assert 0 < keep.sum() < keep.size

    torch_x = to_torch(x, requires_grad=True)
    with recording(Recorder({id(torch_twin): "twin"}, {"twin.keep": to_torch(keep)})):
        torch_given = torch_twin(torch_x)
    torch_given.backward(to_torch(upstream))
    assert same_bits(given, torch_given)
    assert same_bits(gradient, torch_x.grad)
    assert (to_numpy(torch_given)[~keep] == 0).all()
    np.testing.assert_allclose(np.asarray(given)[keep], x[keep] / (1 - rate), rtol=2 * np.finfo(dtype).eps)
    assert not same_bits(given, np.where(keep, x, 0).astype(dtype))  # a forgotten 1 / (1 - rate)


def test_torch_draws_with_the_rate_that_is_dropped() -> None:
    torch.manual_seed(0)
    dropped = torch_dropout.Dropout(0.1).train()(torch.ones(SHAPE))
    assert deviation_of_rate(to_numpy(dropped) != 0, 0.1) < SIGMAS


def test_evaluation_and_rate_zero_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((5, 7, 11)).astype(np.float32)
    assert same_bits(flax_dropout.Dropout(0.5)(jnp.asarray(x), None), x)
    assert same_bits(torch_dropout.Dropout(0.5).eval()(to_torch(x)), x)
    assert same_bits(torch_dropout.Dropout(0.0).train()(to_torch(x)), x)
    rngs = nnx.Rngs(dropout=0)
    assert same_bits(flax_dropout.Dropout(0.0)(jnp.asarray(x), rngs), x)
    assert rngs.dropout.count[...] == 0, "a rate of zero must not use up a key"
