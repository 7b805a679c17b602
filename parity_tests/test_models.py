"""Both models over their whole config space: logits, losses and every gradient, padding, causality, accumulation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from twins import (
    GRADIENT,
    LOSS,
    ROWS,
    SOURCE,
    SOURCE_LENGTHS,
    STACK,
    TARGET,
    TARGET_LENGTHS,
    check_gradients,
    flax_gradients,
    small,
    to_numpy,
    to_torch,
    torch_gradients,
    twin_modules,
    ulps,
    with_weights,
)
from variants import classifier_variants, masked_variants, name_of, seq2seq_variants

import flax_transformer.nn.models as flax_models
import torch_reference.nn.losses as torch_losses
import torch_reference.nn.models as torch_models
from flax_transformer.config import OWN_DATA, BatchConfig, ModelConfig, OptimizerConfig, TrainConfig
from flax_transformer.data.batches import Batch, ClassifierBatch, MaskedBatch, Seq2SeqBatch
from flax_transformer.errors import UserError
from flax_transformer.interop.state_dict import to_torch_state_dict
from flax_transformer.parity.measure import scaled_ulp, scaled_ulps
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import TrainStep, batch_loss
from torch_reference.nn.masks import padding_mask
from torch_reference.training.step import TrainStep as TorchTrainStep

SMOOTHING = 0.1
# Far over rounding, and 10^8 below any difference of meaning.
FORWARD = 1e-12
# Of the class of each architecture, the name on both sides.
CLASSES = {"classifier": "Classifier", "masked": "MaskedLM", "seq2seq": "Seq2Seq"}
# Tokens to predict in each row, of as many as it has; the rest of a row repeats a position.
PREDICTED, COUNTS = 3, np.array([3, 1, 0, 2, 2], np.int32)


def model_twins(config: ModelConfig) -> tuple[Any, Any]:
    name = CLASSES[config.architecture]
    return twin_modules(getattr(flax_models, name), getattr(torch_models, name), config, parent="")


def batch_of(config: ModelConfig, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    source = rng.integers(config.source_vocab_size, size=(ROWS, SOURCE)).astype(np.int32)
    if config.architecture == "classifier":
        return ClassifierBatch(source, SOURCE_LENGTHS, rng.integers(config.num_classes, size=ROWS).astype(np.int32))
    if config.architecture == "masked":
        positions = np.array([rng.permutation(max(length, PREDICTED))[:PREDICTED] for length in SOURCE_LENGTHS])
        positions = np.where(
            np.arange(PREDICTED) < COUNTS[:, None], positions % np.maximum(SOURCE_LENGTHS, 1)[:, None], 0
        )
        labels = rng.integers(config.source_vocab_size, size=(ROWS, PREDICTED))
        return MaskedBatch(source, SOURCE_LENGTHS, positions.astype(np.int32), labels.astype(np.int32), COUNTS)
    target = rng.integers(config.target_vocab_size, size=(ROWS, TARGET + 1)).astype(np.int32)
    # The decoder reads all tokens but the last.
    return Seq2SeqBatch(source, SOURCE_LENGTHS, target, TARGET_LENGTHS + (TARGET_LENGTHS > 0))


def torch_loss(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, summed loss, and its count."""
    arrays = [to_torch(array) for array in batch]
    if isinstance(batch, ClassifierBatch):
        logits = model(*arrays[:2])
        return logits, *torch_losses.cross_entropy(logits, arrays[2], arrays[1] > 0, SMOOTHING)
    if isinstance(batch, MaskedBatch):
        logits = model(arrays[0], arrays[2], arrays[1])
        labels, counts = arrays[3:]
        return logits, *torch_losses.cross_entropy(logits, labels, padding_mask(counts, PREDICTED), SMOOTHING)
    decoder_input, labels, lengths = torch_losses.shift_target(*arrays[2:])
    logits = model(arrays[0], decoder_input, arrays[1], lengths)
    return logits, *torch_losses.cross_entropy(logits, labels, padding_mask(lengths, labels.shape[1]), SMOOTHING)


def flax_logits(model: Any, batch: Batch) -> jax.Array:
    arrays = [jnp.asarray(array) for array in batch]
    if isinstance(batch, ClassifierBatch):
        return model(*arrays[:2])
    if isinstance(batch, MaskedBatch):
        return model(arrays[0], arrays[2], arrays[1])
    return model(arrays[0], arrays[2][:, :-1], arrays[1], jnp.maximum(arrays[3] - 1, 0))


def flax_loss(params: nnx.State, graph: nnx.GraphDef, batch: Batch) -> tuple[jax.Array, jax.Array]:
    arrays = type(batch)(*map(jnp.asarray, batch))
    return batch_loss(nnx.merge(graph, params), arrays, SMOOTHING)


def check_models(config: ModelConfig) -> None:
    flax_twin, torch_twin = model_twins(config)
    batch = batch_of(config)
    logits, expected, count = torch_loss(torch_twin, batch)
    expected.backward()

    given = nnx.jit(flax_logits)(flax_twin, batch)
    assert ulps(given, logits) <= STACK
    if config.dtype == "float64":
        assert np.abs(to_numpy(given) - to_numpy(logits)).max() <= FORWARD

    graph, params = nnx.split(flax_twin)
    compiled = jax.jit(
        jax.value_and_grad(lambda params: flax_loss(params, graph, batch), has_aux=True)
    )  # as in training
    (loss, flax_count), gradients = compiled(params)
    assert int(flax_count) == int(count)
    assert ulps(loss, expected) <= LOSS
    floors = gradient_floors(torch_twin, batch) if config.dtype == "float64" else None
    check_gradients(flax_gradients(gradients, parent=""), torch_gradients(torch_twin), config.dtype, floors)


def gradient_floors(torch_twin: Any, batch: Batch) -> dict[str, float]:
    """By how many scaled ULP the float32 gradients of a float64 model lie from its own, which have been computed."""
    config = dataclasses.replace(torch_twin.config, dtype="float32", param_dtype="float32")
    single = torch_models.create_model(config).eval()
    single.load_state_dict(torch_twin.state_dict())
    torch_loss(single, batch)[1].backward()
    return scaled_ulps(torch_gradients(single), torch_gradients(torch_twin), "float32")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", seq2seq_variants(), ids=name_of)
@pytest.mark.sample(2)
def test_sequence_models_agree(config: ModelConfig) -> None:
    check_models(config)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", classifier_variants(), ids=name_of)
@pytest.mark.sample(2)
def test_classifiers_agree(config: ModelConfig) -> None:
    check_models(config)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", masked_variants(), ids=name_of)
@pytest.mark.sample(1)
def test_models_of_masked_tokens_agree(config: ModelConfig) -> None:
    check_models(config)


def test_models_of_masked_tokens_agree_in_float32() -> None:
    check_models(small("float32", architecture="masked"))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("weights_of", "changes"),
    [
        ("norm_eps", {"norm_eps": 1e-6}),
        ("activation", {"activation": "gelu_tanh"}),
        ("scale", {"scale_embeddings": False}),
        ("positions", {"positions": "none"}),
        ("norm", {"norm_first": False}),
        ("pooling", {"pooling": "max", "architecture": "classifier"}),
        ("scale of masked tokens", {"scale_embeddings": False, "architecture": "masked"}),
    ],
)
def test_a_twin_of_another_config_is_seen(weights_of: str, changes: dict[str, Any]) -> None:
    config = small("float64", architecture=changes.get("architecture", "seq2seq"))
    _, torch_twin = model_twins(config)
    mistaken = dataclasses.replace(config, **changes)
    kind = getattr(flax_models, CLASSES[config.architecture])
    abstract = nnx.eval_shape(lambda: kind(mistaken, rngs=nnx.Rngs(0)))
    weights = {name: to_numpy(tensor) for name, tensor in torch_twin.state_dict().items()}
    given = flax_logits(with_weights(abstract, weights, parent=""), batch_of(config))
    expected, _, _ = torch_loss(torch_twin, batch_of(config))
    assert np.abs(to_numpy(given) - to_numpy(expected)).max() > 1e5 * FORWARD, weights_of


# --- what must not matter ---


def with_other_padding(batch: Seq2SeqBatch) -> Seq2SeqBatch:
    """The same rows, with other tokens behind the real ones."""
    source, target = (
        np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, (tokens + 1) % 37)
        for tokens, lengths in ((batch.source, batch.source_lengths), (batch.target, batch.target_lengths))
    )
    return batch._replace(source=source, target=target)


@pytest.mark.usefixtures("x64")
def test_what_stands_behind_the_real_tokens_does_not_matter() -> None:
    config = small("float64")
    twins = model_twins(config)
    batch = batch_of(config)
    assert isinstance(batch, Seq2SeqBatch)
    real = np.arange(TARGET) < TARGET_LENGTHS[:, None]
    other = with_other_padding(batch)
    all_real = {"source_lengths": np.full(ROWS, SOURCE, np.int32)}
    for logits_of in (lambda batch: flax_logits(twins[0], batch), lambda batch: torch_loss(twins[1], batch)[0]):
        before, after = (to_numpy(logits_of(batch))[real] for batch in (batch, other))
        assert scaled_ulp(after, before, "float64") <= STACK
        before, after = (to_numpy(logits_of(batch._replace(**all_real)))[real] for batch in (batch, other))
        assert scaled_ulp(after, before, "float64") > 1e5  # without a mask of the source


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("architecture", ["seq2seq", "classifier"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_rows_without_padding_need_no_lengths(architecture: Any, pooling: Any) -> None:
    config = small("float64", architecture=architecture, pooling=pooling)
    ids = batch_of(config).source
    sequences = [ids] if architecture == "classifier" else [ids, ids]
    for model, tensor in zip(model_twins(config), (jnp.asarray, to_torch), strict=True):

        def logits(width: int | None, model: Any = model, tensor: Any = tensor) -> np.ndarray:
            lengths = None if width is None else tensor(np.full(ROWS, width, np.int32))
            return to_numpy(model(*map(tensor, sequences), *[lengths] * len(sequences)))

        assert scaled_ulp(logits(None), logits(SOURCE), "float64") <= STACK
        assert scaled_ulp(logits(None), logits(SOURCE - 1), "float64") > 1e5


@pytest.mark.usefixtures("x64")
def test_no_token_of_the_target_is_seen_before_it_is_read() -> None:
    config = small("float64")
    flax_twin, torch_twin = model_twins(config)
    batch = batch_of(config)
    assert isinstance(batch, Seq2SeqBatch)
    full = batch._replace(target_lengths=np.full(ROWS, TARGET + 1, np.int32))
    at = 3
    other = full.target.copy()
    other[:, at] = (other[:, at] + 1) % config.target_vocab_size
    for before, after in (
        [to_numpy(flax_logits(flax_twin, batch)) for batch in (full, full._replace(target=other))],
        [to_numpy(torch_loss(torch_twin, batch)[0]) for batch in (full, full._replace(target=other))],
    ):
        assert scaled_ulp(after[:, :at], before[:, :at], "float64") <= STACK
        assert (np.abs(after[:, at:] - before[:, at:]).max(axis=(0, 2)) > 1e-6).all()


@pytest.mark.usefixtures("x64")
def test_a_masked_token_is_read_from_both_of_its_sides() -> None:
    config = small("float64", architecture="masked")
    batch = batch_of(config)
    assert isinstance(batch, MaskedBatch)
    full = batch._replace(positions=np.full((ROWS, PREDICTED), 5, np.int32), source_lengths=np.full(ROWS, SOURCE))
    flax_twin, torch_twin = model_twins(config)
    for logits_of in (lambda batch: flax_logits(flax_twin, batch), lambda batch: torch_loss(torch_twin, batch)[0]):
        before = to_numpy(logits_of(full))
        for other in (2, 8):
            source = full.source.copy()
            source[:, other] = (source[:, other] + 1) % config.source_vocab_size
            assert (np.abs(to_numpy(logits_of(full._replace(source=source))) - before).max(axis=(1, 2)) > 1e-6).all()


def test_positions_behind_the_source_are_refused() -> None:
    for twin, tensor in zip(model_twins(small(architecture="masked")), (jnp.asarray, to_torch), strict=True):
        source, positions = np.ones((2, SOURCE), np.int32), np.array([[0, SOURCE], [1, 2]], np.int32)
        with pytest.raises(UserError, match=f"positions: expected token ids in \\[0, {SOURCE}\\)"):
            twin(tensor(source), tensor(positions))


# --- pooling ---


@pytest.mark.parametrize("pooling", ["mean", "first", "max"])
def test_pooling_reads_real_tokens_only(pooling: Any, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, upstream = (rng.standard_normal(shape).astype(dtype) - 3 for shape in ((ROWS, SOURCE, 13), (ROWS, 13)))
    reduce = {
        "mean": lambda rows: rows.mean(axis=0),
        "first": lambda rows: rows[0],
        "max": lambda rows: rows.max(axis=0),
    }
    expected = np.stack(
        [reduce[pooling](row[:n]) if n else np.zeros(13) for row, n in zip(x, SOURCE_LENGTHS, strict=True)]
    ).astype(dtype)
    by_flax, pull_back = jax.vjp(lambda x: flax_models.pool(x, jnp.asarray(SOURCE_LENGTHS), pooling), jnp.asarray(x))
    torch_x = to_torch(x, requires_grad=True)
    by_torch = torch_models.pool(torch_x, to_torch(SOURCE_LENGTHS), pooling)
    by_torch.backward(to_torch(upstream))
    assert ulps(by_flax, expected) <= LOSS
    assert ulps(by_torch, expected) <= LOSS
    (gradient,) = pull_back(jnp.asarray(upstream))
    assert ulps(gradient, torch_x.grad) <= GRADIENT[dtype]
    padding = np.arange(SOURCE) >= SOURCE_LENGTHS[:, None]
    assert (np.asarray(gradient)[padding] == 0).all()
    if pooling != "first":
        over_padding = x.mean(axis=1) if pooling == "mean" else np.where(padding[..., None], 0, x).max(axis=1)
        assert ulps(over_padding.astype(dtype), expected) > 1e5


# --- limits ---


@pytest.mark.usefixtures("x64")
def test_max_pooling_keeps_its_gradient_when_compiled() -> None:
    """That of jnp.max goes to what equals the maximum, which XLA may have computed anew and rounded otherwise."""
    config = small("float64", architecture="classifier", norm_first=False, positions="learned", pooling="max")
    flax_twin, torch_twin = model_twins(config)
    batch = batch_of(config)
    torch_loss(torch_twin, batch)[1].backward()
    graph, params = nnx.split(flax_twin)
    gradients = jax.jit(jax.grad(lambda params: flax_loss(params, graph, batch)[0]))(params)
    check_gradients(flax_gradients(gradients, parent=""), torch_gradients(torch_twin), config.dtype)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rope", "none"])
def test_a_source_or_target_over_max_length_is_refused(positions: str) -> None:
    config = small(positions=positions, max_length=TARGET)
    flax_twin, torch_twin = model_twins(config)
    fitting = np.zeros((ROWS, TARGET), np.int32)
    too_long = np.zeros((ROWS, TARGET + 1), np.int32)
    for source, target in ((too_long, fitting), (fitting, too_long)):
        arrays = source, target, TARGET_LENGTHS, TARGET_LENGTHS
        with pytest.raises(UserError, match=f"max_length={TARGET} positions, got {TARGET + 1}"):
            flax_twin(*map(jnp.asarray, arrays))
        with pytest.raises(UserError, match=f"max_length={TARGET} positions, got {TARGET + 1}"):
            torch_twin(*map(to_torch, arrays))


# --- frozen layers, gradient_accumulation_steps ---


def training(config: ModelConfig, gradient_accumulation_steps: int) -> TrainConfig:
    return TrainConfig(
        data=OWN_DATA[config.architecture](),
        model=config,
        batch=BatchConfig(size=4, max_source_length=SOURCE, max_target_length=TARGET + 1),
        optimizer=OptimizerConfig(max_grad_norm=0.0, schedule="constant", warmup_steps=0),
        label_smoothing=SMOOTHING,
        gradient_accumulation_steps=gradient_accumulation_steps,
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("architecture", ["classifier", "seq2seq"])
@pytest.mark.sample(1)
def test_both_twins_freeze_the_same_weights(architecture: str) -> None:
    """They keep their values under weight decay too, and their gradients do not count in the norm."""
    config = small("float64", architecture=architecture, num_encoder_layers=2, positions="learned")
    train = dataclasses.replace(training(config, 1), frozen_layers=1)
    train = dataclasses.replace(train, optimizer=dataclasses.replace(train.optimizer, max_grad_norm=0.1))
    batch = type(batch_of(config))(*(array[[0, 1, 2, 4]] for array in batch_of(config)))
    flax_twin, _ = model_twins(config)
    step, torch_step = TrainStep(train, total_steps=3), TorchTrainStep(train, total_steps=3)
    before = to_torch_state_dict(flax_twin)
    torch_step.model.load_state_dict(before)
    params = jax.tree.map(jnp.copy, nnx.state(flax_twin, nnx.Param))
    state = TrainState(params, step.optimizer.init(params), jnp.zeros((), jnp.int32))
    for _ in range(3):
        state, metrics = step(state, type(batch)(*map(jnp.asarray, batch)))
        assert torch_step(batch)["grad_norm"] == pytest.approx(float(metrics["grad_norm"]), rel=1e-9)
    after = to_torch_state_dict(step.model(state))
    for name, weight in torch_step.model.state_dict().items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-9)
        is_frozen = name.startswith(("source_table", "source_embedding", "encoder.layers.0."))
        assert torch.equal(after[name], before[name]) == is_frozen, name


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("architecture", ["classifier", "masked", "seq2seq"])
@pytest.mark.sample(1)
def test_accumulated_parts_add_up_to_the_whole_batch(architecture: str) -> None:
    """Weighted by tokens: the mean of the parts' means is far off where rows differ in length."""
    config = small("float64", architecture=architecture, num_encoder_layers=1)
    flax_twin, torch_twin = model_twins(config)
    batch = type(batch_of(config))(*(array[[0, 1, 2, 4]] for array in batch_of(config)))
    _, loss_sum, count = torch_loss(torch_twin, batch)
    (loss_sum / count).backward()
    expected = torch_gradients(torch_twin)

    step = TrainStep(training(config, gradient_accumulation_steps=4), total_steps=1)
    params = jax.tree.map(jnp.copy, nnx.state(flax_twin, nnx.Param))
    state = TrainState(params, step.optimizer.init(params), jnp.zeros((), jnp.int32))
    state, metrics = step(state, type(batch)(*map(jnp.asarray, batch)))
    assert ulps(metrics["loss"], loss_sum / count) <= STACK
    # Adam's first step hides the size of the gradient; its running mean, (1 - beta1) times the gradient, shows it.
    mean = optax.tree_utils.tree_get(state.opt_state, "mean")
    gradients = jax.tree.map(lambda m: m / (1 - step.config.optimizer.beta1), mean)
    check_gradients(flax_gradients(gradients, parent=""), expected, "float64")

    means = [torch_loss(torch_twin, type(batch)(*(array[[row]] for array in batch))) for row in range(4)]
    mean_of_means = sum(loss.item() / max(count.item(), 1) for _, loss, count in means) / 4
    assert abs(mean_of_means / (loss_sum / count).item() - 1) > 1e-2
