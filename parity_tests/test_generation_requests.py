"""Requests for generation: how many shapes are compiled, and what is refused."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from generators import SOURCE_LENGTHS, Twins, draw_source, draw_weights, make_flax, make_torch, make_twins, small

from flax_transformer.config import GenerationConfig
from flax_transformer.data.generation import check_request, padded_width
from flax_transformer.decoding import generate as flax_generate
from flax_transformer.errors import UserError
from torch_reference.decoding import generate as torch_generate

# Compiled shapes


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """What XLA compiles within the block."""
    compiled: list[str] = []

    def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_few_shapes_are_compiled_and_none_twice() -> None:
    config = small("float32", max_length=40)
    model = make_twins(config, seed=0).flax
    rng = np.random.default_rng(0)

    def run(width: int, settings: GenerationConfig) -> None:
        source = rng.integers(3, config.source_vocab_size, (2, width)).astype(np.int32)
        jax.block_until_ready(flax_generate.generate(model, source, np.array([width, 1], np.int32), settings))

    sampling = GenerationConfig(4, strategy="sample", seed=1)
    with compilations() as compiled:
        for width in (1, 2, 9, 16, 17, 24):
            run(width, sampling)
    assert len(compiled) == 2, "sources of up to 16 tokens are one shape, of up to 24 another"
    with compilations() as compiled:
        run(20, dataclasses.replace(sampling, seed=2))
        run(7, sampling)
    assert compiled == []
    with compilations() as compiled:
        run(25, sampling)
    assert len(compiled) == 1


def test_padded_widths_are_few_and_close() -> None:
    widths = [padded_width(width, 1000) for width in range(1, 1001)]
    assert sorted(set(widths)) == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000]
    assert all(width <= padded <= max(16, 1.5 * width) for width, padded in enumerate(widths, start=1))


# Bad input

GOOD = {"source": np.full((2, 3), 5, np.int32), "source_lengths": np.array([3, 2], np.int32)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": np.zeros((0, 3), np.int32), "source_lengths": np.zeros(0, np.int32)}, "source: .* shape"),
        ({"source": np.zeros((2, 0), np.int32)}, "source: .* shape"),
        ({"source_lengths": np.array([4, 2], np.int32)}, "source_lengths: expected 0 to 3"),
        ({"source_lengths": np.zeros(2, np.int32)}, "nothing but padding"),
        ({"source": np.array([[5, 5, 5], [0, 0, 0]], np.int32)}, "row 1 has a length of 2, but is only padding"),
        ({"source": np.array([[5, 11, 5], [5, 5, 5]], np.int32)}, r"source: expected ids in \[0, 11\)"),
        ({"source": np.full((2, 25), 5, np.int32)}, "max_length=24"),
        ({"config": GenerationConfig(25)}, "max_new_tokens: .*max_length=24"),
        ({"config": GenerationConfig(5, strategy="beam", beam_width=12)}, "beam_width: .*vocabulary size=11"),
        ({"config": GenerationConfig(5, strategy="sample", top_k=12)}, "top_k: .*vocabulary size=11"),
        ({"config": GenerationConfig(5, prefix=(11,))}, "prefix: "),
        ({"config": GenerationConfig(5, prefix=(2,))}, "prefix: "),
    ],
)
def test_bad_requests_are_refused_before_anything_is_compiled(options: dict[str, Any], message: str) -> None:
    arguments = {**GOOD, "config": GenerationConfig(5), **options}
    twins = make_twins(small("float32"), seed=0)
    with compilations() as compiled, pytest.raises(UserError, match=message):
        flax_generate.generate(twins.flax, **arguments)
    assert compiled == []
    tensors = {name: torch.tensor(arguments[name]) for name in ("source", "source_lengths")}
    with pytest.raises(UserError, match=message):
        torch_generate.generate(twins.torch, tensors["source"], tensors["source_lengths"], arguments["config"])


def test_lengths_that_do_not_fit_are_refused() -> None:
    """The signatures say so too, but only under a type checker."""
    with pytest.raises(UserError, match="source_lengths: expected one for each of 2 rows"):
        check_request(small("float32"), GOOD["source"], np.array([3]), GenerationConfig(5))


@pytest.mark.parametrize(
    "options",
    [
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"temperature": 0.0},
        {"top_k": -1},
        {"repetition_penalty": float("inf")},
        {"length_alpha": -0.1},
        {"max_new_tokens": 0},
        {"max_new_tokens": 3, "min_new_tokens": 4},
        {"max_new_tokens": 2, "prefix": (5, 5)},
        {"num_tokens": 0},
        {"strategy": "beam", "beam_width": 2, "n_best": 3},
        {"strategy": "greedy", "n_best": 2},
        {"strategy": "best"},
    ],
)
def test_bad_configs_are_refused(options: dict[str, Any]) -> None:
    *_, field = options
    with pytest.raises(UserError, match=rf"GenerationConfig\.{field}: expected .*, got "):
        GenerationConfig(**options)


def test_torch_refuses_a_model_in_training_mode() -> None:
    model = make_twins(small("float32"), seed=0).torch.train()
    tensors = {name: torch.tensor(array) for name, array in GOOD.items()}
    with pytest.raises(UserError, match="evaluation mode"):
        torch_generate.generate(model, tensors["source"], tensors["source_lengths"], GenerationConfig(5))


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
def test_logits_that_are_not_finite_are_told_when_read(strategy: Any) -> None:
    config = small("float32")
    weights = draw_weights(config, seed=0)
    weights["decoder.layers.0.feed_forward.up_proj.weight"][0, 0] = np.nan
    broken = Twins(make_flax(config, weights), make_torch(config, weights))
    settings = GenerationConfig(5, strategy=strategy)
    with pytest.raises(UserError, match="not finite"):
        flax_generate.read_tokens(flax_generate.generate(broken.flax, draw_source(config, 0), SOURCE_LENGTHS, settings))
    source, lengths = torch.tensor(draw_source(config, 0)), torch.tensor(SOURCE_LENGTHS)
    with pytest.raises(UserError, match="not finite"):
        torch_generate.read_tokens(torch_generate.generate(broken.torch, source, lengths, settings))


def test_read_tokens_leaves_the_end_token_out() -> None:
    generation = flax_generate.Generation(
        tokens=jnp.array([[5, 6, 2, 0], [5, 6, 7, 8], [0, 0, 0, 0]]),
        lengths=jnp.array([3, 4, 0]),
        scores=jnp.zeros(3),
        stopped_by_eos=jnp.array([True, False, False]),
    )
    assert flax_generate.read_tokens(generation) == [[5, 6], [5, 6, 7, 8], []]
