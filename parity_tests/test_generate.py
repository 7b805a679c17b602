"""Generation: the twins against each other and against the naive generator; constraints."""

from typing import Any

import numpy as np
import pytest
from generators import (
    Twins,
    assert_same,
    draw_ending_weights,
    draw_source,
    draw_weights,
    make_flax,
    make_torch,
    make_twins,
    run_flax,
    run_naively,
    run_torch,
    small,
)

from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.data.generation import Constraint, check_settings
from flax_transformer.errors import UserError

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
