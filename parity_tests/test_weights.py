"""The bridge gives back equal bits both ways, exports are read by both twins, and damage is named."""

import json
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
from families import FAMILIES
from flax import nnx
from twins import (
    ROWS,
    SOURCE,
    SOURCE_LENGTHS,
    STACK,
    TARGET,
    TARGET_LENGTHS,
    same_bits,
    small,
    to_torch,
    torch_weights,
    ulps,
    with_weights,
)
from variants import classifier_variants, name_of, seq2seq_variants

import flax_transformer.interop.state_dict as bridge
import flax_transformer.nn.models as flax_models
import torch_reference
import torch_reference.interop.export as torch_bridge
import torch_reference.nn.models as torch_models
from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.export import load_export, save_export

FAMILY_CONFIGS = {name: small("float64", **fields) for name, fields in FAMILIES.items()}
VARIANTS = [*seq2seq_variants(), *classifier_variants(), *FAMILY_CONFIGS.values()]


def abstract_model(config: ModelConfig) -> Any:
    kind = flax_models.Classifier if config.architecture == "classifier" else flax_models.Seq2Seq
    return nnx.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0)))


def random_bits(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Any float64 there is: subnormal, infinite, NaN with any payload, -0.0."""
    return rng.integers(2**64, size=shape, dtype=np.uint64).view(np.float64)


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(same_bits(array, b[name]) for name, array in a.items())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
@pytest.mark.sample(8)
def test_round_trips_give_back_equal_bits(config: ModelConfig) -> None:
    rng = np.random.default_rng(0)
    torch_model = torch_models.create_model(config, seed=0)
    from_torch = {name: random_bits(array.shape, rng) for name, array in torch_weights(torch_model).items()}
    torch_model.load_state_dict({name: to_torch(array) for name, array in from_torch.items()}, strict=True)

    # torch -> flax -> torch, by way of the modules
    flax_model = with_weights(abstract_model(config), torch_weights(torch_model), parent="")
    in_flax = bridge.get_weights(flax_model)
    assert equal(bridge.to_torch(in_flax), from_torch)

    # flax -> torch -> flax
    from_flax = {name: random_bits(array.shape, rng) for name, array in in_flax.items()}
    nnx.update(flax_model, bridge.to_params(nnx.state(flax_model, nnx.Param), from_flax))
    torch_model.load_state_dict(
        {name: to_torch(array) for name, array in bridge.to_torch(bridge.get_weights(flax_model)).items()}, strict=True
    )
    assert equal(bridge.from_torch(torch_weights(torch_model)), from_flax)
    assert not equal(from_flax, in_flax)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
@pytest.mark.sample(8)
def test_each_key_matches_one_rule_and_the_twins_have_one_module_tree(config: ModelConfig) -> None:
    names = torch_weights(torch_models.create_model(config, seed=0))
    state = nnx.state(abstract_model(config), nnx.Param)
    shapes = {".".join(map(str, path)): param.shape for path, param in nnx.to_flat_state(state)}
    of_flax = {name: np.empty(shape) for name, shape in shapes.items()}
    assert {name: array.shape for name, array in bridge.to_torch(of_flax).items()} == {
        name: array.shape for name, array in names.items()
    }
    modules = {name.rpartition(".")[0] for name in names}
    assert modules == {name.rpartition(".")[0] for name in shapes}


@pytest.mark.parametrize("key", ["encoder.layers.0.norm1.weight", "head.gain", "weight", "encoder.query.kernel.weight"])
def test_a_key_that_no_rule_knows_is_named(key: str) -> None:
    with pytest.raises(UserError, match=f"exactly one rule knows, got '{key}', which 0 know"):
        bridge.from_torch({key: np.zeros(3)})


def test_a_key_that_two_rules_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "RULES", (*bridge.RULES, bridge.Rule("head", "scale", "weight")))
    with pytest.raises(UserError, match=r"got 'head\.weight', which 2 know"):
        bridge.from_torch({"head.weight": np.zeros((3, 2))})


def test_a_forgotten_transpose_keeps_shapes_and_changes_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No check of shapes can see it in a square projection; the forward pass does."""
    config = small(architecture="classifier", source_vocab_size=37)
    torch_model = torch_models.create_model(config, seed=0).eval()
    source = np.random.default_rng(0).integers(37, size=(ROWS, SOURCE)).astype(np.int32)
    expected = torch_model(to_torch(source), to_torch(SOURCE_LENGTHS))
    weights = torch_weights(torch_model)
    sound = with_weights(abstract_model(config), weights, parent="")
    assert ulps(sound(jnp.asarray(source), jnp.asarray(SOURCE_LENGTHS)), expected) <= STACK
    weights["encoder.layers.0.self_attention.query.weight"] = weights["encoder.layers.0.self_attention.query.weight"].T
    mistaken = with_weights(abstract_model(config), weights, parent="")
    assert ulps(mistaken(jnp.asarray(source), jnp.asarray(SOURCE_LENGTHS)), expected) > 1e4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("head.bias"), r"expected 'head\.bias' of shape \(13,\), but it is missing"),
        (lambda w: w.update({"head.scale": w["head.bias"]}), r"'head\.scale' is not part of this model"),
        (lambda w: w.update({"head.bias": np.zeros(14)}), r"expected 'head\.bias' of shape \(13,\), got \(14,\)"),
        (
            lambda w: w.update({"head.kernel": w["head.kernel"].T}),
            r"expected 'head\.kernel' of shape \(12, 13\), got \(13, 12\)",
        ),
    ],
    ids=["missing", "unknown", "wrong length", "transposed"],
)
def test_weights_that_do_not_fit_are_named(damage: Any, message: str) -> None:
    config = small(architecture="classifier")
    weights = bridge.from_torch(torch_weights(torch_models.create_model(config, seed=0)))
    damage(weights)
    with pytest.raises(UserError, match=message):
        bridge.to_params(nnx.state(abstract_model(config), nnx.Param), weights)


# --- exports ---


@pytest.fixture(scope="module", params=["seq2seq", "classifier"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return small(architecture=request.param, positions="learned", tie_embeddings="none", target_vocab_size=41)


@pytest.fixture(scope="module")
def flax_export(config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    model = with_weights(abstract_model(config), torch_weights(torch_models.create_model(config, seed=1)), parent="")
    directory = tmp_path_factory.mktemp("flax") / "made" / "on the way"
    save_export(directory, model)
    return directory, model


@pytest.fixture(scope="module")
def torch_export(config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    model = torch_models.create_model(config, seed=2)
    directory = tmp_path_factory.mktemp("torch") / "made" / "on the way"
    torch_bridge.save_export(directory, model)
    return directory, model


def test_both_twins_read_what_either_wrote(
    config: ModelConfig, flax_export: tuple[Path, Any], torch_export: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for forbidden in ("load", "loads", "Unpickler"):
        monkeypatch.delattr(pickle, forbidden)
    monkeypatch.delattr(torch, "load")
    written = bridge.to_torch(bridge.get_weights(flax_export[1])), torch_weights(torch_export[1])
    for (directory, _), expected in zip((flax_export, torch_export), written, strict=True):
        in_flax, in_torch = load_export(directory), torch_reference.load(directory)
        assert in_flax.config == in_torch.config == config
        assert equal(bridge.to_torch(bridge.get_weights(in_flax)), expected)
        assert equal(torch_weights(in_torch), expected)
        assert not in_torch.training
    assert not equal(*written)


def test_an_export_is_two_files_that_hold_no_code(
    flax_export: tuple[Path, Any], torch_export: tuple[Path, Any]
) -> None:
    for directory, _ in (flax_export, torch_export):
        assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors"]
        assert json.loads((directory / "config.json").read_text())["d_model"] == 12
        content = (directory / "model.safetensors").read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        header.pop("__metadata__", None)
        # Every byte behind the header belongs to one tensor.
        spans = sorted(entry["data_offsets"] for entry in header.values())
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
        assert spans[-1][1] == len(content) - 8 - length


def damaged(export: tuple[Path, Any], to: Path) -> Path:
    """A copy of an export, to be damaged."""
    to.mkdir()
    for path in export[0].iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


LOADERS = [load_export, torch_reference.load]


@pytest.mark.parametrize("load", LOADERS, ids=["flax", "torch"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_or_damaged_file_is_named(
    load: Any, name: str, flax_export: tuple[Path, Any], tmp_path: Path
) -> None:
    directory = damaged(flax_export, tmp_path / "export")
    content = (directory / name).read_bytes()
    for rest in (content[: len(content) // 2], content[:3], b""):
        (directory / name).write_bytes(rest)
        with pytest.raises(UserError, match=name):
            load(directory)
    (directory / name).unlink()
    with pytest.raises(UserError, match=name):
        load(directory)
    with pytest.raises(UserError, match=r"config\.json"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("load", LOADERS, ids=["flax", "torch"])
@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_a_tensor_that_does_not_fit_is_named(
    load: Any, damage: str, flax_export: tuple[Path, Any], tmp_path: Path
) -> None:
    directory = damaged(flax_export, tmp_path / "export")
    path = directory / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    key = "encoder.layers.1.feed_forward.up_proj.bias"
    match damage:
        case "missing":
            del weights[key]
        case "unknown":
            key = "encoder.layers.7.feed_forward.up_proj.bias"
            weights[key] = np.zeros(29, np.float32)
        case "shape":
            weights[key] = np.zeros(31, np.float32)
    safetensors.numpy.save_file(weights, path)
    with pytest.raises(UserError, match=key):
        load(directory)


@pytest.mark.parametrize("load", LOADERS, ids=["flax", "torch"])
def test_weights_of_another_config_are_refused(load: Any, flax_export: tuple[Path, Any], tmp_path: Path) -> None:
    directory = damaged(flax_export, tmp_path / "export")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "d_ff": 31}))
    with pytest.raises(UserError, match=r"feed_forward\.(up_proj|down_proj)"):
        load(directory)


def test_a_loaded_export_computes_what_was_saved(flax_export: tuple[Path, Any], config: ModelConfig) -> None:
    directory, model = flax_export
    rng = np.random.default_rng(0)
    arrays = [rng.integers(37, size=(ROWS, SOURCE)).astype(np.int32), SOURCE_LENGTHS]
    if config.architecture == "seq2seq":
        target = rng.integers(config.target_vocab_size, size=(ROWS, TARGET)).astype(np.int32)
        arrays = [arrays[0], target, SOURCE_LENGTHS, TARGET_LENGTHS]
    expected = model(*map(jnp.asarray, arrays))
    assert same_bits(load_export(directory)(*map(jnp.asarray, arrays)), expected)
    assert ulps(expected, torch_reference.load(directory)(*map(to_torch, arrays))) <= STACK


def test_weights_are_cast_to_the_dtype_of_the_model() -> None:
    config = small(architecture="classifier")
    weights = torch_weights(torch_models.create_model(config, seed=0))
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    model = with_weights(abstract_model(config), wide, parent="")
    assert equal(bridge.to_torch(bridge.get_weights(model)), weights)
    assert isinstance(model.head.kernel[...], jax.Array)
