"""Logits of a generator one token at a time over its key-value cache, and from one pass over the whole target."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from generators import SOURCE_LENGTHS, draw_source, make_twins

from flax_transformer.config import ModelConfig
from flax_transformer.parity.measure import EPS


class Target(NamedTuple):
    """A source, and decoder input whose rows end early."""

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
    cached = _step_by_step(
        lambda token, offset, cache: step(params, token, jnp.int32(offset), memory, cache), model, tokens
    )
    return cached, np.asarray(full)


@torch.no_grad()
def torch_logits(model: Any, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`flax_logits`."""
    source, tokens, lengths = (torch.tensor(array) for array in target)
    source_lengths = torch.tensor(SOURCE_LENGTHS)
    full = model(source, tokens, source_lengths, lengths)
    memory = model.decoder.project_memory(model.encode(source, source_lengths), source_lengths)
    cached = _step_by_step(
        lambda token, offset, cache: model.decode(token, memory, source_lengths, offset=offset, cache=cache),
        model,
        tokens,
    )
    return cached, full.numpy()


def _step_by_step(step: Callable[[Any, int, Any], tuple[Any, Any]], model: Any, tokens: Any) -> np.ndarray:
    """``step`` takes a token, its offset and the cache, and returns logits and the next cache."""
    # More room than is needed, as when outputs end before the limit.
    cache, steps = model.empty_cache(len(tokens), 16), []
    for offset in range(tokens.shape[1]):
        logits, cache = step(tokens[:, offset : offset + 1], offset, cache)
        steps.append(np.asarray(logits))
    return np.concatenate(steps, axis=1)


def worst_position(cached: np.ndarray, full: np.ndarray, target: Target) -> tuple[float, float]:
    """The largest difference at a real position, as it is and in ULP of the largest logit of that position."""
    real = np.arange(full.shape[1]) < target.lengths[:, None]
    difference = np.abs(cached - full).max(axis=-1)[real]
    scale = EPS[str(full.dtype)] * np.abs(full).max(axis=-1)[real]
    return float(difference.max()), float((difference / scale).max())


def assert_cached_equals_full(config: ModelConfig) -> None:
    """In both twins with random weights."""
    twins, target = make_twins(config, seed=0), Target.draw(config)
    for cached, full in (flax_logits(twins.flax, target), torch_logits(twins.torch, target)):
        absolute, ulp = worst_position(cached, full, target)
        if cached.dtype == np.float64:
            assert absolute <= 1e-10, absolute
        else:
            assert ulp <= 64, ulp
