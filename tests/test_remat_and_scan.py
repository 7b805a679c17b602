"""Remat and scan: the loss and every gradient are those of layers one by one, and so are the names of the weights."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_transformer.config import BatchConfig, ImdbData, ModelConfig, OptimizerConfig, TrainConfig
from flax_transformer.data.batches import ClassifierBatch, Seq2SeqBatch
from flax_transformer.interop.state_dict import get_weights
from flax_transformer.nn.kernels.scan import stack_layers, unstack_layers
from flax_transformer.nn.models import create_model
from flax_transformer.training import optim
from flax_transformer.training.step import TrainStep, batch_loss

pytestmark = pytest.mark.optimized

ROWS, SOURCE, TARGET, VOCABULARY = 3, 7, 5, 29


SMALL = ModelConfig(
    d_model=8,
    num_heads=2,
    d_ff=11,
    num_encoder_layers=3,
    num_decoder_layers=2,
    dropout=0.0,
    relative_buckets=8,
    relative_max_distance=5,
    source_vocab_size=VOCABULARY,
    target_vocab_size=VOCABULARY,
    dtype="float64",
    param_dtype="float64",
)


def loss_and_gradients(config: ModelConfig, *, drops: bool = False) -> tuple[float, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    source = rng.integers(3, VOCABULARY, (ROWS, SOURCE)), np.array([SOURCE, 3, 0])
    batch = (
        ClassifierBatch(*source, np.array([0, 1, 1]))
        if config.architecture == "classifier"
        else Seq2SeqBatch(*source, rng.integers(3, VOCABULARY, (ROWS, TARGET)), np.array([4, TARGET, 2]))
    )
    batch = type(batch)(*map(jnp.asarray, batch))
    graph, params = nnx.split(stack_layers(create_model(config, seed=1)))

    def loss(params: nnx.State) -> jax.Array:
        rngs = nnx.Rngs(dropout=2) if drops else None
        return batch_loss(nnx.merge(graph, params), batch, rngs=rngs)[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    return float(value), get_weights(unstack_layers(nnx.merge(graph, gradients)))


VARIANTS: dict[str, list[dict[str, Any]]] = {
    "classifier": [{"remat": "full"}, {"scan_layers": True}],
    "seq2seq": [{"scan_layers": True, "remat": "dots"}],
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", VARIANTS)
def test_remat_and_scan_change_nothing(architecture: Any):
    with jax.enable_x64(True):
        config = replace(SMALL, architecture=architecture)
        loss, gradients = loss_and_gradients(config)
        for variant in VARIANTS[architecture]:
            same_loss, same = loss_and_gradients(replace(config, **variant))
            assert same_loss == pytest.approx(loss, rel=1e-13)
            assert same.keys() == gradients.keys()
            for name, gradient in gradients.items():
                np.testing.assert_allclose(same[name], gradient, rtol=0, atol=1e-12, err_msg=f"{variant} {name}")
        other, _ = loss_and_gradients(replace(config, num_encoder_layers=2))
        assert other != pytest.approx(loss, rel=1e-6)


def train(model: ModelConfig, *, steps: int = 4) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and last weights; Adam with decoupled decay, which must find the vectors among stacked weights."""
    optimizer = OptimizerConfig("adamw", learning_rate=1e-2, weight_decay=0.5, max_grad_norm=1.0)
    rng = np.random.default_rng(0)
    source = rng.integers(3, VOCABULARY, (ROWS, SOURCE)), np.array([SOURCE, 3, 1])
    batch = ClassifierBatch(*source, np.array([0, 1, 1]))
    config = TrainConfig(ImdbData(), model=model, optimizer=optimizer, batch=BatchConfig(size=ROWS))
    step = TrainStep(config, total_steps=steps)
    state, losses = step.init(), []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses, get_weights(step.model(state))


@pytest.mark.slow
def test_training_with_scan_is_training_layer_by_layer(monkeypatch: pytest.MonkeyPatch):
    with jax.enable_x64(True):
        config = replace(SMALL, architecture="classifier", num_encoder_layers=2)
        scanned = replace(config, scan_layers=True)
        losses, weights = train(config)
        same_losses, same = train(scanned)
        np.testing.assert_allclose(same_losses, losses, rtol=1e-12)
        assert same.keys() == weights.keys()
        for name, weight in weights.items():
            np.testing.assert_allclose(same[name], weight, rtol=0, atol=1e-11, err_msg=name)
        # Takes stacked vectors for matrices.
        monkeypatch.setattr(optim, "is_matrix", lambda parameter: parameter.ndim > 1)
        _, mistaken = train(scanned)
        scale = "encoder.layers.0.feed_forward_residual.norm.scale"
        assert np.abs(mistaken[scale] - weights[scale]).max() > 1e-4


@pytest.mark.slow
def test_remat_draws_the_dropout_masks_of_the_forward_pass_again():
    with jax.enable_x64(True):
        config = replace(SMALL, architecture="classifier", dropout=0.3, num_encoder_layers=1)
        loss, gradients = loss_and_gradients(config, drops=True)
        same_loss, same = loss_and_gradients(replace(config, remat="full"), drops=True)
        assert same_loss == pytest.approx(loss, rel=1e-13)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(same[name], gradient, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.slow
def test_dropout_in_scanned_layers_follows_from_its_key():
    with jax.enable_x64(True):
        config = replace(SMALL, architecture="classifier", dropout=0.5, scan_layers=True, num_encoder_layers=2)
        first, _ = loss_and_gradients(config, drops=True)
        again, _ = loss_and_gradients(config, drops=True)
        without, _ = loss_and_gradients(config)
    assert first == again != without


@pytest.mark.slow
def test_the_step_with_remat_keeps_less():
    """What the backward pass reads of the forward pass, by the shapes that jax saves."""

    def saved(remat: str) -> int:
        config = replace(SMALL, architecture="classifier", remat=remat, dtype="float32", param_dtype="float32")
        graph, params = nnx.split(create_model(config, seed=0))
        ids, lengths = jnp.zeros((4, 64), jnp.int32), jnp.full(4, 64, jnp.int32)

        def loss(params: nnx.State) -> jax.Array:
            model: Any = nnx.merge(graph, params)
            return model(ids, lengths).sum()

        backward = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))

    assert saved("full") < saved("dots") < saved("none")
