"""Cross entropy is torch.nn.CrossEntropyLoss over what is real, as a sum and a count."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from transformers.loss.loss_utils import ForMaskedLMLoss
from twins import GRADIENT, LOSS, ROWS, TARGET, TARGET_LENGTHS, same_bits, to_numpy, to_torch, ulps

import flax_transformer.nn.losses as flax_losses
import torch_reference.nn.losses as torch_losses

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
    flax_arguments = jnp.asarray(LABELS), jnp.asarray(TARGET_LENGTHS), label_smoothing
    (by_flax, flax_count), flax_gradient = jax.value_and_grad(flax_losses.seq2seq_loss, has_aux=True)(
        jnp.asarray(logits), *flax_arguments
    )
    leaf = to_torch(logits, requires_grad=True)
    by_torch, torch_count = torch_losses.seq2seq_loss(leaf, to_torch(LABELS), to_torch(TARGET_LENGTHS), label_smoothing)
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
        by_flax, _ = flax_losses.seq2seq_loss(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(TARGET_LENGTHS))
        by_torch, _ = torch_losses.seq2seq_loss(to_torch(logits), to_torch(labels), to_torch(TARGET_LENGTHS))
        assert ulps(by_flax, oracle(logits, 0.0)[0]) <= LOSS
        assert ulps(by_torch, oracle(logits, 0.0)[0]) <= LOSS


def test_a_batch_without_tokens_has_no_loss_and_finite_gradients() -> None:
    logits, nothing = random_logits("float32"), np.zeros(ROWS, np.int32)
    (by_flax, flax_count), gradient = jax.value_and_grad(flax_losses.seq2seq_loss, has_aux=True)(
        jnp.asarray(logits), jnp.asarray(LABELS), jnp.asarray(nothing), 0.1
    )
    leaf = to_torch(logits, requires_grad=True)
    by_torch, torch_count = torch_losses.seq2seq_loss(leaf, to_torch(LABELS), to_torch(nothing), 0.1)
    by_torch.backward()
    assert leaf.grad is not None
    assert by_flax == 0
    assert by_torch.item() == 0
    assert int(flax_count) == int(torch_count) == 0
    assert not np.asarray(gradient).any()
    assert not leaf.grad.any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_classification_losses_leave_out_rows_without_a_text(label_smoothing: float, dtype: str) -> None:
    logits, labels, lengths = random_logits(dtype)[:, 0], LABELS[:, 0], TARGET_LENGTHS
    real = lengths > 0
    assert 0 < real.sum() < ROWS
    loss = torch.nn.CrossEntropyLoss(label_smoothing=label_smoothing, reduction="sum")
    expected = loss(to_torch(logits[real]), to_torch(labels[real]).long())
    by_flax, flax_count = flax_losses.classification_loss(
        jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(lengths), label_smoothing
    )
    by_torch, torch_count = torch_losses.classification_loss(
        to_torch(logits), to_torch(labels), to_torch(lengths), label_smoothing
    )
    assert int(flax_count) == int(torch_count) == real.sum()
    assert ulps(by_flax, expected) <= LOSS
    assert ulps(by_torch, expected) <= LOSS
    with_empty_rows = loss(to_torch(logits), to_torch(labels).long())
    assert ulps(with_empty_rows, expected) > 100 * LOSS


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_weighted_losses_are_those_of_torch(label_smoothing: float, dtype: str) -> None:
    """Sums, counts and gradients; a class of weight 0, and rows without a text, count for nothing."""
    logits, labels, lengths = random_logits(dtype)[:, 0, :4], LABELS[:, 0] % 4, TARGET_LENGTHS
    weights, real = np.array([0.25, 0.0, 3.0, 1.5]), lengths > 0
    leaf = to_torch(logits, requires_grad=True)
    loss = torch.nn.CrossEntropyLoss(
        weight=to_torch(weights.astype(dtype)), label_smoothing=label_smoothing, reduction="sum"
    )
    expected = loss(leaf[torch.as_tensor(real)], to_torch(labels[real]).long())
    expected.backward()
    arguments = jnp.asarray(labels), jnp.asarray(lengths), label_smoothing, jnp.asarray(weights)
    (by_flax, flax_count), gradient = jax.value_and_grad(flax_losses.classification_loss, has_aux=True)(
        jnp.asarray(logits), *arguments
    )
    own = to_torch(logits, requires_grad=True)
    by_torch, torch_count = torch_losses.classification_loss(
        own, to_torch(labels), to_torch(lengths), label_smoothing, to_torch(weights)
    )
    by_torch.backward()
    assert float(flax_count) == float(torch_count) == weights[labels[real]].sum()
    assert ulps(by_flax, expected.detach()) <= LOSS
    assert ulps(by_torch.detach(), expected.detach()) <= LOSS
    assert own.grad is not None
    assert leaf.grad is not None
    assert ulps(gradient, leaf.grad) <= GRADIENT[dtype]
    assert ulps(own.grad, leaf.grad) <= GRADIENT[dtype]
    swapped = torch_losses.classification_loss(
        to_torch(logits), to_torch(labels), to_torch(lengths), label_smoothing, to_torch(weights[::-1].copy())
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
    by_flax, flax_count = flax_losses.masked_token_loss(*map(jnp.asarray, (at, of_places, counts)), label_smoothing)
    by_torch, torch_count = torch_losses.masked_token_loss(*map(to_torch, (at, of_places, counts)), label_smoothing)
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
    by_flax, _ = flax_losses.seq2seq_loss(
        jnp.asarray(logits, jnp.bfloat16), jnp.asarray(LABELS), jnp.asarray(TARGET_LENGTHS)
    )
    by_torch, _ = torch_losses.seq2seq_loss(to_torch(logits).bfloat16(), to_torch(LABELS), to_torch(TARGET_LENGTHS))
    rounded = to_numpy(to_torch(logits).bfloat16().float())
    assert ulps(by_flax, oracle(rounded, 0.0)[0]) <= LOSS
    assert ulps(by_torch, oracle(rounded, 0.0)[0]) <= LOSS


def test_the_decoder_is_to_say_the_token_behind_each_that_it_reads() -> None:
    by_flax = flax_losses.shift_target(jnp.asarray(LABELS), jnp.asarray(TARGET_LENGTHS))
    by_torch = torch_losses.shift_target(to_torch(LABELS), to_torch(TARGET_LENGTHS))
    expected = LABELS[:, :-1].copy(), LABELS[:, 1:].copy(), np.array([6, 2, 0, 0, 4], np.int32)
    for given in (by_flax, by_torch):
        assert all(same_bits(np.ascontiguousarray(to_numpy(a)), b) for a, b in zip(given, expected, strict=True))
