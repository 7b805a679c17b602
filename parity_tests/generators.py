"""Pairs of generators with equal random weights, what they are given, and what they generate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from naive import Output, generate_naively

from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.data.generation import Constraint
from flax_transformer.decoding import generate as flax_generate
from flax_transformer.interop import state_dict as bridge
from flax_transformer.nn import models as flax_models
from torch_reference.decoding import generate as torch_generate
from torch_reference.nn import models as torch_models

SOURCE_LENGTHS = np.array([6, 1, 0, 4], np.int32)


class Twins(NamedTuple):
    flax: Any
    torch: Any


def draw_weights(config: ModelConfig, seed: int, scale: float = 0.7) -> dict[str, np.ndarray]:
    """Normal weights in PyTorch's names and layouts, large enough that outputs vary from row to row."""
    rng = np.random.default_rng(seed)
    state = torch_models.create_model(config, seed=0).state_dict()
    return {
        key: (scale * rng.standard_normal(tensor.shape)).astype(config.param_dtype) for key, tensor in state.items()
    }


def make_flax(config: ModelConfig, weights: dict[str, np.ndarray]) -> Any:
    """The Flax model as its module has it at the time, which may hold a mutant."""
    converted = bridge.from_torch(weights)
    graph, abstract = nnx.split(nnx.eval_shape(lambda: flax_models.create_model(config, seed=0)))
    params = [
        (path, param.replace(jnp.asarray(converted[".".join(map(str, path))])))
        for path, param in nnx.to_flat_state(abstract)
    ]
    return nnx.merge(graph, nnx.from_flat_state(params))


def make_torch(config: ModelConfig, weights: dict[str, np.ndarray]) -> Any:
    model = torch_models.create_model(config, seed=0).eval()
    model.load_state_dict({key: torch.tensor(array) for key, array in weights.items()})
    return model


def make_twins(config: ModelConfig, seed: int) -> Twins:
    weights = draw_weights(config, seed)
    return Twins(make_flax(config, weights), make_torch(config, weights))


def draw_ending_weights(config: ModelConfig, seed: int, step: int) -> dict[str, np.ndarray]:
    """Weights of a model that tends to end its outputs about ``step``, which random ones seldom do.

    The end token changes places with the token that the model would have generated there.
    """
    weights = draw_weights(config, seed)
    probe = run_torch(make_torch(config, weights), draw_source(config, seed), GenerationConfig(step + 1))
    swapped = [probe.tokens[0, step], config.eos_id]
    target_table = "source_table.weight" if config.tie_embeddings == "all" else "target_table.weight"
    for key in {target_table, "projection.weight", "projection.bias"} & weights.keys():
        weights[key][swapped] = weights[key][swapped[::-1]]
    return weights


def small(dtype: str, **changes: Any) -> ModelConfig:
    sizes = {"d_model": 16, "num_heads": 2, "d_ff": 13, "num_encoder_layers": 1, "num_decoder_layers": 2}
    vocabulary = {"source_vocab_size": 11, "target_vocab_size": 11, "max_length": 24}
    return ModelConfig(**{"dtype": dtype, "param_dtype": dtype, "dropout": 0.0, **sizes, **vocabulary, **changes})


def draw_source(config: ModelConfig, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (len(SOURCE_LENGTHS), int(SOURCE_LENGTHS.max()))
    return rng.integers(3, config.source_vocab_size, shape).astype(np.int32)


class Result(NamedTuple):
    """A generation on the host."""

    tokens: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray
    stopped_by_eos: np.ndarray


def run_flax(model: Any, source: np.ndarray, config: GenerationConfig, **options: Any) -> Result:
    return Result(*jax.device_get(flax_generate.generate(model, source, SOURCE_LENGTHS, config, **options)))


def run_torch(model: Any, source: np.ndarray, config: GenerationConfig, **options: Any) -> Result:
    ids, lengths = torch.tensor(source), torch.tensor(SOURCE_LENGTHS)
    return Result(*(tensor.numpy() for tensor in torch_generate.generate(model, ids, lengths, config, **options)))


def run_naively(
    model: Any, source: np.ndarray, config: GenerationConfig, constraint: Constraint | None = None
) -> Result:
    """What the naive generator finds, row by row, in the form of the others; rows without a source stay empty."""
    found: list[Output | None] = []
    for row, length in enumerate(SOURCE_LENGTHS):
        ids = torch.tensor(source[row, :length])
        outputs = generate_naively(model, ids, config, constraint, row_seed=row) if length else []
        found += [*outputs, *[None] * (config.n_best - len(outputs))]
    model_config = model.config
    tokens = np.full((len(found), config.max_new_tokens), model_config.pad_id)
    for row, output in enumerate(found):
        if output is not None:
            tokens[row, : len(output.tokens)] = output.tokens
    missing = 0.0 if config.strategy != "beam" else -np.inf
    return Result(
        tokens,
        np.array([0 if output is None else len(output.tokens) for output in found]),
        np.array([missing if output is None else output.score for output in found]),
        np.array([output is not None and output.tokens[-1] == model_config.eos_id for output in found]),
    )


def assert_same(result: Result, expected: Result) -> None:
    np.testing.assert_array_equal(result.tokens, expected.tokens)
    np.testing.assert_array_equal(result.lengths, expected.lengths)
    np.testing.assert_array_equal(result.stopped_by_eos, expected.stopped_by_eos)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=1e-10)
