"""Exports with random weights, which predict nonsense, but do so reproducibly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from flax_transformer.config import ModelConfig, TokenizerConfig
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.decoding.predictable import limits_of_model
from flax_transformer.interop.export import save_export
from flax_transformer.nn.models import create_model

CLASSES = ("good", "poor", "mixed")
WORDS = ["the", "film", "was", "very", "long", "and", "loud", "pöor"]
# Enough of them that a signal arrives in between, and of many lengths.
TEXTS = [" ".join(WORDS[(3 * number + place) % 8] for place in range(number % 23 + 1)) for number in range(700)]


def save_model(folder: Path, architecture: Any, seed: int = 0, thresholds: tuple[float, ...] = ()) -> Path:
    """An export with random weights, large enough that what comes out depends on what goes in."""
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS)
    config = ModelConfig(
        architecture=architecture,
        d_model=16,
        num_heads=2,
        d_ff=16,
        num_encoder_layers=1,
        num_decoder_layers=1,
        max_length=64,
        tie_embeddings="none",
        source_vocab_size=tokenizer.vocab_size,
        target_vocab_size=tokenizer.vocab_size,
        num_classes=len(CLASSES),
    )
    model = nnx.eval_shape(lambda: create_model(config, seed=0))  # all of its weights are drawn here
    rng = np.random.default_rng(seed)
    draw = nnx.map_state(
        lambda _, param: param.replace(jnp.asarray(rng.standard_normal(param.shape), jnp.float32)),
        nnx.state(model, nnx.Param),
    )
    nnx.update(model, draw)
    limits = replace(limits_of_model(config), thresholds=thresholds)
    save_export(folder, model, tokenizer, CLASSES if architecture == "classifier" else (), limits)
    return folder
