"""Stacked layers: drawn at once, stacked and taken apart, they are the layers that come one after the other."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from flax_transformer.config import ModelConfig
from flax_transformer.interop.state_dict import get_weights
from flax_transformer.nn.kernels.rngs import Rngs
from flax_transformer.nn.kernels.scan import create_layers, stack_layers, unstack_layers
from flax_transformer.nn.layers import DecoderLayer, EncoderLayer
from flax_transformer.nn.models import create_model

CONFIG = ModelConfig(d_model=8, num_heads=2, d_ff=12, num_encoder_layers=3, num_decoder_layers=2)


def assert_same(weights: dict[str, np.ndarray], expected: dict[str, np.ndarray]):
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        np.testing.assert_array_equal(weights[name], weight, err_msg=name)


@pytest.mark.parametrize("kind", [EncoderLayer, DecoderLayer])
@pytest.mark.sample(1)
def test_layers_drawn_at_once_are_those_drawn_one_after_the_other(kind: Any):
    def create(at_once: bool) -> tuple[nnx.List, jax.Array]:
        rngs = Rngs(params=jax.random.key(5))
        rngs.params()
        layers = create_layers(kind, CONFIG, 3, rngs) if at_once else nnx.List([kind(CONFIG, rngs=rngs) for _ in "123"])
        return layers, jax.random.key_data(rngs.params())

    (layers, next_key), (expected, expected_key) = create(True), create(False)
    assert_same(get_weights(layers), get_weights(expected))
    np.testing.assert_array_equal(next_key, expected_key)
    first, second = (get_weights(layer)["feed_forward.up_proj.kernel"] for layer in layers[:2])
    assert (first != second).all()


def test_layers_that_are_stacked_and_taken_apart_are_the_same():
    expected = get_weights(create_model(CONFIG, seed=1))
    stacked = stack_layers(create_model(replace(CONFIG, scan_layers=True), seed=1))
    kernel = get_weights(stacked)["encoder.layers.feed_forward.up_proj.kernel"]
    assert kernel.shape == (3, 8, 12)
    assert_same(get_weights(unstack_layers(stacked)), expected)
