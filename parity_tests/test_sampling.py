"""Sampling: how often each token is drawn, and what a draw depends on."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from generators import SOURCE_LENGTHS, draw_source, draw_weights, make_flax, run_flax, small

from flax_transformer.config import GenerationConfig
from flax_transformer.data.generation import uniform_draws
from flax_transformer.decoding import generate as flax_generate
from flax_transformer.decoding import step as flax_next_token
from torch_reference.decoding import step as torch_next_token


def test_a_row_draws_by_its_own_seed_whatever_else_is_in_the_batch() -> None:
    config = small("float32")
    model = make_flax(config, draw_weights(config, seed=0, scale=0.3))
    source = draw_source(config, seed=0)
    sampling = GenerationConfig(8, strategy="sample", seed=5, temperature=2.0)
    whole = run_flax(model, source, sampling)
    reversed_rows = flax_generate.generate(
        model, source[::-1], SOURCE_LENGTHS[::-1], sampling, row_seeds=range(len(source))[::-1]
    )
    np.testing.assert_array_equal(np.asarray(reversed_rows.tokens)[::-1], whole.tokens)
    other_seed = run_flax(model, source, dataclasses.replace(sampling, seed=6))
    assert not np.array_equal(other_seed.tokens, whole.tokens)


@pytest.mark.parametrize("draw_tokens", [flax_next_token.draw_tokens, torch_next_token.draw_tokens])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1, 0.0]),
        ({"temperature": 0.5}, np.array([0.5, 0.25, 0.15, 0.1, 0.0]) ** 2 / 0.345),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"top_p": 0.75}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"top_p": 0.76}, [5 / 9, 2.5 / 9, 1.5 / 9, 0, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, [2 / 3, 1 / 3, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(draw_tokens: Any, options: dict[str, Any], expected: Any) -> None:
    """Draws that are spread evenly over [0, 1) give each token its probability, to within one draw for each bound."""
    order = np.array([3, 0, 4, 1, 2])  # ids in no order of probability; 2 is impossible
    scores = np.full(5, -np.inf, np.float32)
    scores[order[:4]] = np.log([0.5, 0.25, 0.15, 0.1])
    draws = (np.arange(1000, dtype=np.float32) + 0.5) / 1000
    asarray = jnp.asarray if draw_tokens is flax_next_token.draw_tokens else torch.tensor
    config = GenerationConfig(strategy="sample", **options)
    tokens = np.asarray(draw_tokens(asarray(np.tile(scores, (1000, 1))), asarray(draws), config))
    frequencies = np.bincount(tokens, minlength=5)[order] / 1000
    np.testing.assert_allclose(frequencies, expected, rtol=0, atol=2e-3)


def test_the_largest_and_smallest_draws_give_possible_tokens() -> None:
    scores = np.array([[-np.inf, np.log(0.3), np.log(0.7), -np.inf]] * 2, np.float32)
    draws = np.array([0.0, 1 - 2.0**-23], np.float32)
    sampling = GenerationConfig(strategy="sample")
    for config in (sampling, dataclasses.replace(sampling, top_k=4), dataclasses.replace(sampling, top_p=0.999)):
        tokens = flax_next_token.draw_tokens(jnp.asarray(scores), jnp.asarray(draws), config)
        assert set(np.asarray(tokens).tolist()) == {1, 2}
        np.testing.assert_array_equal(
            torch_next_token.draw_tokens(torch.tensor(scores), torch.tensor(draws), config), tokens
        )


def test_draws_are_uniform_and_below_one() -> None:
    draws = uniform_draws(seed=0, row_seeds=range(200), length=500)
    assert draws.dtype == np.float32
    assert 0 <= draws.min() < 1e-3
    assert 0.999 < draws.max() < 1
    counts = np.histogram(draws, bins=100, range=(0, 1))[0]
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 160  # 99 degrees of freedom: once in 10,000 seeds
    np.testing.assert_array_equal(uniform_draws(0, [7], 500)[0], draws[7])
