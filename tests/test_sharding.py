"""Sharding: every mesh trains to the losses of one device, its weights really cut; what does not fit is refused."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
from kill_and_resume import FLAGS
from worker_processes import Sizes, free_address, run_worker, wait_for_outputs

from flax_transformer.config import BatchConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from flax_transformer.distributed.mesh import MESH_AXES, constrain, partition
from flax_transformer.distributed.sharding import check_batch, create_mesh, local_rows, state_shardings, undivided
from flax_transformer.errors import UserError
from flax_transformer.nn.models import create_model
from flax_transformer.training.step import TrainStep

ROOT = Path(__file__).parent.parent


def check_same_training(sizes: Sizes, steps: int, one_device: dict[str, Any]):
    (cut,) = run_worker(sizes, steps, devices=int(np.prod(sizes)))
    np.testing.assert_allclose(cut["losses"], one_device["losses"], rtol=0, atol=1e-10)
    assert len(cut["losses"]) == steps
    shares = sizes[1] * sizes[2]
    # Vectors of d_model are whole on every device, and biases of heads and hidden units are not cut along fsdp.
    bound = one_device["bytes"][0] * (1 / shares + 0.04) if shares > 1 else one_device["bytes"][0]
    assert len(cut["bytes"]) == np.prod(sizes)
    assert max(cut["bytes"]) <= bound


@pytest.fixture(scope="module")
def one_device() -> dict[str, Any]:
    (result,) = run_worker((1, 1, 1), 50, devices=1)
    assert result["losses"][-1] < 0.9 * result["losses"][0]
    return result


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2), (4, 1, 2)], ids=str)
def test_every_mesh_trains_to_the_losses_of_one_device(sizes: Sizes, one_device: dict[str, Any]):
    check_same_training(sizes, 50, one_device)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"mixer": "linear"}, {"mixer": "lstm"}, {"optimizer": "muon"}, {"r_drop": 2.0}], ids=str
)
def test_other_mixers_muon_and_r_drop_train_to_the_losses_of_one_device(options: dict[str, Any]):
    (alone,) = run_worker((1, 1, 1), 5, devices=1, **options)
    (cut,) = run_worker((2, 2, 2), 5, devices=8, **options)
    assert len(set(alone["losses"])) == 5
    np.testing.assert_allclose(cut["losses"], alone["losses"], rtol=0, atol=1e-10)


@pytest.mark.slow
def test_two_processes_are_one_with_all_their_devices():
    """They train on 2 devices each, cut along data and along fsdp, and each loads only its own rows."""
    (alone,) = run_worker((2, 2, 1), 5, devices=4)
    together = run_worker((2, 2, 1), 5, devices=4, processes=2)
    assert together[0]["losses"] == together[1]["losses"]
    np.testing.assert_allclose(together[0]["losses"], alone["losses"], rtol=0, atol=1e-12)
    assert [process["rows"] for process in together] == [list(range(8)), list(range(8, 16))]
    assert alone["rows"] == list(range(16))


def train_in_two_processes(folder: Path, *flags: str) -> list[subprocess.Popen[str]]:
    program = [sys.executable, "-W", "ignore", "-m", "flax_transformer", "train", "manifests", *FLAGS, *flags]
    more = ["--run", str(folder), "--resume", "auto", "--processes.coordinator-address", free_address()]
    return [
        subprocess.Popen(
            [*program, *more, "--processes.num_processes", "2", "--processes.process_id", str(index)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for index in range(2)
    ]


def stop_one_of_two_processes(folder: Path, *flags: str) -> list[int]:
    """The notice that a machine is taken away reaches one of them; both save, and say so by their exit code.

    Returns:
        The steps that they saved, the newest last.
    """
    stopped = train_in_two_processes(folder, *flags)
    while not (folder / "checkpoints" / "3").exists() and stopped[0].poll() is None:
        time.sleep(0.01)
    stopped[1].send_signal(signal.SIGTERM)
    said = wait_for_outputs(stopped, timeout=300)
    assert [process.returncode for process in stopped] == [143, 143], said
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def finish_in_two_processes(folder: Path, *flags: str) -> str:
    """What the first of them says."""
    gone_on = train_in_two_processes(folder, *flags)
    said = wait_for_outputs(gone_on, timeout=300)
    assert [process.returncode for process in gone_on] == [0, 0], said
    assert (folder / "results.json").exists()
    return "".join(said[0])


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step_and_go_on(tmp_path: Path):
    newest = stop_one_of_two_processes(tmp_path / "run")[-1]
    assert 3 <= newest < 40
    assert f"going on after step {newest}" in finish_in_two_processes(tmp_path / "run")


@pytest.mark.slow
def test_damage_that_one_of_two_processes_meets_is_damage_for_both(tmp_path: Path):
    folder, cut = tmp_path / "run", ("--mesh.fsdp", "2")
    before, newest = stop_one_of_two_processes(folder, *cut)[-2:]
    own_parts = folder / "checkpoints" / str(newest) / "params" / "ocdbt.process_1" / "d"
    for part in own_parts.iterdir():
        part.write_bytes(b"")
    said = finish_in_two_processes(folder, *cut)
    assert f"{newest}: expected a checkpoint, but it cannot be read (in another process)" in said
    assert f"going on after step {before}" in said


# Below, no device is needed: a mesh is a table of sizes.

MESH = {"data": 2, "fsdp": 4, "model": 2}


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        (("embed", "heads"), (32, 32), PartitionSpec(("fsdp",), ("model",))),
        (("embed", "heads"), (30, 32), PartitionSpec(None, ("model",))),  # 30 does not divide by 4
        (("vocab", "embed"), (301, 32), PartitionSpec(None, ("fsdp",))),
        (("embed",), (32,), PartitionSpec(None)),
        (("heads",), (32,), PartitionSpec(("model",))),
        (("batch", None, "heads", None), (16, 5, 4, 3), PartitionSpec(("data", "fsdp"), None, ("model",), None)),
        (("batch", None), (12, 5), PartitionSpec(None, None)),
        (("embed", "heads"), (6, 32, 32), PartitionSpec(None, ("fsdp",), ("model",))),  # of six layers
        (("embed",), (6, 32), PartitionSpec(None, None)),
    ],
)
def test_partition(axes: tuple[str | None, ...], shape: tuple[int, ...], expected: PartitionSpec):
    assert partition(axes, shape, MESH) == expected


def test_axes_of_size_one_cut_nothing():
    assert partition(("embed", "heads"), (32, 32), {"data": 8, "fsdp": 1, "model": 1}) == PartitionSpec(None, None)


@pytest.mark.parametrize(
    "options",
    [
        {"architecture": "classifier", "token_types": 2, "head_hidden": "tanh"},
        {"architecture": "seq2seq", "tie_embeddings": "none", "logits_bias": True, "smeared_keys": True},
    ],
    ids=lambda options: options["architecture"],
)
def test_every_weight_names_its_axes(options: dict[str, Any]):
    everything = {"embedding_norm": True, "embedding_width": 12, "relative_buckets": 8, "gated": True}
    config = ModelConfig(**options, **everything, positions="learned")
    for path, param in nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: create_model(config, 0)), nnx.Param)):
        assert len(param.get_metadata("axes")) == param.ndim, path


def test_one_device_is_a_mesh_like_any_other():
    step = TrainStep(TrainConfig(model=ModelConfig(d_model=8, num_heads=2)), total_steps=1)
    assert dict(step.mesh.shape) == {"data": jax.device_count(), "fsdp": 1, "model": 1}
    x = jax.numpy.ones((4, 4))
    assert constrain(x, "batch", None) is x


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_optimizer_state_lies_as_its_parameters_do(scan_layers: bool, name: Literal["adamw", "muon"]):
    mesh = AbstractMesh((2, 4, 2), MESH_AXES, (AxisType.Auto,) * 3)
    model = ModelConfig(d_model=32, num_heads=4, scan_layers=scan_layers)
    config = TrainConfig(model=model, optimizer=OptimizerConfig(name=name))
    state = TrainStep(config, total_steps=1).abstract_state
    shardings = state_shardings(state, mesh)  # pyright: ignore[reportArgumentType]
    specs = [leaf.spec for leaf in jax.tree.leaves(shardings.params)]
    assert PartitionSpec(*[None] * scan_layers, ("fsdp",), ("model",)) in specs
    momentum, mean, square = (
        optax.tree_utils.tree_get(shardings.opt_state, key) for key in ("momentum", "mean", "square")
    )
    for moment in (mean, square):
        whole = moment if name == "adamw" else nnx.merge_state(moment, momentum)
        assert [leaf.spec for leaf in jax.tree.leaves(whole)] == specs


def test_weights_that_do_not_divide_are_named():
    mesh = AbstractMesh((1, 1, 2), MESH_AXES, (AxisType.Auto,) * 3)
    config = ModelConfig(d_model=32, num_heads=4, source_vocab_size=301, target_vocab_size=301)
    params = nnx.state(nnx.eval_shape(lambda: create_model(config, 0)), nnx.Param)
    assert undivided(params, mesh) == ["source_table.embedding (301, 32)"]  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Chip:
    """What of a TPU's chip decides where it comes to lie in a mesh."""

    id: int
    coords: tuple[int, int, int]
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v6 lite"


def test_a_mesh_need_not_follow_the_shape_of_the_slice():
    """Eight chips of a 4 x 4 slice share the weights: those of two rows, which are neighbours."""
    chips = [Chip(4 * y + x, (x, y, 0)) for y in range(4) for x in range(4)]
    with pytest.raises(NotImplementedError, match="allow_split_physical_axes"):
        jax.make_mesh((2, 8), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=chips)
    mesh = create_mesh(MeshConfig(fsdp=8), chips)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 8, "model": 1}
    assert [sorted(chip.id for chip in half.flat) for half in mesh.devices] == [[*range(8)], [*range(8, 16)]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3), "expected data x fsdp x model to be the number of devices, 4, got 3 x 1 x 1"),
        (MeshConfig(fsdp=3), "got any x 3 x 1"),
        (MeshConfig(model=8), "got any x 1 x 8"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(config: MeshConfig, message: str):
    with pytest.raises(UserError, match=message):
        create_mesh(config, jax.devices() * 4)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"num_heads: expected a multiple of mesh.model=3, got 4"):
        TrainConfig(mesh=MeshConfig(model=3))


def test_a_batch_that_does_not_divide_is_refused():
    config = TrainConfig(batch=BatchConfig(size=12), gradient_accumulation_steps=2)
    mesh: Any = AbstractMesh((2, 2, 1), MESH_AXES, (AxisType.Auto,) * 3)
    with pytest.raises(UserError, match=r"mesh.data x mesh.fsdp x gradient_accumulation_steps = 2 x 2 x 2, got 12"):
        check_batch(config, mesh)
    check_batch(replace(config, gradient_accumulation_steps=3), mesh)


def test_a_lone_process_loads_all_rows():
    np.testing.assert_array_equal(local_rows(create_mesh(MeshConfig()), 6), np.arange(6))
