"""Position tables are equal bit for bit and follow the written formulas, at any width and far out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from twins import OPERATION, ROWS, SOURCE, same_bits, small, to_numpy, to_torch, torch_weights, twin_modules, ulps

import flax_transformer.nn.positions as flax_positions
import torch_reference.nn.positions as torch_positions
from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError

KINDS = ["sinusoidal", "learned", "rope", "none"]
HEADS, HEAD_DIM = 3, 14
FAR = 5003


def sinusoid(position: int, column: int, d_model: int) -> float:
    """As section 3.5 of the paper has it, with its i = column // 2."""
    angle = position / 10000.0 ** (2 * (column // 2) / d_model)
    return math.sin(angle) if column % 2 == 0 else math.cos(angle)


def turned(x: np.ndarray, offset: int) -> np.ndarray:
    """Rotary positions by complex numbers: pair i at position p is multiplied by exp(1j * p * 10000^(-2i/d))."""
    half = x.shape[-1] // 2
    pairs = x[..., :half] + 1j * x[..., half:]
    angles = np.array([[(offset + p) / 10000.0 ** (i / half) for i in range(half)] for p in range(x.shape[1])])
    pairs = pairs * np.exp(1j * angles)[None, :, None]
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def encodings(config: ModelConfig) -> tuple[flax_positions.PositionalEncoding, torch_positions.PositionalEncoding]:
    modules = flax_positions.PositionalEncoding, torch_positions.PositionalEncoding
    return twin_modules(*modules, config, parent="source_embedding.positions")


@pytest.mark.parametrize("d_model", [2, 13, 64, 127])
def test_sinusoids_follow_the_formula(d_model: int) -> None:
    table = flax_positions.sinusoidal_table(FAR, d_model)
    assert same_bits(table, torch_positions.sinusoidal_table(FAR, d_model))
    rows = [0, 1, 2, 17, FAR - 1]
    expected = np.array([[sinusoid(p, k, d_model) for k in range(d_model)] for p in rows])
    # An angle of thousands is itself rounded, by up to half a spacing, before and after the power.
    np.testing.assert_allclose(table[rows], expected, rtol=0, atol=2 * np.spacing(float(FAR)))
    if d_model > 2:  # with two columns all variants are one
        assert np.abs(halves_side_by_side(d_model)[rows] - expected).max() > 0.1
        assert np.abs(doubled_exponent(d_model)[rows] - expected).max() > 0.1


def halves_side_by_side(d_model: int) -> np.ndarray:
    """A mutant, seen in the wild: all sines, then all cosines."""
    angles = np.arange(FAR)[:, None] * 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :d_model]


def doubled_exponent(d_model: int) -> np.ndarray:
    """A mutant, seen in the wild: the exponent 2i/d taken with i already doubled."""
    columns = np.arange(d_model)
    angles = np.arange(FAR)[:, None] * 10000.0 ** (-2 * (columns - columns % 2) / d_model)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


@pytest.mark.parametrize("d_model", [13, 64])
def test_far_positions_are_exact_in_float32(d_model: int) -> None:
    config = small(d_model=d_model, num_heads=1, max_length=FAR)
    zeros = np.zeros((1, SOURCE, d_model), np.float32)
    offset = FAR - SOURCE
    added = flax_positions.PositionalEncoding(config, rngs=nnx.Rngs(0))(jnp.asarray(zeros), offset)
    assert same_bits(added, torch_positions.PositionalEncoding(config)(to_torch(zeros), offset))
    expected = np.array([[sinusoid(p, k, d_model) for k in range(d_model)] for p in range(offset, FAR)])
    rounding = np.spacing(np.float32(1)) / 2
    np.testing.assert_allclose(np.asarray(added[0], np.float64), expected, rtol=0, atol=rounding)
    angles = np.arange(offset, FAR, dtype=np.float32)[:, None] * np.float32(10000) ** np.float32(-2 / d_model)
    assert np.abs(np.sin(angles[:, 0]) - expected[:, 2]).max() > 100 * rounding


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0, 6])
def test_positions_are_added_alike(kind: str, offset: int, dtype: str) -> None:
    config = small(dtype, positions=kind)
    flax_twin, torch_twin = encodings(config)
    x = np.random.default_rng(0).standard_normal((ROWS, SOURCE, config.d_model)).astype(dtype)
    given = flax_twin(jnp.asarray(x), offset)
    assert same_bits(given, torch_twin(to_torch(x), offset))
    assert same_bits(given, jax.jit(lambda x, offset: flax_twin(x, offset))(jnp.asarray(x), jnp.asarray(offset)))
    if kind in ("rope", "none"):
        assert same_bits(given, x)
    else:
        assert not same_bits(given, flax_twin(jnp.asarray(x), offset + 1 if offset == 0 else offset - 1))


def test_a_learned_table_is_read_at_the_positions_of_the_tokens() -> None:
    config = small(positions="learned")
    flax_twin, torch_twin = encodings(config)
    zeros = np.zeros((ROWS, SOURCE, config.d_model), np.float32)
    expected = np.broadcast_to(torch_weights(torch_twin)["table"][6 : 6 + SOURCE], zeros.shape).copy()
    assert same_bits(flax_twin(jnp.asarray(zeros), 6), expected)
    assert same_bits(torch_twin(to_torch(zeros), 6), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("length", "offset"), [(18, 0), (SOURCE, 7), (1, 17)])
def test_a_sequence_over_max_length_is_refused(kind: str, length: int, offset: int) -> None:
    config = small(positions=kind, max_length=17)
    flax_twin, torch_twin = encodings(config)
    x = np.zeros((1, length, config.d_model), np.float32)
    expected = "expected at most max_length=17 positions, got 18; shorten the input"
    with pytest.raises(UserError, match=expected):
        flax_twin(jnp.asarray(x), offset)
    with pytest.raises(UserError, match=expected):
        torch_twin(to_torch(x), offset)
    assert flax_twin(jnp.asarray(x[:, :-1]), offset).shape == torch_twin(to_torch(x[:, :-1]), offset).shape


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_an_offset_known_only_at_run_time_never_repeats_the_last_position(kind: str) -> None:
    config = small(positions=kind, max_length=17)
    encode, _ = encodings(config)
    x = jnp.zeros((1, 2, config.d_model))
    beyond = jax.jit(lambda offset: encode(x, offset))(jnp.asarray(16))
    assert np.isfinite(beyond[:, 0]).all()
    assert np.isnan(beyond[:, 1]).all()


def test_rotations_beyond_the_table_never_repeat_the_last_one() -> None:
    x = jnp.ones((1, 2, HEADS, HEAD_DIM))
    beyond = jax.jit(lambda offset: flax_positions.apply_rope(x, offset, max_length=17))(jnp.asarray(16))
    assert np.isfinite(beyond[:, 0]).all()
    assert np.isnan(beyond[:, 1]).all()


@pytest.mark.parametrize("offset", [0, FAR - SOURCE])
def test_rotations_are_products_of_complex_numbers(offset: int, dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((ROWS, SOURCE, HEADS, HEAD_DIM)).astype(dtype)
    flax_turned = flax_positions.apply_rope(jnp.asarray(x), offset, FAR)
    torch_turned = torch_positions.apply_rope(to_torch(x), offset, FAR)
    assert same_bits(flax_positions.rotary_table(FAR, HEAD_DIM), torch_positions.rotary_table(FAR, HEAD_DIM))
    assert ulps(flax_turned, torch_turned) <= OPERATION
    # The angle, of up to 5003, is rounded in float64; float32 sees nothing of it.
    angle_error = FAR if dtype == "float64" else 0
    expected = turned(x.astype(np.float64), offset).astype(dtype)
    assert ulps(torch_turned, expected) <= OPERATION + angle_error
    side_by_side = np.stack([x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]], axis=-1).reshape(x.shape)
    assert ulps(torch_positions.apply_rope(to_torch(side_by_side), offset, FAR), expected) > 1e5 + angle_error


def test_rotated_scores_depend_on_the_distance_alone() -> None:
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, 1, 1, HEADS, HEAD_DIM))

    def score(query_at: int, key_at: int) -> np.ndarray:
        turned_query = torch_positions.apply_rope(to_torch(query), query_at, FAR)
        return to_numpy((turned_query * torch_positions.apply_rope(to_torch(key), key_at, FAR)).sum(dim=-1))

    np.testing.assert_allclose(score(4100, 4003), score(97, 0), rtol=0, atol=1e-11)
    assert np.abs(score(4100, 4002) - score(97, 0)).max() > 1e-3
