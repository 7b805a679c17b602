"""Imported models against transformers: outputs of the torch twin, and weights there and back."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from twins import OPERATION, STACK, ulps

from flax_transformer.config import ModelConfig
from flax_transformer.interop.huggingface.exporting import write_model
from flax_transformer.interop.huggingface.family import Weights
from flax_transformer.interop.huggingface.shapes import weight_shapes
from flax_transformer.parity.against_transformers import in_float64, load
from torch_reference.nn.models import create_model

pytest.importorskip("transformers", reason="needs transformers, to compare with its models")

from hf_models import (
    ENCODERS,
    KINDS,
    imported,
    in_dtype,
    inputs,
    outputs,
    random_model,
    real,
    source_mask,
    torch_twin,
)

# In scaled ULP. Encoders are the same operations in the same order; generators add up some of them otherwise.
CEILING = {True: 0.0, False: OPERATION}


def of_torch(config: ModelConfig, weights: Weights, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    with torch.no_grad():
        return torch_twin(config, weights)(*map(torch.tensor, arrays)).numpy()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.sample(12)
def test_the_torch_twin_computes_what_transformers_computes(name: str, dtype: str):
    model, config, weights = imported(name)
    model = in_float64(random_model(name)) if dtype == "float64" else model
    arrays = inputs(model, config)
    ours, expected = of_torch(*in_dtype(config, weights, dtype), arrays), outputs(model, arrays)
    assert np.isfinite(expected).all()
    assert ulps(real(ours, arrays), real(expected, arrays)) <= CEILING[name in ENCODERS]


@pytest.mark.parametrize("name", KINDS)
def test_the_shapes_of_a_config_are_those_of_its_model(name: str):
    _, config, _ = imported(name)
    state = create_model(config).state_dict()
    assert weight_shapes(config) == {key: tuple(weight.shape) for key, weight in state.items()}


# What people get wrong when they write a model for these weights -> the change of the config, on models of a kind.
MISTAKES = {
    "another epsilon": ("bert", {"norm_eps": 1e-5}),
    "GELU by tanh": ("bert", {"activation": "gelu_tanh"}),
    "no activation before the head of its own": ("distilbert", {"head_hidden": "tanh"}),
    "the first token is not the summary": ("electra", {"pooling": "mean"}),
    "positions from row 0": ("roberta", {"position_offset": 0, "max_length": 41}),
    "positions of BART from row 0": ("bart", {"position_offset": 0, "max_length": 43}),
    "sines and cosines in turn": ("pegasus", {"positions": "sinusoidal"}),
    "embeddings not scaled": ("mbart", {"scale_embeddings": False}),
    "distances end too soon": ("mpnet", {"relative_max_distance": 20}),
    "scaled attention": ("t5", {"scale_attention": True}),
    "logits not scaled": ("t5", {"scale_logits": False}),
    "exact GELU": ("t5-1.1", {"activation": "gelu"}),
    "pre-LN": ("marian", {"norm_first": True}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_config_shows(mistake: str):
    name, change = MISTAKES[mistake]
    model, config, weights = imported(name)
    arrays = inputs(model, config)
    wrong = of_torch(*in_dtype(dataclasses.replace(config, **change), weights, "float32"), arrays)
    assert ulps(real(wrong, arrays), real(outputs(model, arrays), arrays)) > 2 * STACK


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_mistake_in_a_weight_shows(side: str):
    model, config, weights = imported("t5")
    arrays = inputs(model, config)
    flipped = weights | {f"{side}.relative_bias.weight": weights[f"{side}.relative_bias.weight"][::-1].copy()}
    wrong = of_torch(*in_dtype(config, flipped, "float32"), arrays)
    assert ulps(real(wrong, arrays), real(outputs(model, arrays), arrays)) > 2 * STACK


def test_token_types_are_those_of_transformers_for_pairs():
    model, config, weights = imported("bert")
    separator = 4
    config = dataclasses.replace(config, eos_id=separator)
    source, lengths = inputs(model, config)
    source = np.where(source == separator, separator + 1, source)
    source[0, [9, 29]], source[1, [3, 6]] = separator, separator
    before = np.cumsum(source == separator, axis=1) - (source == separator)
    with torch.no_grad():
        expected = model(
            input_ids=torch.tensor(source).long(),
            attention_mask=source_mask(source),
            token_type_ids=torch.tensor(np.minimum(before, 1)).long(),
        ).logits.numpy()
    ours = of_torch(*in_dtype(config, weights, "float32"), (source, lengths))
    assert ulps(ours, expected) == 0
    assert ulps(ours, outputs(model, (source, lengths))) > 2 * STACK  # as of single texts


@pytest.mark.parametrize("name", KINDS)
def test_weights_come_back_bit_by_bit(name: str, tmp_path: Path):
    model, config, weights = imported(name)
    model_type = model.config.model_type
    family, settings, tensors = write_model(config, weights, model_type=model_type)
    assert family.model_type == model_type
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    back, missing = load(tmp_path)
    assert missing == KINDS[name].left_out
    assert type(back) is type(model)
    state, expected = back.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state.keys() - missing)
