"""Imported models against transformers: outputs of both twins, weights there and back, generated tokens."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from twins import OPERATION, STACK, ulps, with_weights

from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.decoding import generate as flax_generate
from flax_transformer.interop.huggingface.checkpoint import read_checkpoint
from flax_transformer.interop.huggingface.exporting import write_model
from flax_transformer.interop.huggingface.family import Weights
from flax_transformer.interop.huggingface.importing import read_model
from flax_transformer.interop.huggingface.shapes import weight_shapes
from flax_transformer.nn.models import create_model as create_flax
from torch_reference.decoding import generate as torch_generate
from torch_reference.nn.models import create_model as create_torch

pytest.importorskip("transformers", reason="needs transformers, to compare with its models")

import hf_models
from hf_models import ENCODERS, GENERATORS, KINDS, LENGTHS, TARGET_LENGTHS

# In scaled ULP. Encoders are the same operations in the same order; generators add up some of them otherwise.
TORCH = {True: 0.0, False: OPERATION}
FLAX = 2 * STACK


@functools.cache
def imported(name: str) -> tuple[torch.nn.Module, ModelConfig, Weights]:
    """A random model of transformers, and what is read of its folder."""
    import tempfile

    model = hf_models.random_model(name)
    with tempfile.TemporaryDirectory() as folder:
        _, config, weights, _ = read_model(read_checkpoint(hf_models.save(model, Path(folder))))
    return model, config, weights


def in_dtype(config: ModelConfig, weights: Weights, dtype: str) -> tuple[ModelConfig, Weights]:
    config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype, attention_backend="xla")
    return config, {name: weight.astype(dtype) for name, weight in weights.items()}


def torch_twin(config: ModelConfig, weights: Weights) -> torch.nn.Module:
    model = create_torch(config)
    model.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()}, strict=True)
    return model.eval()


def flax_twin(config: ModelConfig, weights: Weights) -> Any:
    return with_weights(nnx.eval_shape(lambda: create_flax(config, seed=0)), weights, "")


def inputs(model: torch.nn.Module, config: ModelConfig) -> tuple[np.ndarray, ...]:
    source = hf_models.random_ids(model, LENGTHS, config.source_vocab_size)
    if config.architecture == "classifier":
        return source, LENGTHS
    return source, hf_models.target_ids(model, TARGET_LENGTHS), LENGTHS, TARGET_LENGTHS


@torch.no_grad()
def theirs(model: torch.nn.Module, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Logits of transformers; of a bare encoder the pooled rows."""
    source = torch.tensor(arrays[0]).long()
    mask = torch.tensor(np.arange(source.shape[1]) < LENGTHS[:, None]).long()
    if len(arrays) == 4:
        target = torch.tensor(arrays[1]).long()
        return model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits.numpy()
    output = model(input_ids=source, attention_mask=mask)
    if hasattr(output, "logits"):
        return output.logits.numpy()
    is_bert = type(model).__name__ == "BertModel"
    return (output.pooler_output if is_bert else output.last_hidden_state[:, 0]).numpy()


def real(output: np.ndarray, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Without the logits of padding."""
    return output if len(arrays) == 2 else output[np.arange(output.shape[1]) < TARGET_LENGTHS[:, None]]


def of_torch(config: ModelConfig, weights: Weights, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    with torch.no_grad():
        return torch_twin(config, weights)(*map(torch.tensor, arrays)).numpy()


@pytest.mark.parametrize("name", KINDS)
def test_the_torch_twin_computes_what_transformers_computes(name: str, dtype: str):
    model, config, weights = imported(name)
    model = hf_models.in_float64(hf_models.random_model(name)) if dtype == "float64" else model
    arrays = inputs(model, config)
    ours, expected = of_torch(*in_dtype(config, weights, dtype), arrays), theirs(model, arrays)
    assert np.isfinite(expected).all()
    assert ulps(real(ours, arrays), real(expected, arrays)) <= TORCH[name in ENCODERS]


@pytest.mark.parametrize("name", KINDS)
def test_the_flax_twin_computes_what_transformers_computes(name: str, dtype: str):
    model, config, weights = imported(name)
    model = hf_models.in_float64(hf_models.random_model(name)) if dtype == "float64" else model
    arrays = inputs(model, config)
    ours = jax.jit(lambda twin, *ids: twin(*ids))(
        flax_twin(*in_dtype(config, weights, dtype)), *map(jnp.asarray, arrays)
    )
    assert ulps(real(np.asarray(ours), arrays), real(theirs(model, arrays), arrays)) <= FLAX


@pytest.mark.parametrize("name", KINDS)
def test_the_shapes_of_a_config_are_those_of_its_model(name: str):
    _, config, _ = imported(name)
    state = create_torch(config).state_dict()
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
    assert ulps(real(wrong, arrays), real(theirs(model, arrays), arrays)) > FLAX


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_mistake_in_a_weight_shows(side: str):
    model, config, weights = imported("t5")
    arrays = inputs(model, config)
    flipped = weights | {f"{side}.relative_bias.weight": weights[f"{side}.relative_bias.weight"][::-1].copy()}
    wrong = of_torch(*in_dtype(config, flipped, "float32"), arrays)
    assert ulps(real(wrong, arrays), real(theirs(model, arrays), arrays)) > FLAX


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
            attention_mask=torch.tensor(np.arange(source.shape[1]) < lengths[:, None]).long(),
            token_type_ids=torch.tensor(np.minimum(before, 1)).long(),
        ).logits.numpy()
    ours = of_torch(*in_dtype(config, weights, "float32"), (source, lengths))
    assert ulps(ours, expected) == 0
    assert ulps(ours, theirs(model, (source, lengths))) > FLAX  # as of single texts


@pytest.mark.parametrize("name", KINDS)
def test_weights_come_back_bit_by_bit(name: str, tmp_path: Path):
    import safetensors.numpy

    model, config, weights = imported(name)
    model_type = model.config.model_type
    family, settings, tensors = write_model(config, weights, model_type=model_type)
    assert family.model_type == model_type
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(__import__("json").dumps(settings), encoding="utf-8")
    back = hf_models.load(tmp_path)
    assert type(back) is type(model)
    ours, theirs_ = back.state_dict(), model.state_dict()
    left_out = {"pooler.dense.weight", "pooler.dense.bias"} if name == "mpnet-bare" else set()
    assert ours.keys() == theirs_.keys() - left_out
    assert all(torch.equal(ours[key], theirs_[key]) for key in ours)


def check_tokens(name: str, config: GenerationConfig, **settings: Any) -> None:
    """Tokens of both twins are those of ``model.generate``."""
    model, model_config, weights = imported(name)
    source = hf_models.random_ids(model, LENGTHS, model_config.source_vocab_size)
    mask = torch.tensor(np.arange(source.shape[1]) < LENGTHS[:, None]).long()
    expected = model.generate(
        input_ids=torch.tensor(source).long(),
        attention_mask=mask,
        max_new_tokens=config.max_new_tokens,
        do_sample=False,
        forced_eos_token_id=None,
        decoder_start_token_id=model_config.bos_id,
        **settings,
    )[:, 1:].numpy()
    expected = [row[: _end(row, model_config.eos_id)].tolist() for row in expected]
    narrow = in_dtype(model_config, weights, "float32")
    of_torch = torch_generate.generate(torch_twin(*narrow), torch.tensor(source), torch.tensor(LENGTHS), config)
    of_flax = flax_generate.generate(flax_twin(*narrow), source, LENGTHS, config)
    assert torch_generate.read_tokens(of_torch) == expected
    assert flax_generate.read_tokens(of_flax) == expected
    assert len({tuple(row) for row in expected}) > 1  # what is written depends on what is read


def _end(row: np.ndarray, eos_id: int) -> int:
    ends = np.flatnonzero(row == eos_id)
    return int(ends[0]) if len(ends) else len(row)


@pytest.mark.parametrize("name", GENERATORS)
def test_greedy_tokens_are_those_of_transformers(name: str):
    check_tokens(name, GenerationConfig(max_new_tokens=12), num_beams=1)


@pytest.mark.parametrize("name", GENERATORS)
def test_tokens_of_beam_search_are_those_of_transformers(name: str):
    config = GenerationConfig(
        max_new_tokens=12,
        strategy="beam",
        beam_width=3,
        length_penalty="mean",
        length_alpha=1.0,
        early_stopping=False,
    )
    check_tokens(name, config, num_beams=3, length_penalty=1.0, early_stopping=False)
