"""``verify --against transformers``: every family passes, and mistakes show in their check."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served_models import OWN, SEQ2SEQ

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.exporting import write_model
from flax_transformer.parity import against_transformers
from flax_transformer.parity.against_transformers import Theirs, checks_of
from flax_transformer.parity.cases import Sizes, random_weights
from flax_transformer.parity.checks import Result
from flax_transformer.parity.targets import Target

pytest.importorskip("transformers", reason="needs transformers, to compare with its models")

from hf_models import GENERATORS, KINDS, imported

SIZES = Sizes(5, 30, 23)


def target_of(name: str) -> Target:
    model, config, weights = imported(name)
    return Target(name, config, weights, SIZES, model_type=model.config.model_type)


def own(**changes: Any) -> Target:
    """A model that could have been trained here."""
    config = dataclasses.replace(OWN, **changes)
    return Target("own", config, random_weights(config, seed=0), SIZES)


def failing(results: list[Result]) -> dict[str, Result]:
    return {result.check: result for result in results if not result.passed}


def run(theirs: Theirs, target: Target, *checks: str) -> list[Result]:
    known = checks_of(theirs, target)
    return [result for check in checks or known for result in known[check]()]


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_family_passes(name: str, dtype: str):
    target = target_of(name)
    results = run(Theirs(target, dtype), target)
    assert failing(results) == {}
    checks = {result.check for result in results}
    assert checks >= {"round trip", "memory", "logits", "loss", "gradients, JAX", "gradients, PyTorch"}
    assert ("greedy tokens" in checks) == (name in GENERATORS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQ2SEQ)
def test_models_of_ours_pass(name: str, dtype: str):
    target = own(**SEQ2SEQ[name][0])
    assert failing(run(Theirs(target, dtype), target)) == {}


@pytest.fixture(scope="module")
def bert() -> tuple[Theirs, Target]:
    target = target_of("bert-bare")
    theirs = Theirs(target, "float32")
    vars(theirs.pair)["flax"] = theirs.pair.torch  # compared with JAX in the slow tests, and in that of the command
    return theirs, target


def test_a_bare_encoder_passes(bert: tuple[Theirs, Target]):
    assert failing(run(*bert)) == {}


def _epsilon(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-9


def _activation(model: Any) -> None:
    model.encoder.layer[1].intermediate.intermediate_act_fn = torch.nn.GELU(approximate="tanh")


def _scale(model: Any) -> None:
    model.encoder.layer[0].attention.self.scaling *= 1.001


def _swapped_projections(model: Any) -> None:
    attention = model.encoder.layer[0].attention.self
    attention.query, attention.key = attention.key, attention.query


def _positions_from_one(model: Any) -> None:
    table = model.embeddings.position_embeddings.weight
    table.data = table.data.roll(-1, dims=0)


def _second_type(model: Any) -> None:
    table = model.embeddings.token_type_embeddings.weight
    table.data = table.data.flip(0)


OF_THE_FUNCTION = [_activation, _scale, _swapped_projections, _positions_from_one, _second_type]


@pytest.mark.parametrize("plant", OF_THE_FUNCTION, ids=lambda plant: plant.__name__[1:])
def test_a_mistake_in_the_model_shows(plant: Callable[[Any], None], bert: tuple[Theirs, Target]):
    assert failing(run(_broken(bert[0], plant), bert[1], "stack", "logits")).keys() == {"memory", "logits"}


@pytest.mark.slow
def test_a_mistake_in_the_backward_pass_alone_shows(bert: tuple[Theirs, Target]):
    def plant(model: Any) -> None:
        model.embeddings.word_embeddings.weight.register_hook(lambda gradient: gradient * 1.0001)

    failed = failing(run(_broken(bert[0], plant), bert[1], "logits", "loss", "gradients"))
    assert set(failed) == {"gradients, JAX", "gradients, PyTorch"}
    assert failed["gradients, JAX"].worst == "source_table.weight"


def _broken(theirs: Theirs, plant: Callable[[Any], None]) -> Theirs:
    broken = copy.copy(theirs)
    broken.model, broken.outcomes = copy.deepcopy(theirs.model), []
    plant(broken.model)
    return broken


def test_a_weight_that_changes_on_the_way_shows(monkeypatch: pytest.MonkeyPatch):
    load = against_transformers.load

    def nudged(folder: Path) -> tuple[Any, set[str]]:
        model, missing = load(folder)
        bias = model.encoder.layer[1].output.dense.bias
        bias.data[3] = torch.nextafter(bias.data[3], torch.tensor(torch.inf))
        return model, missing

    monkeypatch.setattr(against_transformers, "load", nudged)
    target = target_of("bert-bare")
    [result] = run(Theirs(target, "float32"), target, "round trip")
    assert (result.figure, result.worst) == (1, "encoder.layers.1.feed_forward.down_proj.bias")


def test_another_epsilon_in_float64_shows(bert: tuple[Theirs, Target], x64):
    theirs = Theirs(bert[1], "float64")
    vars(theirs.pair)["flax"] = theirs.pair.torch
    assert failing(run(theirs, bert[1], "logits")) == {}
    assert failing(run(_broken(theirs, _epsilon), bert[1], "logits"))


def test_a_begin_token_that_is_written_wrong_shows(monkeypatch: pytest.MonkeyPatch):
    def planted(*arguments: Any) -> Any:
        family, settings, tensors = write_model(*arguments)
        return family, settings | {"decoder_start_token_id": 5}, tensors

    monkeypatch.setattr(against_transformers, "write_model", planted)
    target = target_of("pegasus")
    [result] = run(Theirs(target, "float32"), target, "round trip")
    assert (result.passed, result.worst) == (False, "bos_id")


@pytest.mark.slow
def test_a_wrong_begin_token_shows(monkeypatch: pytest.MonkeyPatch):
    target = target_of("pegasus")
    theirs = Theirs(target, "float32")
    assert failing(run(theirs, target, "greedy tokens", "beam tokens")) == {}
    generate = theirs.model.generate
    monkeypatch.setattr(
        theirs.model, "generate", lambda **settings: generate(**settings | {"decoder_start_token_id": 5})
    )
    assert len(failing(run(theirs, target, "greedy tokens", "beam tokens"))) == 2


def test_what_transformers_has_no_class_for_is_refused():
    config = ModelConfig(d_model=8, num_heads=2, d_ff=8, positions="rope", num_encoder_layers=1, num_decoder_layers=1)
    target = Target("own", config, random_weights(config, seed=0), SIZES)
    with pytest.raises(UserError, match=r"train with --model\.positions sinusoidal"):
        Theirs(target, "float32")


def test_rows_without_a_source_are_left_out(bert: tuple[Theirs, Target]):
    lengths = bert[0].pair.case.batch.source_lengths
    assert 0 in lengths
    assert np.isfinite(bert[0].outcome.loss)
