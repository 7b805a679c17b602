"""Mistakes that change no shape and raise no error: each test here fails where one of them is made.

They are: evaluation with dropout on; initial weights that ignore the seed; one dropout key for all steps, or for all
parts of a batch; a schedule that ends after the first epoch; a mean of the means of batches; padding that is counted;
temperature after top-p; permuted names of classes; the last tokens of a text instead of the first; a step taken with a
gradient that is not finite; predictions and references exchanged.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_exports import CLASSES, save_model

from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    GenerationConfig,
    ModelConfig,
    Multi30kData,
    Seq2SeqData,
    TokenizerConfig,
    TrainConfig,
)
from flax_transformer.data.batches import ClassifierBatch, Seq2SeqBatch, Sequences, Shape
from flax_transformer.data.encoding import encode_examples, encode_sources
from flax_transformer.data.examples import Examples
from flax_transformer.data.tasks import score
from flax_transformer.data.tokenizer import Tokenizer, train_tokenizer
from flax_transformer.decoding.step import draw_tokens
from flax_transformer.interop.export import save_export
from flax_transformer.interop.exported import Exported
from flax_transformer.nn.models import create_model
from flax_transformer.training import step as step_module
from flax_transformer.training.evaluate import Evaluator
from flax_transformer.training.loop import train
from flax_transformer.training.optim import learning_rates
from flax_transformer.training.step import TrainStep, count_tokens, evaluate_loss

SIZES: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 12, "num_encoder_layers": 1, "num_decoder_layers": 1}
SIZES |= {"source_vocab_size": 50, "target_vocab_size": 50}
CLASSIFIER = ModelConfig("classifier", **SIZES)
SEQ2SEQ = ModelConfig(**SIZES)
LENGTHS = np.array([6, 2, 3, 1], np.int32)


def config_of(model: ModelConfig, **changes: Any) -> TrainConfig:
    data = ClassificationData() if model.architecture == "classifier" else Seq2SeqData()
    return TrainConfig(**{"data": data, "model": model, "batch": BatchConfig(size=4), **changes})


def batch_of(model: ModelConfig) -> Any:
    rng = np.random.default_rng(0)
    source = rng.integers(3, 50, (4, 6)).astype(np.int32)
    if model.architecture == "classifier":
        return ClassifierBatch(source, LENGTHS, rng.integers(0, 2, 4).astype(np.int32))
    return Seq2SeqBatch(source, LENGTHS, rng.integers(3, 50, (4, 7)).astype(np.int32), LENGTHS[::-1] + 1)


@pytest.mark.parametrize("model", [CLASSIFIER, SEQ2SEQ], ids=["classifier", "seq2seq"])
@pytest.mark.sample(1)
def test_evaluation_drops_nothing(model: ModelConfig):
    """Neither the loss nor what is predicted, however much training drops."""
    rates = {"dropout": 0.9, "attention_dropout": 0.9}
    without = create_model(replace(model, dropout=0.0, attention_dropout=0.0), seed=0)
    dropping = create_model(replace(model, **rates), seed=0)
    for one, other in zip(*(evaluate_loss(each, batch_of(model)) for each in (without, dropping)), strict=True):
        assert float(one) == float(other)
    trained = TrainStep(config_of(replace(model, **rates)), total_steps=3)
    plain = TrainStep(config_of(replace(model, dropout=0.0)), total_steps=3)
    losses = [float(each(each.init(), batch_of(model))[1]["loss"]) for each in (trained, plain)]
    assert losses[0] != losses[1], "dropout is off in training too, so nothing was seen"


def test_initial_weights_follow_the_seed():
    def weights(seed: int) -> list[np.ndarray]:
        step = TrainStep(config_of(SEQ2SEQ, seed=seed), total_steps=3)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(step.init().params)]

    assert all((one == same).all() for one, same in zip(weights(3), weights(3), strict=True))
    for one, other in zip(weights(3), weights(4), strict=True):
        if one.std() > 0:  # not a bias or a scale, which begin as zeros or ones
            assert (one != other).mean() > 0.99


def uniform_loss(power: int) -> Any:
    """A loss that is nothing but a draw from the key of dropout, to some power."""

    def loss(model: Any, batch: Any, label_smoothing: float, rngs: Any, class_weights: Any, r_drop: float) -> Any:
        weights = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        return jax.random.uniform(rngs.dropout()) ** power + 0 * weights, jnp.int32(1)

    return loss


def draws_of(monkeypatch: pytest.MonkeyPatch, parts: int, power: int) -> list[float]:
    """The mean over the parts of a batch, in three steps."""
    monkeypatch.setattr(step_module, "batch_loss", uniform_loss(power))
    step = TrainStep(config_of(CLASSIFIER, gradient_accumulation_steps=parts), total_steps=3)
    state, found = step.init(), []
    for _ in range(3):
        state, metrics = step(state, batch_of(CLASSIFIER))
        found.append(float(metrics["loss"]))
    return found


def test_each_step_and_each_part_of_a_batch_has_dropout_of_its_own(monkeypatch: pytest.MonkeyPatch):
    assert len(set(draws_of(monkeypatch, parts=1, power=1))) == 3, "steps share a key"
    means, squares = (np.array(draws_of(monkeypatch, parts=4, power=power)) for power in (1, 2))
    # Where all parts drew the same number, the mean of the squares would be the square of the mean.
    assert (squares - means**2 > 1e-4).all(), "parts share a key"


@pytest.fixture(scope="module")
def run_config(reviews: Path) -> TrainConfig:
    return TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig("classifier", d_model=8, num_heads=2, d_ff=12, num_encoder_layers=1),
        batch=BatchConfig(size=8, buckets=1, max_source_length=16),
        epochs=3,
        log_every=1,
    )


def test_the_schedule_spans_all_epochs(run_config: TrainConfig, tmp_path: Path):
    train(run_config, tmp_path / "run")
    text = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [line for line in map(json.loads, text.splitlines()) if "learning_rate" in line]
    total = lines[-1]["step"]
    assert lines[-1]["epoch"] == 3
    expected = learning_rates(run_config.optimizer, total)[[line["step"] - 1 for line in lines]]
    np.testing.assert_allclose([line["learning_rate"] for line in lines], expected, rtol=1e-6)
    assert len({line["learning_rate"] for line in lines if line["epoch"] > 1}) > 2


@pytest.mark.parametrize("architecture", ["classifier", "seq2seq"])
@pytest.mark.sample(1)
def test_the_loss_of_a_split_is_that_of_its_tokens_however_it_is_cut_into_batches(architecture: Any, tmp_path: Path):
    """A mean of the means of batches would weigh the few tokens of the last batch like the many of the first."""
    exported = Exported.load(save_model(tmp_path / "export", architecture))
    sources = ["the film", "loud", "was very long", "and", "the long film was loud", "very very loud and long", "film"]
    targets = [0, 1, 2, 0, 1, 2, 0] if architecture == "classifier" else [" ".join([s] * 3) for s in sources]
    examples, losses = Examples(sources, targets), []
    for size in (7, 3, 2, 1):
        batch = BatchConfig(size, 64, 64, buckets=2)
        config = config_of(exported.model_config, batch=batch)
        evaluator = Evaluator(examples, exported.tokenizer, config, GenerationConfig(2))
        losses.append(evaluator.evaluate(exported.best_model())[1]["loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    batch = BatchConfig(7, 64, 64)
    encoded = encode_examples(examples, exported.tokenizer, batch, training=False)
    longest = encoded.targets.lengths.max() if isinstance(encoded.targets, Sequences) else 0
    shape, model = Shape(int(encoded.sources.lengths.max()), int(longest)), exported.best_model()
    apart = [[float(value) for value in evaluate_loss(model, encoded.batch(np.array([i]), shape))] for i in range(7)]
    sums, counts = np.sum(apart, axis=0)
    assert losses[0] == pytest.approx(sums / counts, rel=1e-5)
    means = np.mean([total / count for total, count in apart])
    if architecture == "seq2seq":
        assert abs(means - losses[0]) > 1e-3, "all texts are alike, so the mistake could not be seen"


@pytest.mark.parametrize("model", [CLASSIFIER, SEQ2SEQ], ids=["classifier", "seq2seq"])
@pytest.mark.sample(1)
def test_padding_is_no_token(model: ModelConfig):
    batch = batch_of(model)
    expected = 12 if model is CLASSIFIER else 12 + 16
    assert int(count_tokens(batch)) == expected
    step = TrainStep(config_of(model), total_steps=1)
    assert int(step(step.init(), batch)[1]["tokens"]) == expected
    wider = [np.pad(part, ((0, 0), (0, 5))) if part.ndim == 2 else part for part in batch]
    assert int(count_tokens(type(batch)(*wider))) == expected


def test_temperature_acts_before_top_p():
    """It decides how many tokens have the probability of top-p together."""
    log_probabilities = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    draws = [jnp.array([draw]) for draw in np.arange(0, 1, 0.01)]

    def drawn(temperature: float) -> set[int]:
        config = GenerationConfig(1, strategy="sample", temperature=temperature, top_p=0.7)
        return {int(draw_tokens(log_probabilities, draw, config)[0]) for draw in draws}

    assert drawn(1.0) == {0, 1}
    assert drawn(0.25) == {0}  # 0.5 becomes 0.88
    assert drawn(8.0) == {0, 1, 2}  # they become about as probable as each other
    assert drawn(100.0) == {0, 1, 2}


def test_each_class_is_named_by_its_own_name(tmp_path: Path):
    """A bias that leaves no doubt makes the model choose one class after the other."""
    exported = Exported.load(save_model(tmp_path / "export", "classifier"))
    for number, name in enumerate(CLASSES):
        model: Any = exported.best_model()
        model.head.bias[...] = jnp.zeros(len(CLASSES)).at[number].set(1e4)
        folder = tmp_path / str(number)
        save_export(folder, model, exported.tokenizer, CLASSES, exported.prediction_config)
        (prediction,) = Exported.load(folder).predict(["the film"])
        assert (prediction.value, prediction.score) == (name, 1.0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TokenizerConfig(vocab_size=300), ["a b c"])


def test_a_text_that_is_cut_keeps_its_beginning(tokenizer: Tokenizer):
    text = "abcdefghijklmnop"
    (ids,) = tokenizer.encode([text])
    config = BatchConfig(max_source_length=5, max_target_length=6, long="cut")
    sequences = [
        encode_examples(Examples([text], [0]), tokenizer, config, training=True).sources,
        encode_examples(Examples([text], ["b"]), tokenizer, config, training=False).sources,
        encode_sources([text], tokenizer, 5, "cut").sequences,
    ]
    for found in sequences:
        assert found.padded(np.array([0]), 5, 0)[0][0].tolist() == ids[:5]
    targets = encode_examples(Examples(["b"], [text]), tokenizer, config, training=True).targets
    assert isinstance(targets, Sequences)
    assert targets.padded(np.array([0]), 6, 0)[0][0].tolist() == [tokenizer.bos_id, *ids[:5]]


def test_a_gradient_that_is_not_finite_is_not_taken_though_the_loss_is(monkeypatch: pytest.MonkeyPatch):
    def loss(model: Any, batch: Any, label_smoothing: float, rngs: Any, class_weights: Any, r_drop: float) -> Any:
        weights = model.head.kernel[...]
        return jnp.sqrt(jnp.abs(weights - jax.lax.stop_gradient(weights))).sum(), jnp.int32(1)

    monkeypatch.setattr(step_module, "batch_loss", loss)
    step = TrainStep(config_of(CLASSIFIER), total_steps=3)
    before = jax.tree.map(np.array, step.init())
    after, metrics = step(step.init(), batch_of(CLASSIFIER))
    assert math.isfinite(metrics["loss"])
    assert not math.isfinite(metrics["grad_norm"])
    assert metrics["skipped"]
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (before.params, before.opt_state))


@pytest.mark.parametrize("data", [Seq2SeqData(), Multi30kData()], ids=["seq2seq", "multi30k"])
def test_predictions_are_measured_by_the_references_and_not_the_reverse(data: Any):
    """BLEU punishes what is too short: exp(1 - 8/4) for four right words of eight (Papineni et al., 2002)."""
    short, long = "a b c d", "a b c d e f g h"
    assert score(data, [short], Examples(["x"], [long]))["bleu"] == pytest.approx(100 * math.exp(-1))
    precisions = [4 / 8, 3 / 7, 2 / 6, 1 / 5]
    expected = 100 * math.prod(precisions) ** (1 / 4)
    assert score(data, [long], Examples(["x"], [short]))["bleu"] == pytest.approx(expected)
