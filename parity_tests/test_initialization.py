"""Fresh weights follow torch's own layers, or the paper: tested as distributions, since the generators differ."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from flax import nnx
from twins import torch_weights

import flax_transformer.interop.state_dict as bridge
import flax_transformer.nn.models as flax_models
import torch_reference.nn.models as torch_models
from flax_transformer.config import ModelConfig

D_MODEL, D_FF, VOCABULARY, MAX_LENGTH = 96, 224, 311, 131
# Sound samples come out less probable than this once in a million comparisons.
IMPROBABLE = 1e-6


def config_of(initialization: Any) -> ModelConfig:
    return ModelConfig(
        d_model=D_MODEL,
        num_heads=3,
        d_ff=D_FF,
        num_encoder_layers=2,
        num_decoder_layers=1,
        source_vocab_size=VOCABULARY,
        target_vocab_size=VOCABULARY,
        tie_embeddings="none",
        positions="learned",
        max_length=MAX_LENGTH,
        initialization=initialization,
    )


@pytest.fixture(scope="module", params=["torch", "paper"])
def initialization(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=["flax", "torch"])
def weights(request: pytest.FixtureRequest, initialization: str) -> dict[str, np.ndarray]:
    """Of a fresh model of either twin, in PyTorch's names."""
    if request.param == "torch":
        return torch_weights(torch_models.create_model(config_of(initialization), seed=0))
    return bridge.to_torch(bridge.get_weights(flax_models.create_model(config_of(initialization), seed=0)))


def probability(sample: np.ndarray, expected: Any) -> float:
    """Kolmogorov-Smirnov: of a sample as far from ``expected``, a distribution or another sample, as this one."""
    if isinstance(expected, np.ndarray):
        return scipy.stats.ks_2samp(sample.ravel(), expected.ravel()).pvalue
    return scipy.stats.kstest(sample.ravel(), expected.cdf).pvalue


def uniform(bound: float) -> Any:
    return scipy.stats.uniform(-bound, 2 * bound)


def xavier(fan_in: int, fan_out: int) -> Any:
    return uniform((6 / (fan_in + fan_out)) ** 0.5)


def of_torch_layer(make: Callable[[], torch.nn.Module], name: str, rows: slice = slice(None)) -> np.ndarray:
    """A weight of torch's own layer, often enough for a sample as large as the models'."""
    with torch.random.fork_rng():
        torch.manual_seed(123)
        layers = [dict(make().named_parameters())[name].detach().numpy()[rows] for _ in range(8)]
    return np.stack(layers)


def attention() -> torch.nn.Module:
    return torch.nn.MultiheadAttention(D_MODEL, 3)


# The end of a key -> what torch.nn draws it like, or from which distribution; None for a constant.
TORCH: dict[str, Any] = {
    "attention.query.weight": lambda: of_torch_layer(attention, "in_proj_weight", slice(0, D_MODEL)),
    "attention.key.weight": lambda: of_torch_layer(attention, "in_proj_weight", slice(D_MODEL, 2 * D_MODEL)),
    "attention.value.weight": lambda: of_torch_layer(attention, "in_proj_weight", slice(2 * D_MODEL, None)),
    "attention.output.weight": lambda: of_torch_layer(attention, "out_proj.weight"),
    "up_proj.weight": lambda: of_torch_layer(lambda: torch.nn.Linear(D_MODEL, D_FF), "weight"),
    "up_proj.bias": lambda: of_torch_layer(lambda: torch.nn.Linear(D_MODEL, D_FF), "bias"),
    "down_proj.weight": lambda: of_torch_layer(lambda: torch.nn.Linear(D_FF, D_MODEL), "weight"),
    "down_proj.bias": lambda: of_torch_layer(lambda: torch.nn.Linear(D_FF, D_MODEL), "bias"),
    "projection.weight": lambda: of_torch_layer(lambda: torch.nn.Linear(D_MODEL, VOCABULARY), "weight"),
    "projection.bias": lambda: of_torch_layer(lambda: torch.nn.Linear(D_MODEL, VOCABULARY), "bias"),
    "_table.weight": lambda: of_torch_layer(lambda: torch.nn.Embedding(VOCABULARY, D_MODEL), "weight"),
    "positions.table": lambda: of_torch_layer(lambda: torch.nn.Embedding(MAX_LENGTH, D_MODEL), "weight"),
}
PAPER: dict[str, Any] = {
    **{f"attention.{name}.weight": lambda: xavier(D_MODEL, D_MODEL) for name in ("query", "key", "value", "output")},
    "up_proj.weight": lambda: xavier(D_MODEL, D_FF),
    "down_proj.weight": lambda: xavier(D_FF, D_MODEL),
    "projection.weight": lambda: xavier(D_MODEL, VOCABULARY),
    "_table.weight": lambda: scipy.stats.norm(scale=D_MODEL**-0.5),
    "positions.table": lambda: scipy.stats.norm(scale=D_MODEL**-0.5),
}


def constant_of(key: str) -> float:
    return 1.0 if key.endswith("norm.weight") else 0.0


@pytest.mark.sample(2)
def test_every_weight_is_drawn_as_named(weights: dict[str, np.ndarray], initialization: str) -> None:
    rules = {end: expected() for end, expected in (TORCH if initialization == "torch" else PAPER).items()}
    used = set()
    for key, weight in weights.items():
        ends = [end for end in rules if key.endswith(end)]
        if not ends:
            assert key.endswith(("norm.weight", "norm.bias", ".bias")), f"{key} has no rule"
            assert (weight == constant_of(key)).all(), key
            continue
        (end,) = ends
        used.add(end)
        assert probability(weight, rules[end]) > IMPROBABLE, key
    assert used == set(rules)


def test_no_two_weights_are_equal(weights: dict[str, np.ndarray]) -> None:
    """torch.nn.TransformerEncoder copies one layer, so all its layers start equal."""
    drawn = [weight for weight in weights.values() if weight.std() > 0]
    firsts = [weight.ravel()[0] for weight in drawn]
    assert len(set(firsts)) == len(firsts) > 20


def test_the_statistics_see_planted_mistakes() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1, 1, (D_MODEL, D_MODEL))
    of_torch = {end: TORCH[end]() for end in ("attention.query.weight", "attention.output.weight", "down_proj.weight")}
    own_bound = (6 / (4 * D_MODEL)) ** 0.5  # of a third of the packed projection
    assert probability(drawn * own_bound, of_torch["attention.query.weight"]) > IMPROBABLE
    # As JAX's truncated_normal, and so most of its initialisers, draw.
    truncated = scipy.stats.truncnorm(-2, 2, scale=D_MODEL**-0.5).rvs((VOCABULARY, D_MODEL), rng)
    mistakes = [
        (drawn * (6 / (2 * D_MODEL)) ** 0.5, of_torch["attention.query.weight"]),  # Xavier of the unpacked matrix
        (drawn * own_bound, of_torch["attention.output.weight"]),  # packed where torch does not pack
        (drawn * D_MODEL**-0.5, of_torch["down_proj.weight"]),  # the other side's fan
        (
            rng.normal(0, own_bound / 3**0.5, drawn.shape),
            of_torch["attention.query.weight"],
        ),  # normal, of equal variance
        (rng.normal(0, 1, drawn.shape), PAPER["_table.weight"]()),  # torch's table for the paper's
        (truncated, PAPER["_table.weight"]()),
    ]
    assert all(probability(sample, expected) < IMPROBABLE for sample, expected in mistakes)


def test_weights_are_a_function_of_the_seed() -> None:
    config = ModelConfig(
        architecture="classifier", d_model=12, num_heads=3, d_ff=29, num_encoder_layers=1, source_vocab_size=37
    )
    config_weights = [
        [bridge.get_weights(flax_models.create_model(config, seed)) for seed in (0, 0, 1)],
        [torch_weights(torch_models.create_model(config, seed)) for seed in (0, 0, 1)],
    ]
    for first, again, other in config_weights:
        assert all((first[name] == again[name]).all() for name in first)
        assert any((first[name] != other[name]).any() for name in first)
    state = torch.random.get_rng_state()
    torch_models.create_model(config, 0)
    assert torch.equal(torch.random.get_rng_state(), state), "a fresh model must not move torch's own generator"


def test_fresh_twins_have_one_shape_and_dtype(weights: dict[str, np.ndarray], initialization: str) -> None:
    expected = torch_weights(torch_models.create_model(config_of(initialization), seed=1))
    assert {name: (w.shape, w.dtype) for name, w in weights.items()} == {
        name: (w.shape, w.dtype) for name, w in expected.items()
    }
    abstract = nnx.eval_shape(lambda: flax_models.create_model(config_of(initialization), 0))
    assert len(nnx.to_flat_state(nnx.state(abstract, nnx.Param))) == len(expected)
