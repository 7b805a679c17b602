"""Several labels to a text: the loss of the twins against torch's and numpy's, training steps, and decisions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from twins import GRADIENT, LOSS, ROWS, SOURCE_LENGTHS, small, to_numpy, to_torch, ulps

import flax_transformer.nn.losses as flax_losses
import torch_reference.nn.losses as torch_losses
from flax_transformer.config import BatchConfig, MultilabelData, OptimizerConfig, TrainConfig
from flax_transformer.data.batches import MultilabelBatch
from flax_transformer.data.labels import positive_weights
from flax_transformer.decoding import labels as flax_labels
from flax_transformer.interop.state_dict import to_torch_state_dict
from flax_transformer.training.step import TrainStep
from torch_reference.decoding import labels as torch_labels
from torch_reference.training.step import TrainStep as TorchTrainStep

CLASSES = 13
REAL = SOURCE_LENGTHS > 0
LABELS = np.random.default_rng(0).random((ROWS, CLASSES)) < 0.3
WEIGHTS = 10.0 ** np.random.default_rng(2).uniform(-1, 1, CLASSES)


def random_logits(dtype: str, scale: float = 3.0) -> np.ndarray:
    return (scale * np.random.default_rng(1).standard_normal((ROWS, CLASSES))).astype(dtype)


def of_torch(
    logits: np.ndarray,
    smoothing: float,
    weights: np.ndarray | None,
    reduction: str = "sum",
    labels: np.ndarray = LABELS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's own loss and the gradient of the logits."""
    leaf = to_torch(logits, requires_grad=True)
    weight = None if weights is None else to_torch(weights.astype(logits.dtype))
    targets = to_torch(((1 - smoothing) * labels + smoothing / 2).astype(logits.dtype))
    value = torch.nn.BCEWithLogitsLoss(pos_weight=weight, reduction=reduction)(leaf[REAL], targets[REAL])
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def of_numpy(logits: np.ndarray, smoothing: float, weights: np.ndarray | None) -> float:
    """The sum of the definition, in float64: cross entropy of the distributions (y, 1 - y) and (p, 1 - p)."""
    x, total = logits.astype(np.float64), 0.0
    for row, label in zip(*np.nonzero(np.ones_like(x)), strict=True):
        if REAL[row]:
            y = 1 - smoothing / 2 if LABELS[row, label] else smoothing / 2
            weight = 1.0 if weights is None else weights[label]
            total += weight * y * np.logaddexp(0, -x[row, label]) + (1 - y) * np.logaddexp(0, x[row, label])
    return total


def of_twins(logits: np.ndarray, smoothing: float, weights: np.ndarray | None) -> tuple[tuple[Any, Any, Any], ...]:
    """Sum, count and gradient of the logits, on both sides."""
    given = LABELS, REAL, smoothing, None if weights is None else weights.astype(logits.dtype)
    labels, real, _, weight = (jnp.asarray(one) if isinstance(one, np.ndarray) else one for one in given)
    (by_flax, flax_count), gradient = jax.value_and_grad(flax_losses.binary_cross_entropy, has_aux=True)(
        jnp.asarray(logits), labels, real, smoothing, weight
    )
    leaf = to_torch(logits, requires_grad=True)
    labels, real, _, weight = (to_torch(one) if isinstance(one, np.ndarray) else one for one in given)
    by_torch, torch_count = torch_losses.binary_cross_entropy(leaf, labels, real, smoothing, weight)
    by_torch.backward()
    return (by_flax, flax_count, gradient), (by_torch.detach(), torch_count, leaf.grad)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("scale", [3.0, 1e4])
@pytest.mark.sample(6)
def test_the_loss_is_that_of_torch_and_of_numpy(scale: float, smoothing: float, weights: Any, dtype: str) -> None:
    logits = random_logits(dtype, scale)
    expected, expected_gradient = of_torch(logits, smoothing, weights)
    assert abs(float(expected) - of_numpy(logits, smoothing, weights)) <= 1e-5 * float(expected)
    mean, _ = of_torch(logits, smoothing, weights, "mean")
    for value, count, gradient in of_twins(logits, smoothing, weights):
        assert int(count) == REAL.sum() * CLASSES
        assert ulps(value, expected) <= LOSS
        assert ulps(gradient, expected_gradient) <= GRADIENT[dtype]
        assert not to_numpy(gradient)[~REAL].any()
        assert abs(float(value) / int(count) - float(mean)) <= 1e-6 * float(mean)


def test_planted_mistakes_are_far_from_torch() -> None:
    logits = random_logits("float64")
    expected, _ = of_torch(logits, 0.1, WEIGHTS)
    softmax = torch.nn.CrossEntropyLoss(reduction="sum")
    mistakes = [
        of_torch(logits, 0.1, WEIGHTS[::-1].copy())[0],
        of_torch(logits, 0.1, 1 / WEIGHTS)[0],
        of_torch(-logits, 0.1, WEIGHTS)[0],
        of_torch(logits, 0.1, WEIGHTS, labels=~LABELS)[0],
        of_torch(logits, 0.2 / CLASSES, WEIGHTS)[0],
        of_torch(logits, 0.1, None)[0],
        softmax(to_torch(logits[REAL]), to_torch(LABELS[REAL].astype(np.float64))),
    ]
    for mistake in mistakes:
        assert ulps(mistake, expected) > 100 * LOSS


def test_a_batch_without_texts_has_no_loss_and_finite_gradients() -> None:
    nothing = np.zeros_like(REAL)
    (value, count), gradient = jax.value_and_grad(flax_losses.binary_cross_entropy, has_aux=True)(
        jnp.asarray(random_logits("float32")), jnp.asarray(LABELS), jnp.asarray(nothing), 0.1
    )
    assert value == 0
    assert count == 0
    assert not np.asarray(gradient).any()


def test_bfloat16_logits_are_summed_up_in_float32() -> None:
    rounded = to_torch(random_logits("float32")).bfloat16()
    expected, _ = of_torch(to_numpy(rounded.float()), 0.0, None)
    given = LABELS, REAL
    by_flax, _ = flax_losses.binary_cross_entropy(
        jnp.asarray(random_logits("float32"), jnp.bfloat16), *map(jnp.asarray, given)
    )
    by_torch, _ = torch_losses.binary_cross_entropy(rounded, *map(to_torch, given))
    assert ulps(by_flax, expected) <= LOSS
    assert ulps(by_torch, expected) <= LOSS


def test_weights_make_texts_with_and_without_a_label_count_alike() -> None:
    weights = positive_weights(LABELS)
    for label, weight in enumerate(weights):
        assert weight * LABELS[:, label].sum() == pytest.approx((~LABELS[:, label]).sum()) or weight == 1


@pytest.mark.usefixtures("x64")
def test_weighted_training_steps_of_both_sides_agree() -> None:
    """Five steps on their own, cut in parts, with smoothing, weights and filler rows."""
    model = small("float64", architecture="classifier", num_classes=CLASSES)
    config = TrainConfig(
        data=MultilabelData(),
        model=model,
        batch=BatchConfig(size=10, max_source_length=11, max_target_length=11),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
        label_smoothing=0.1,
        gradient_accumulation_steps=2,
    )
    rng, twice = np.random.default_rng(3), np.tile(SOURCE_LENGTHS, 2)
    source = rng.integers(model.source_vocab_size, size=(10, 11)).astype(np.int32)
    batch = MultilabelBatch(source, twice, rng.random((10, CLASSES)) < 0.3)
    step, twin = TrainStep(config, 10, class_weights=WEIGHTS), TorchTrainStep(config, 10, WEIGHTS)
    state = step.init()
    twin.model.load_state_dict(to_torch_state_dict(step.model(state)))
    plain = TorchTrainStep(config, 10)
    plain.model.load_state_dict(to_torch_state_dict(step.model(state)))
    for _ in range(5):
        state, metrics = step(state, batch)
        expected = twin(batch)
        assert float(metrics["loss"]) == pytest.approx(expected["loss"], rel=1e-12)
        assert float(metrics["grad_norm"]) == pytest.approx(expected["grad_norm"], rel=1e-12)
    assert plain(batch)["loss"] != pytest.approx(expected["loss"], rel=1e-2)
    trained = to_torch_state_dict(step.model(state))
    furthest = max(
        np.abs(to_numpy(weight) - to_numpy(trained[name])).max()
        for name, weight in twin.model.state_dict().items()
        if not name.endswith("key.bias")
    )
    assert furthest < 1e-11


def test_decisions_are_those_of_numpy_and_the_same_on_both_sides() -> None:
    probabilities = np.random.default_rng(4).random((ROWS, CLASSES)).astype(np.float32)
    thresholds = np.random.default_rng(5).random(CLASSES)
    thresholds[0] = float(probabilities[2, 0])
    expected = probabilities.astype(np.float64) >= thresholds
    assert expected[2, 0]
    assert (flax_labels.decide_labels(jnp.asarray(probabilities), thresholds.tolist()) == expected).all()
    assert (to_numpy(torch_labels.decide_labels(to_torch(probabilities), thresholds.tolist())) == expected).all()
    with_each_other_label = probabilities.astype(np.float64) >= np.roll(thresholds, 1)
    assert (with_each_other_label != expected).any()
