"""Logits over the key-value cache against those of one pass over the whole target."""

import pytest
from cached_logits import Target, assert_cached_equals_full, flax_logits, torch_logits, worst_position
from generators import draw_weights, make_flax, make_torch, small
from mutation import mutated


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", "none"])
@pytest.mark.sample(1)
def test_cached_logits_are_those_of_a_full_pass(positions: str, dtype: str) -> None:
    assert_cached_equals_full(small(dtype, positions=positions))


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
