"""Cross entropy is torch.nn.CrossEntropyLoss over what is real, as a sum and a count; divergences are torch's too."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence
from torch.nn.functional import kl_div
from transformers.loss.loss_utils import ForMaskedLMLoss
from twins import (
    GRADIENT,
    LOSS,
    ROWS,
    SIZES,
    TARGET,
    TARGET_LENGTHS,
    assert_passed,
    same_bits,
    small,
    to_numpy,
    to_torch,
    ulps,
)

import flax_transformer.nn.losses as flax_losses
import torch_reference.nn.losses as torch_losses
from flax_transformer.config import MultilabelData
from flax_transformer.parity import checks
from flax_transformer.parity.cases import make_case
from flax_transformer.parity.pair import Pair

VOCABULARY = 37
IGNORED = -100
REAL = np.arange(TARGET) < TARGET_LENGTHS[:, None]
LABELS = np.random.default_rng(0).integers(VOCABULARY, size=(ROWS, TARGET)).astype(np.int32)


def random_logits(dtype: str, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(1).standard_normal((ROWS, TARGET, VOCABULARY))).astype(dtype)


def oracle(logits: np.ndarray, label_smoothing: float, reduction: str = "sum") -> tuple[torch.Tensor, torch.Tensor]:
    """torch's own loss and the gradient of the logits."""
    leaf = to_torch(logits, requires_grad=True)
    loss = torch.nn.CrossEntropyLoss(ignore_index=IGNORED, label_smoothing=label_smoothing, reduction=reduction)
    value = loss(leaf.flatten(0, 1), to_torch(np.where(REAL, LABELS, IGNORED)).long().flatten())
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_sequence_losses_are_those_of_torch(label_smoothing: float, scale: float, dtype: str) -> None:
    logits = random_logits(dtype, scale)
    expected, expected_gradient = oracle(logits, label_smoothing)
    flax_arguments = jnp.asarray(LABELS), jnp.asarray(REAL), label_smoothing
    (by_flax, flax_count), flax_gradient = jax.value_and_grad(flax_losses.cross_entropy, has_aux=True)(
        jnp.asarray(logits), *flax_arguments
    )
    leaf = to_torch(logits, requires_grad=True)
    by_torch, torch_count = torch_losses.cross_entropy(leaf, to_torch(LABELS), to_torch(REAL), label_smoothing)
    by_torch.backward()
    assert int(flax_count) == int(torch_count) == REAL.sum()
    assert ulps(by_flax, expected) <= LOSS
    assert ulps(by_torch, expected) <= LOSS
    for gradient in (flax_gradient, leaf.grad):
        assert ulps(gradient, expected_gradient) <= GRADIENT[dtype]
        assert (to_numpy(gradient)[~REAL] == 0).all()
    mean, _ = oracle(logits, label_smoothing, reduction="mean")
    assert ulps(by_flax / flax_count, mean) <= LOSS


def test_planted_mistakes_are_far_from_torch() -> None:
    logits = random_logits("float32")
    expected, _ = oracle(logits, 0.1, reduction="mean")
    log_probabilities = jax.nn.log_softmax(jnp.asarray(logits))
    one_hot = np.eye(VOCABULARY, dtype=np.float32)[LABELS]

    def mean(targets: np.ndarray | jax.Array, real: np.ndarray = REAL, by: int = int(REAL.sum())) -> jax.Array:
        losses = -(jnp.asarray(targets) * log_probabilities).sum(axis=2)
        return jnp.where(jnp.asarray(real), losses, 0).sum() / by

    smoothed = optax.smooth_labels(jnp.asarray(one_hot), 0.1)
    assert ulps(mean(smoothed), expected) <= LOSS
    spread_over_the_wrong_ones = one_hot * 0.9 + (1 - one_hot) * 0.1 / (VOCABULARY - 1)
    for mistake in (
        mean(one_hot),  # no smoothing
        mean(spread_over_the_wrong_ones.astype(np.float32)),
        mean(smoothed, by=ROWS * TARGET),  # a mean over padding too
        mean(smoothed, real=np.ones_like(REAL), by=ROWS * TARGET),  # a loss of padding
        mean(smoothed, real=np.roll(REAL, 1, axis=1)),  # a mask that is off by one
    ):
        assert ulps(mistake, expected) > 100 * LOSS


def test_labels_behind_the_real_ones_do_not_matter() -> None:
    logits = random_logits("float32")
    other = np.where(REAL, LABELS, (LABELS + 1) % VOCABULARY)
    for labels in (LABELS, other):
        by_flax, _ = flax_losses.cross_entropy(*map(jnp.asarray, (logits, labels, REAL)))
        by_torch, _ = torch_losses.cross_entropy(*map(to_torch, (logits, labels, REAL)))
        assert ulps(by_flax, oracle(logits, 0.0)[0]) <= LOSS
        assert ulps(by_torch, oracle(logits, 0.0)[0]) <= LOSS


def test_a_batch_without_tokens_has_no_loss_and_finite_gradients() -> None:
    logits, nothing = random_logits("float32"), np.zeros_like(REAL)
    (by_flax, flax_count), gradient = jax.value_and_grad(flax_losses.cross_entropy, has_aux=True)(
        jnp.asarray(logits), jnp.asarray(LABELS), jnp.asarray(nothing), 0.1
    )
    leaf = to_torch(logits, requires_grad=True)
    by_torch, torch_count = torch_losses.cross_entropy(leaf, to_torch(LABELS), to_torch(nothing), 0.1)
    by_torch.backward()
    assert leaf.grad is not None
    assert by_flax == 0
    assert by_torch.item() == 0
    assert int(flax_count) == int(torch_count) == 0
    assert not np.asarray(gradient).any()
    assert not leaf.grad.any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_classification_losses_leave_out_rows_without_a_text(label_smoothing: float, dtype: str) -> None:
    logits, labels, real = random_logits(dtype)[:, 0], LABELS[:, 0], TARGET_LENGTHS > 0
    assert 0 < real.sum() < ROWS
    loss = torch.nn.CrossEntropyLoss(label_smoothing=label_smoothing, reduction="sum")
    expected = loss(to_torch(logits[real]), to_torch(labels[real]).long())
    by_flax, flax_count = flax_losses.cross_entropy(*map(jnp.asarray, (logits, labels, real)), label_smoothing)
    by_torch, torch_count = torch_losses.cross_entropy(*map(to_torch, (logits, labels, real)), label_smoothing)
    assert int(flax_count) == int(torch_count) == real.sum()
    assert ulps(by_flax, expected) <= LOSS
    assert ulps(by_torch, expected) <= LOSS
    with_empty_rows = loss(to_torch(logits), to_torch(labels).long())
    assert ulps(with_empty_rows, expected) > 100 * LOSS


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_weighted_losses_are_those_of_torch(label_smoothing: float, dtype: str) -> None:
    """Sums, counts and gradients; a class of weight 0, and rows without a text, count for nothing."""
    logits, labels, real = random_logits(dtype)[:, 0, :4], LABELS[:, 0] % 4, TARGET_LENGTHS > 0
    weights = np.array([0.25, 0.0, 3.0, 1.5])
    leaf = to_torch(logits, requires_grad=True)
    loss = torch.nn.CrossEntropyLoss(
        weight=to_torch(weights.astype(dtype)), label_smoothing=label_smoothing, reduction="sum"
    )
    expected = loss(leaf[torch.as_tensor(real)], to_torch(labels[real]).long())
    expected.backward()
    given = jnp.asarray(labels), jnp.asarray(real), jnp.asarray(weights), label_smoothing
    (by_flax, flax_count), gradient = jax.value_and_grad(flax_losses.weighted_cross_entropy, has_aux=True)(
        jnp.asarray(logits), *given
    )
    own = to_torch(logits, requires_grad=True)
    by_torch, torch_count = torch_losses.weighted_cross_entropy(
        own, *map(to_torch, (labels, real, weights)), label_smoothing
    )
    by_torch.backward()
    assert float(flax_count) == float(torch_count) == weights[labels[real]].sum()
    assert ulps(by_flax, expected.detach()) <= LOSS
    assert ulps(by_torch.detach(), expected.detach()) <= LOSS
    assert own.grad is not None
    assert leaf.grad is not None
    assert ulps(gradient, leaf.grad) <= GRADIENT[dtype]
    assert ulps(own.grad, leaf.grad) <= GRADIENT[dtype]
    swapped = torch_losses.weighted_cross_entropy(
        *map(to_torch, (logits, labels, real, weights[::-1].copy())), label_smoothing
    )
    assert ulps(swapped[0], expected.detach()) > 100 * LOSS


def masked_places() -> tuple[np.ndarray, np.ndarray]:
    """Three places in each row, of which so many count."""
    rng = np.random.default_rng(2)
    positions = np.sort([rng.permutation(TARGET)[:3] for _ in range(ROWS)])
    return positions.astype(np.int32), np.array([3, 1, 0, 2, 3], np.int32)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_masked_token_losses_are_those_of_bert(label_smoothing: float, dtype: str) -> None:
    """Of logits at the predicted places only, where BertForMaskedLM ignores the labels of all others."""
    logits, (positions, counts) = random_logits(dtype), masked_places()
    real = np.arange(3) < counts[:, None]
    labels = np.full((ROWS, TARGET), IGNORED)
    for row, (places, count) in enumerate(zip(positions, counts, strict=True)):
        labels[row, places[:count]] = LABELS[row, places[:count]]
    smoothed = torch.nn.CrossEntropyLoss(ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum")
    expected = smoothed(to_torch(logits).flatten(0, 1), to_torch(labels).flatten())

    at = np.take_along_axis(logits, positions[:, :, None], axis=1)
    of_places = np.where(real, np.take_along_axis(LABELS, positions, axis=1), 0).astype(np.int32)
    by_flax, flax_count = flax_losses.cross_entropy(*map(jnp.asarray, (at, of_places, real)), label_smoothing)
    by_torch, torch_count = torch_losses.cross_entropy(*map(to_torch, (at, of_places, real)), label_smoothing)
    assert int(flax_count) == int(torch_count) == counts.sum()
    assert ulps(by_flax, expected) <= LOSS
    assert ulps(by_torch, expected) <= LOSS
    if label_smoothing == 0:
        mean = ForMaskedLMLoss(to_torch(logits), to_torch(labels), VOCABULARY)
        # transformers takes its loss in float32.
        assert abs(float(by_torch / torch_count) - float(mean)) <= 1e-6
    for mistake in (
        smoothed(to_torch(logits).flatten(0, 1), to_torch(LABELS).long().flatten()),  # over all tokens
        smoothed(to_torch(at).flatten(0, 1), to_torch(of_places).long().flatten()),  # over places that do not count
        smoothed(
            to_torch(np.roll(at, 1, axis=1)).flatten(0, 1),
            to_torch(np.where(real, of_places, IGNORED)).long().flatten(),
        ),
    ):
        assert ulps(mistake, expected) > 100 * LOSS


def test_bfloat16_logits_are_summed_up_in_float32() -> None:
    logits = random_logits("float32")
    by_flax, _ = flax_losses.cross_entropy(jnp.asarray(logits, jnp.bfloat16), jnp.asarray(LABELS), jnp.asarray(REAL))
    by_torch, _ = torch_losses.cross_entropy(to_torch(logits).bfloat16(), to_torch(LABELS), to_torch(REAL))
    rounded = to_numpy(to_torch(logits).bfloat16().float())
    assert ulps(by_flax, oracle(rounded, 0.0)[0]) <= LOSS
    assert ulps(by_torch, oracle(rounded, 0.0)[0]) <= LOSS


def test_the_decoder_is_to_say_the_token_behind_each_that_it_reads() -> None:
    by_flax = flax_losses.shift_target(jnp.asarray(LABELS), jnp.asarray(TARGET_LENGTHS))
    by_torch = torch_losses.shift_target(to_torch(LABELS), to_torch(TARGET_LENGTHS))
    expected = LABELS[:, :-1].copy(), LABELS[:, 1:].copy(), np.array([6, 2, 0, 0, 4], np.int32)
    for given in (by_flax, by_torch):
        assert all(same_bits(np.ascontiguousarray(to_numpy(a)), b) for a, b in zip(given, expected, strict=True))


# --- divergence of the two passes of a row ---

DIVERGENCES = ["divergence", "binary_divergence"]


def random_passes(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two passes of each row, one after the other, and which of them are real."""
    logits = (3 * np.random.default_rng(3).standard_normal((2 * ROWS, TARGET, VOCABULARY))).astype(dtype)
    real = np.repeat(REAL, 2, axis=0)
    return (logits, real) if name == "divergence" else (logits[:, 0], real[:, 0])


def from_each_other(name: str, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """torch's own KL(p || q) of each entry."""
    if name == "divergence":
        return kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return kl_divergence(Bernoulli(logits=p), Bernoulli(logits=q)).sum(-1)


def divergence_of_torch(name: str, logits: np.ndarray, real: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of both directions in float64, summed over what is real, and the gradient of the logits."""
    leaf = to_torch(logits.astype(np.float64), requires_grad=True)
    p, q = leaf[::2], leaf[1::2]
    value = (from_each_other(name, p, q) + from_each_other(name, q, p))[real[::2]].sum() / 2
    value.backward()
    assert leaf.grad is not None
    return value.detach().to(to_torch(logits).dtype), leaf.grad.to(to_torch(logits).dtype)


def divergence_of_twins(name: str, logits: np.ndarray, real: np.ndarray) -> tuple[tuple[Any, Any], ...]:
    """Value and gradient of the logits, on both sides."""
    of_flax = jax.value_and_grad(getattr(flax_losses, name))(jnp.asarray(logits), jnp.asarray(real))
    leaf = to_torch(logits, requires_grad=True)
    by_torch = getattr(torch_losses, name)(leaf, to_torch(real))
    by_torch.backward()
    return of_flax, (by_torch.detach(), leaf.grad)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_are_those_of_torch_in_both_directions(name: str, dtype: str) -> None:
    logits, real = random_passes(name, dtype)
    expected, expected_gradient = divergence_of_torch(name, logits, real)
    for value, gradient in divergence_of_twins(name, logits, real):
        assert ulps(value, expected) <= LOSS
        assert ulps(gradient, expected_gradient) <= GRADIENT[dtype]


@pytest.mark.parametrize("name", DIVERGENCES)
def test_what_is_not_real_has_no_divergence_and_no_gradient(name: str, dtype: str) -> None:
    logits, real = random_passes(name, dtype)
    assert 0 < real.sum() < real.size
    other = np.where(real[..., None], logits, np.roll(logits, 1, axis=-1) ** 2)
    for one, same in zip(*(divergence_of_twins(name, given, real) for given in (logits, other)), strict=True):
        assert all(same_bits(a, b) for a, b in zip(one, same, strict=True))
        assert to_numpy(one[1])[real].any()
        assert not to_numpy(one[1])[~real].any()
    for value, gradient in divergence_of_twins(name, logits, np.zeros_like(real)):
        assert value == 0
        assert not to_numpy(gradient).any()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_equal_passes_have_no_divergence_and_no_gradient(name: str, dtype: str) -> None:
    logits, real = random_passes(name, dtype)
    for value, gradient in divergence_of_twins(name, np.repeat(logits[::2], 2, axis=0), real):
        assert value == 0
        assert not to_numpy(gradient).any()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_of_bfloat16_logits_are_summed_up_in_float32(name: str) -> None:
    logits, real = random_passes(name, "float32")
    expected, _ = divergence_of_torch(name, to_numpy(to_torch(logits).bfloat16().float()), real)
    by_flax = getattr(flax_losses, name)(jnp.asarray(logits, jnp.bfloat16), jnp.asarray(real))
    by_torch = getattr(torch_losses, name)(to_torch(logits).bfloat16(), to_torch(real))
    assert ulps(by_flax, expected) <= LOSS
    assert ulps(by_torch, expected) <= LOSS


@pytest.mark.parametrize("name", DIVERGENCES)
def test_planted_mistakes_in_divergences_are_far_from_torch(name: str) -> None:
    logits, real = random_passes(name, "float32")
    expected, _ = divergence_of_torch(name, logits, real)
    p, q = to_torch(logits[::2]), to_torch(logits[1::2])
    in_halves = np.stack([logits[:ROWS], logits[ROWS:]], axis=1).reshape(logits.shape)
    for mistake in (
        from_each_other(name, p, q)[real[::2]].sum(),  # one direction alone
        from_each_other(name, q, p)[real[::2]].sum(),
        2 * expected,  # no mean of the directions
        divergence_of_torch(name, in_halves, real)[0],  # rows n and n + rows/2
        divergence_of_torch(name, logits, np.ones_like(real))[0],  # over padding too
    ):
        assert ulps(mistake, expected) > 100 * LOSS


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_of_sure_predictions_are_not_differences_of_rounded_probabilities(name: str) -> None:
    logits, real = random_passes(name, "float32")
    logits = logits / 3 + np.float32(12) * (np.arange(VOCABULARY) < (1 if name == "divergence" else VOCABULARY))
    expected, expected_gradient = divergence_of_torch(name, logits, real)
    for value, gradient in divergence_of_twins(name, logits, real):
        assert ulps(value, expected) <= LOSS
        assert ulps(gradient, expected_gradient) <= GRADIENT["float32"]
    p, q = (1 / (1 + np.exp(-logits[row::2])) for row in range(2))
    mistake = ((p - q) * (logits[::2] - logits[1::2]))[real[::2]].sum() / 2
    assert name == "divergence" or ulps(mistake, expected) > 10 * LOSS


@pytest.mark.parametrize("kind", ["seq2seq", "classifier", "masked", "multilabel"])
def test_two_passes_with_dropout_agree_on_both_sides(kind: str, dtype: str) -> None:
    """Forward and backward, with the masks of JAX."""
    training: dict[str, Any] = {"data": MultilabelData()} if kind == "multilabel" else {}
    model = small(dtype, architecture="classifier" if kind == "multilabel" else kind)
    assert_passed(checks.dropout(Pair(make_case(model, 0, SIZES, r_drop=3.0, **training))))
