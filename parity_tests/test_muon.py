"""Muon: the polynomial of the singular values, torch's own optimizer, and the same parameters in both twins."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from mutants import CLASSIFIER, TINY
from twins import SIZES, assert_passed, to_numpy, to_torch

from flax_transformer.config import ModelConfig, OptimizerConfig
from flax_transformer.interop.state_dict import to_torch_state_dict
from flax_transformer.nn.kernels.scan import unstack_layers
from flax_transformer.nn.models import create_model
from flax_transformer.parity.cases import make_case
from flax_transformer.parity.checks import free_running, run_checks
from flax_transformer.parity.measure import EPS
from flax_transformer.parity.pair import Pair
from flax_transformer.parity.training import free_steps
from flax_transformer.training import matrices as flax_matrices
from flax_transformer.training import muon as flax_muon
from flax_transformer.training.step import stack_layers
from torch_reference.nn import models as torch_models
from torch_reference.training import matrices as torch_matrices
from torch_reference.training import muon as torch_muon
from torch_reference.training.optim import create_optimizer

MUON = OptimizerConfig(name="muon", schedule="inverse_sqrt", warmup_steps=4)
# By how much one rounding of a matrix of norm 1 can grow in five steps whose slope is at most 3.4445.
SLOPE = 3.4445**5


def by_singular_values(x: np.ndarray) -> np.ndarray:
    """The iteration carried out on the singular values, in float64."""
    left, values, right = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ np.diag(values) @ right


@pytest.mark.parametrize("shape", [(13, 7), (7, 13), (8, 8), (1, 5)])
def test_both_twins_move_the_singular_values_as_the_polynomial_says(shape: tuple[int, int], dtype: str) -> None:
    matrices = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    expected = np.stack([by_singular_values(matrix) for matrix in matrices])
    by_flax = np.asarray(jax.jit(flax_muon.orthogonalize)(matrices))
    by_torch = np.stack([to_numpy(torch_muon.orthogonalize(to_torch(matrix))) for matrix in matrices])
    assert np.abs(by_flax - expected).max() <= SLOPE * EPS[dtype]
    assert np.abs(by_torch - expected).max() <= SLOPE * EPS[dtype]
    values = np.linalg.svd(by_torch, compute_uv=False)
    assert 0.6 < np.median(values) < values.max() < 1.3  # the smallest are not yet there


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert (flax_muon.orthogonalize(jnp.zeros((3, 4))) == 0).all()
    assert (torch_muon.orthogonalize(torch.zeros(3, 4)) == 0).all()


@pytest.mark.parametrize(
    ("changes", "is_torchs"), [({}, True), ({"momentum": 0.5}, False), ({"nesterov": False}, False)]
)
def test_the_steps_are_those_of_torch_but_for_its_bfloat16(changes: dict[str, Any], is_torchs: bool) -> None:
    """``torch.optim.Muon`` rounds to 8 bits in each of its steps, and 0.03 of the way is what that comes to."""
    start = np.random.default_rng(1).standard_normal((24, 16)).astype(np.float32)
    linear = torch.nn.Linear(16, 24, bias=False)
    own, theirs = linear.weight, torch.nn.Parameter(torch.tensor(start))
    own.data = torch.tensor(start)
    config = OptimizerConfig(name="muon", weight_decay=0.1)
    optimizer = create_optimizer(config, torch.nn.ModuleDict({"layers": linear}))
    settings = {"momentum": config.momentum, "weight_decay": config.weight_decay, **changes}
    oracle = torch.optim.Muon([theirs], lr=1.0, adjust_lr_fn="match_rms_adamw", **settings)
    optimizer.param_groups[0]["lr"] = oracle.param_groups[0]["lr"] = 1e-2
    for step in range(5):
        gradient = np.random.default_rng((2, step)).standard_normal(start.shape).astype(np.float32)
        own.grad, theirs.grad = torch.tensor(gradient), torch.tensor(gradient)
        optimizer.step()
        oracle.step()
    way = np.linalg.norm(to_numpy(theirs) - start)
    assert (np.linalg.norm(to_numpy(own) - to_numpy(theirs)) <= 0.03 * way) == is_torchs


MODELS: dict[str, dict[str, Any]] = {
    "seq2seq": {},
    "stacked": {"scan_layers": True, "num_decoder_layers": 2},
    "classifier": {"architecture": "classifier", "head_hidden": "tanh", "positions": "learned"},
    "masked": {"architecture": "masked"},
    "t5": {"positions": "none", "relative_buckets": 8, "gated": True, "tie_embeddings": "none", "bias": False},
    "narrow tables": {"embedding_width": 12, "tie_embeddings": "none"},
    "lstm": {"mixer": "lstm"},
    "linear": {"mixer": "linear"},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@pytest.mark.sample(2)
def test_both_twins_leave_the_same_parameters_to_adam(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(TINY, **changes)
    model = stack_layers(create_model(config, 0))
    matrices, others = nnx.split_state(nnx.state(model, nnx.Param), flax_matrices.is_hidden_matrix, ...)
    nnx.update(model, jax.tree.map(jnp.ones_like, matrices), jax.tree.map(jnp.zeros_like, others))
    by_flax = {name for name, array in to_torch_state_dict(unstack_layers(model)).items() if (array == 1).all()}
    twin = torch_models.create_model(config, 0)
    by_torch = {name for name, p in twin.named_parameters() if torch_matrices.is_hidden_matrix(name, p)}
    assert by_flax == by_torch
    assert by_torch
    assert not any("table" in name or "embedding" in name or "head" in name for name in by_torch)


@pytest.mark.parametrize(
    "changes",
    [CLASSIFIER, {}, {"scan_layers": True, "num_decoder_layers": 2}],
    ids=["classifier", "seq2seq", "stacked"],
)
@pytest.mark.sample(1)
def test_the_update_and_the_step_agree(changes: dict[str, Any], dtype: str) -> None:
    model = dataclasses.replace(TINY, **changes, dtype=dtype, param_dtype=dtype)
    assert_passed(run_checks(Pair(make_case(model, seed=5, sizes=SIZES, optimizer=MUON)), ["optimizer", "step"]))


@pytest.mark.slow
def test_free_steps_stay_together(x64: None) -> None:
    model: ModelConfig = dataclasses.replace(TINY, activation="gelu", dtype="float64", param_dtype="float64")
    pair = Pair(make_case(model, seed=0, sizes=SIZES, optimizer=MUON))
    assert_passed([free_running(pair, free_steps(pair, 20))])
