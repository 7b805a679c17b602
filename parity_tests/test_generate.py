"""Generation: the cache against re-running the prefix, the twins against each other and against the naive generator."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from mutation import mutated
from naive import Output, generate_naively

from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.data.generation import Constraint, check_request, check_settings, padded_width, uniform_draws
from flax_transformer.decoding import generate as flax_generate
from flax_transformer.decoding import step as flax_next_token
from flax_transformer.errors import UserError
from flax_transformer.interop import state_dict as bridge
from flax_transformer.nn import models as flax_models
from flax_transformer.parity.measure import EPS
from torch_reference.decoding import generate as torch_generate
from torch_reference.decoding import step as torch_next_token
from torch_reference.nn import models as torch_models

SOURCE_LENGTHS = np.array([6, 1, 0, 4], np.int32)


class Twins(NamedTuple):
    flax: Any
    torch: Any


def draw_weights(config: ModelConfig, seed: int, scale: float = 0.7) -> dict[str, np.ndarray]:
    """Normal weights in PyTorch's names and layouts, large enough that outputs vary from row to row."""
    rng = np.random.default_rng(seed)
    state = torch_models.create_model(config, seed=0).state_dict()
    return {
        key: (scale * rng.standard_normal(tensor.shape)).astype(config.param_dtype) for key, tensor in state.items()
    }


def make_flax(config: ModelConfig, weights: dict[str, np.ndarray]) -> Any:
    """The Flax model as its module has it at the time, which may hold a mutant."""
    converted = bridge.from_torch(weights)
    graph, abstract = nnx.split(nnx.eval_shape(lambda: flax_models.create_model(config, seed=0)))
    params = [
        (path, param.replace(jnp.asarray(converted[".".join(map(str, path))])))
        for path, param in nnx.to_flat_state(abstract)
    ]
    return nnx.merge(graph, nnx.from_flat_state(params))


def make_torch(config: ModelConfig, weights: dict[str, np.ndarray]) -> Any:
    model = torch_models.create_model(config, seed=0).eval()
    model.load_state_dict({key: torch.tensor(array) for key, array in weights.items()})
    return model


def make_twins(config: ModelConfig, seed: int) -> Twins:
    weights = draw_weights(config, seed)
    return Twins(make_flax(config, weights), make_torch(config, weights))


def draw_ending_weights(config: ModelConfig, seed: int, step: int) -> dict[str, np.ndarray]:
    """Weights of a model that tends to end its outputs about ``step``, which random ones seldom do.

    The end token changes places with the token that the model would have generated there.
    """
    weights = draw_weights(config, seed)
    probe = run_torch(make_torch(config, weights), draw_source(config, seed), GenerationConfig(step + 1))
    swapped = [probe.tokens[0, step], config.eos_id]
    target_table = "source_table.weight" if config.tie_embeddings == "all" else "target_table.weight"
    for key in {target_table, "projection.weight", "projection.bias"} & weights.keys():
        weights[key][swapped] = weights[key][swapped[::-1]]
    return weights


def small(dtype: str, **changes: Any) -> ModelConfig:
    sizes = {"d_model": 16, "num_heads": 2, "d_ff": 13, "num_encoder_layers": 1, "num_decoder_layers": 2}
    vocabulary = {"source_vocab_size": 11, "target_vocab_size": 11, "max_length": 24}
    return ModelConfig(**{"dtype": dtype, "param_dtype": dtype, "dropout": 0.0, **sizes, **vocabulary, **changes})


def draw_source(config: ModelConfig, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (len(SOURCE_LENGTHS), int(SOURCE_LENGTHS.max()))
    return rng.integers(3, config.source_vocab_size, shape).astype(np.int32)


# Cached = uncached


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


# Flax = torch = naive


def draw_configs(seed: int) -> tuple[ModelConfig, GenerationConfig]:
    """Any variant of the model with any way to generate; small vocabularies, so that many rows end before the limit."""
    rng = np.random.default_rng(seed)

    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    vocab_size = int(rng.integers(6, 14))
    model = small(
        "float64",
        d_model=pick(8, 12, 16),
        num_heads=pick(1, 2),
        num_decoder_layers=pick(1, 2),
        positions=pick("sinusoidal", "learned", "rope", "none"),
        norm_first=pick(True, False),
        final_norm=pick(True, False),
        activation=pick("relu", "gelu", "gelu_tanh", "silu"),
        scale_embeddings=pick(True, False),
        tie_embeddings=pick("all", "none"),
        bias=pick(True, False),
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
    )
    strategy = ("greedy", "beam", "sample", "beam")[seed % 4]
    limit, width = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    return model, GenerationConfig(
        limit,
        min_new_tokens=pick(0, 0, min(2, limit)),
        strategy=strategy,
        prefix=pick((), (), (3,)),
        repetition_penalty=pick(1.0, 1.3),
        temperature=pick(0.7, 1.0, 1.5),
        top_k=pick(0, 3),
        top_p=pick(1.0, 0.8),
        seed=seed,
        beam_width=width,
        length_penalty=pick("gnmt", "mean"),
        length_alpha=pick(0.0, 0.6, 1.0, 1.5),
        early_stopping=pick(True, False),
        n_best=int(rng.integers(1, width + 1)) if strategy == "beam" else 1,
        num_tokens=pick(None, vocab_size - 2),
    )


class Result(NamedTuple):
    """A generation on the host."""

    tokens: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray
    stopped_by_eos: np.ndarray


def run_flax(model: Any, source: np.ndarray, config: GenerationConfig, **options: Any) -> Result:
    return Result(*jax.device_get(flax_generate.generate(model, source, SOURCE_LENGTHS, config, **options)))


def run_torch(model: Any, source: np.ndarray, config: GenerationConfig, **options: Any) -> Result:
    ids, lengths = torch.tensor(source), torch.tensor(SOURCE_LENGTHS)
    return Result(*(tensor.numpy() for tensor in torch_generate.generate(model, ids, lengths, config, **options)))


def run_naively(
    model: Any, source: np.ndarray, config: GenerationConfig, constraint: Constraint | None = None
) -> Result:
    """What the naive generator finds, row by row, in the form of the others; rows without a source stay empty."""
    found: list[Output | None] = []
    for row, length in enumerate(SOURCE_LENGTHS):
        ids = torch.tensor(source[row, :length])
        outputs = generate_naively(model, ids, config, constraint, row_seed=row) if length else []
        found += [*outputs, *[None] * (config.n_best - len(outputs))]
    model_config = model.config
    tokens = np.full((len(found), config.max_new_tokens), model_config.pad_id)
    for row, output in enumerate(found):
        if output is not None:
            tokens[row, : len(output.tokens)] = output.tokens
    missing = 0.0 if config.strategy != "beam" else -np.inf
    return Result(
        tokens,
        np.array([0 if output is None else len(output.tokens) for output in found]),
        np.array([missing if output is None else output.score for output in found]),
        np.array([output is not None and output.tokens[-1] == model_config.eos_id for output in found]),
    )


def assert_same(result: Result, expected: Result) -> None:
    np.testing.assert_array_equal(result.tokens, expected.tokens)
    np.testing.assert_array_equal(result.lengths, expected.lengths)
    np.testing.assert_array_equal(result.stopped_by_eos, expected.stopped_by_eos)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=1e-10)


def draw_cases(seed: int) -> tuple[ModelConfig, GenerationConfig, list[dict[str, np.ndarray]]]:
    """Two models for each config, one of which tends to end its outputs before the limit."""
    config, generation = draw_configs(seed)
    ending = draw_ending_weights(config, seed, step=generation.max_new_tokens // 2)
    return config, generation, [draw_weights(config, seed + 1000), ending]


# Seed 77 has no positions and repeats the begin token, so that two of its outputs are equally probable.
MORE_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 136) if seed != 77]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", [*range(6), *MORE_SEEDS])
@pytest.mark.sample(1)
def test_both_twins_generate_what_the_naive_generator_does(seed: int) -> None:
    """20 pairs of twins by default and 270 in all, 200 of them by greedy and beam search."""
    model_config, config, weights_of_cases = draw_cases(seed)
    for weights in weights_of_cases:
        twins = Twins(make_flax(model_config, weights), make_torch(model_config, weights))
        source = draw_source(model_config, seed)
        expected = run_naively(twins.torch, source, config)
        assert_same(run_torch(twins.torch, source, config), expected)
        assert_same(run_flax(twins.flax, source, config), expected)


def test_random_cases_are_not_all_alike() -> None:
    """What the comparison above is worth: rows stop for both reasons and at many lengths, by every strategy."""
    stops, lengths, strategies = [], set(), set()
    for seed in range(10):
        model_config, config, weights_of_cases = draw_cases(seed)
        strategies.add(config.strategy)
        result = run_torch(
            make_torch(model_config, weights_of_cases[seed % 2]), draw_source(model_config, seed), config
        )
        stops += result.stopped_by_eos[result.lengths > 0].tolist()
        lengths |= set(result.lengths.tolist())
    assert 0.2 < np.mean(stops) < 0.8
    assert len(lengths) >= 5
    assert strategies == {"greedy", "sample", "beam"}


# Constraints

LETTERS, DIGITS = (3, 4, 5), (6, 7)


def letter_then_digits() -> Constraint:
    """A letter, and one or more digits: states before it, behind it, behind a digit, and behind the end token."""
    transitions = np.full((4, 11), -1, np.int32)
    transitions[0, LETTERS] = 1
    transitions[1, DIGITS] = 2
    transitions[2, DIGITS] = 2
    transitions[2, 2] = 3
    return Constraint(transitions, np.array([3, 2, 1, 0], np.int32))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
@pytest.mark.slow
def test_a_constraint_holds_in_both_twins(strategy: Any) -> None:
    config = small("float64")
    settings = GenerationConfig(5, strategy=strategy, beam_width=3, n_best=3 if strategy == "beam" else 1)
    for seed in range(3):
        twins, source = make_twins(config, seed), draw_source(config, seed)
        expected = run_naively(twins.torch, source, settings, letter_then_digits())
        for run, model in ((run_torch, twins.torch), (run_flax, twins.flax)):
            result = run(model, source, settings, constraint=letter_then_digits())
            assert_same(result, expected)
        outputs = [row[:length].tolist() for row, length in zip(expected.tokens, expected.lengths, strict=True)]
        for first, *digits, last in filter(None, outputs):
            assert first in LETTERS
            assert digits
            assert set(digits) <= set(DIGITS)
            assert last == config.eos_id
        free = run_torch(twins.torch, source, settings)
        assert not np.array_equal(free.tokens, expected.tokens)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 2}, "max_new_tokens: expected at least 3, the shortest output"),
        ({"max_new_tokens": 5, "min_new_tokens": 1}, "min_new_tokens: a constraint says"),
        ({"max_new_tokens": 5, "prefix": (6,)}, "prefix: expected what the constraint allows"),
    ],
)
def test_settings_that_contradict_a_constraint_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings(small("float32"), GenerationConfig(**settings), letter_then_digits())


def test_a_constraint_of_another_vocabulary_is_refused() -> None:
    config = small("float32", source_vocab_size=12, target_vocab_size=12)
    with pytest.raises(UserError, match="constraint: expected one of 12 token ids, got one of 11"):
        check_settings(config, GenerationConfig(5), letter_then_digits())


# Beam search


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_a_beam_of_one_is_greedy() -> None:
    """With any length penalty where the first complete output ends the search; without one, also where it need not."""
    config = small("float64", target_vocab_size=7, source_vocab_size=7)
    beam = GenerationConfig(9, strategy="beam", beam_width=1, length_alpha=1.5)
    stops = set()
    for seed, weights in enumerate(
        [draw_weights(config, 0), *(draw_ending_weights(config, step, step) for step in (1, 2))]
    ):
        model, source = make_flax(config, weights), draw_source(config, seed)
        greedy = run_flax(model, source, GenerationConfig(9))
        for search in (beam, dataclasses.replace(beam, early_stopping=False, length_alpha=0.0)):
            found = run_flax(model, source, search)
            np.testing.assert_array_equal(found.tokens, greedy.tokens)
            np.testing.assert_array_equal(found.stopped_by_eos, greedy.stopped_by_eos)
        stops |= set(greedy.stopped_by_eos[SOURCE_LENGTHS > 0].tolist())
    assert stops == {True, False}


def enumerate_best(
    model: Any, source: np.ndarray, letters: list[int], config: GenerationConfig
) -> tuple[list[int], float]:
    """The best of all outputs over ``letters`` for the first source, all of them scored by one pass."""
    eos, limit = model.config.eos_id, config.max_new_tokens
    rows = itertools.product([*letters, eos], repeat=limit)
    outputs = sorted({row[: row.index(eos) + 1] if eos in row else row for row in rows})
    lengths = torch.tensor([len(output) for output in outputs])
    tokens = torch.tensor([[*output, *[0] * (limit - len(output))] for output in outputs])
    target = torch.cat([torch.full((len(outputs), 1), model.config.bos_id), tokens[:, :-1]], dim=1)
    ids = torch.tensor(source[:1]).expand(len(outputs), -1)
    with torch.no_grad():
        logits = model(ids, target, torch.tensor(SOURCE_LENGTHS[:1]).expand(len(outputs)), lengths)
    gains = torch.log_softmax(logits, -1).gather(2, tokens[:, :, None])[:, :, 0]
    sums = torch.where(torch.arange(limit)[None] < lengths[:, None], gains, 0).sum(dim=1)
    counts = lengths.to(sums.dtype)
    base = (5 + counts) / 6 if config.length_penalty == "gnmt" else counts
    scores = sums / base**config.length_alpha
    return list(outputs[int(scores.argmax())]), float(scores.max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "options",
    [
        {"length_penalty": "gnmt", "length_alpha": 0.6, "early_stopping": True},
        {"length_penalty": "mean", "length_alpha": 2.0, "early_stopping": False},
    ],
)
@pytest.mark.sample(1)
def test_a_wide_beam_finds_the_best_of_all_outputs(options: dict[str, Any]) -> None:
    """Of 27 outputs no more than 3 * 3 prefixes stand at a time before the last step, so 16 beams leave none out."""
    letters = [3, 4, 5]
    config = small("float64", source_vocab_size=16, target_vocab_size=16, tie_embeddings="none")
    search = GenerationConfig(3, strategy="beam", beam_width=16, **options)
    missed = 0
    for seed in range(4):
        weights = draw_weights(config, seed, scale=0.3)
        weights["projection.bias"] = np.full(16, -50.0)
        weights["projection.bias"][[*letters, config.eos_id]] = 0.0
        model, source = make_torch(config, weights), draw_source(config, seed)
        best, score = enumerate_best(model, source, letters, search)
        found = run_flax(make_flax(config, weights), source, search)
        assert found.tokens[0, : found.lengths[0]].tolist() == best
        np.testing.assert_allclose(found.scores[0], score, rtol=0, atol=1e-10)
        greedy = run_torch(model, source, GenerationConfig(3))
        missed += greedy.tokens[0, : greedy.lengths[0]].tolist() != best
    assert missed > 0, "greedy finds the best too, so nothing is searched for"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param(
            "decoding/beam.py", "jax.tree.map(lambda leaf: leaf[rows], outputs)", "outputs", id="cache not reordered"
        ),
        pytest.param("decoding/beam.py", "(5 + length) / 6", "length / 6", id="another length penalty"),
        pytest.param(
            "decoding/step.py", "outputs.sequences, step, 1", "outputs.sequences, step - 1, 1", id="token before"
        ),
    ],
)
@pytest.mark.sample(1)
def test_a_mistake_in_the_search_shows(file: str, old: str, new: str) -> None:
    config = small("float64", target_vocab_size=7, source_vocab_size=7)
    search = GenerationConfig(7, strategy="beam", beam_width=3, n_best=3, length_alpha=1.0, early_stopping=False)
    weights, source = draw_weights(config, seed=1), draw_source(config, seed=1)
    expected = run_torch(make_torch(config, weights), source, search)
    assert_same(run_flax(make_flax(config, weights), source, search), expected)
    with mutated(f"flax_transformer/{file}", old, new):
        mistaken = run_flax(make_flax(config, weights), source, search)
    with pytest.raises(AssertionError):
        assert_same(mistaken, expected)


# Sampling


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
