"""Logits over the key-value cache against those of one pass over the whole target."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from generators import SOURCE_LENGTHS, draw_source, draw_weights, make_flax, make_torch, make_twins, small
from mutation import mutated

from flax_transformer.config import ModelConfig
from flax_transformer.parity.measure import EPS


class Target(NamedTuple):
    """Decoder input whose rows end early, and the logits of one pass over all of it."""

    source: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray

    @classmethod
    def draw(cls, config: ModelConfig) -> "Target":
        rng = np.random.default_rng(1)
        tokens = rng.integers(3, config.target_vocab_size, (len(SOURCE_LENGTHS), 12)).astype(np.int32)
        lengths = np.array([12, 5, 1, 9], np.int32)
        tokens[np.arange(12) >= lengths[:, None]] = config.pad_id
        return cls(draw_source(config, 0), tokens, lengths)


def flax_logits(model: Any, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Logits of every position: one token at a time over the cache, and from one pass."""
    graph, params = nnx.split(model)
    source, tokens, lengths = (jnp.asarray(array) for array in target)
    source_lengths = jnp.asarray(SOURCE_LENGTHS)

    @jax.jit
    def apply(params: nnx.State) -> Any:
        model = nnx.merge(graph, params)
        full = model(source, tokens, source_lengths, lengths)
        return full, model.decoder.project_memory(model.encode(source, source_lengths), source_lengths)

    @jax.jit
    def step(params: nnx.State, token: Any, offset: Any, memory: Any, cache: Any) -> Any:
        return nnx.merge(graph, params).decode(token, memory, source_lengths, offset=offset, cache=cache)

    full, memory = apply(params)
    # More room than is needed, as when outputs end before the limit.
    cache, steps = model.empty_cache(len(source), 16), []
    for offset in range(tokens.shape[1]):
        logits, cache = step(params, tokens[:, offset : offset + 1], jnp.int32(offset), memory, cache)
        steps.append(np.asarray(logits))
    return np.concatenate(steps, axis=1), np.asarray(full)


@torch.no_grad()
def torch_logits(model: Any, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`flax_logits`."""
    source, tokens, lengths = (torch.tensor(array) for array in target)
    source_lengths = torch.tensor(SOURCE_LENGTHS)
    full = model(source, tokens, source_lengths, lengths)
    memory = model.decoder.project_memory(model.encode(source, source_lengths), source_lengths)
    cache, steps = model.empty_cache(len(source), 16), []
    for offset in range(tokens.shape[1]):
        token = tokens[:, offset : offset + 1]
        logits, cache = model.decode(token, memory, source_lengths, offset=offset, cache=cache)
        steps.append(logits)
    return torch.cat(steps, dim=1).numpy(), full.numpy()


def worst_position(cached: np.ndarray, full: np.ndarray, target: Target) -> tuple[float, float]:
    """The largest difference at a real position, as it is and in ULP of the largest logit of that position."""
    real = np.arange(full.shape[1]) < target.lengths[:, None]
    difference = np.abs(cached - full).max(axis=-1)[real]
    scale = EPS[str(full.dtype)] * np.abs(full).max(axis=-1)[real]
    return float(difference.max()), float((difference / scale).max())


def assert_cached_equals_full(logits: tuple[np.ndarray, np.ndarray], target: Target) -> None:
    absolute, ulp = worst_position(*logits, target)
    if logits[0].dtype == np.float64:
        assert absolute <= 1e-10
    else:
        assert ulp <= 64


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", "none"])
@pytest.mark.sample(1)
def test_cached_logits_are_those_of_a_full_pass(positions: str, dtype: str) -> None:
    config = small(dtype, positions=positions)
    twins, target = make_twins(config, seed=0), Target.draw(config)
    assert_cached_equals_full(flax_logits(twins.flax, target), target)
    assert_cached_equals_full(torch_logits(twins.torch, target), target)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param(
            "nn/attention.py", "entry, offset, axis=2", "entry, offset + 1, axis=2", id="cache written one late"
        ),
        pytest.param("nn/models.py", "target, None, offset)", "target, None, offset + 1)", id="position one late"),
        pytest.param("nn/models.py", "causal=True, query_offset=offset)", "causal=True)", id="mask of the first token"),
        pytest.param(
            "nn/models.py",
            "offset), AttentionMask(source_lengths)",
            "offset), AttentionMask()",
            id="memory without its mask",
        ),
    ],
)
@pytest.mark.sample(1)
def test_a_mistake_in_the_cache_shows_in_float32(file: str, old: str, new: str) -> None:
    config = small("float32", positions="sinusoidal")
    target, weights = Target.draw(config), draw_weights(config, seed=0)
    _, full = torch_logits(make_torch(config, weights), target)
    with mutated(f"flax_transformer/{file}", old, new):
        mistaken, _ = flax_logits(make_flax(config, weights), target)
    assert worst_position(mistaken, full, target)[1] > 1e4
