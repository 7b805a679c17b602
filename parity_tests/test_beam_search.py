"""Beam search: one beam is greedy, a wide one finds the best of all outputs."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from generators import (
    SOURCE_LENGTHS,
    assert_same,
    draw_ending_weights,
    draw_source,
    draw_weights,
    make_flax,
    make_torch,
    run_flax,
    run_torch,
    small,
)
from mutation import mutated

from flax_transformer.config import GenerationConfig


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
