"""Checkpoints: which are kept, that they give back the very bits, and what they refuse."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flax_transformer.config import ModelConfig, Seq2SeqData, TrainConfig, to_dict
from flax_transformer.errors import UserError
from flax_transformer.training.checkpoint import Checkpoints, check_same_config, set_aside_unscored
from flax_transformer.training.loss_scale import LossScale, create_loss_scale
from flax_transformer.training.state import TrainState

CONFIG = TrainConfig()


@pytest.fixture
def state() -> TrainState:
    params = nnx.state(nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nnx.Param)
    return TrainState(params, optax.adam(1e-3).init(params), jnp.zeros((), jnp.int32))


@jax.jit
def zeros(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.zeros_like, state)


def assert_same_bits(actual: object, expected: object):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_restored_state_is_the_saved_one_though_its_arrays_were_donated(tmp_path: Path, state: TrainState):
    add_one = jax.jit(lambda state: jax.tree.map(lambda array: array + 1, state), donate_argnums=0)
    state = add_one(state)
    expected = jax.tree.map(lambda array: np.array(array, copy=True), state)
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        checkpoints.save(1, state, {"bleu": 1.0})
        for _ in range(5):  # the save is still being written when these reuse its memory
            state = add_one(state)
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        restored = checkpoints.restore(1, zeros(state))
        params = checkpoints.restore_params(1, zeros(state).params)
    assert_same_bits(restored, expected)
    assert_same_bits(params, expected.params)
    with pytest.raises(AssertionError):
        assert_same_bits(state, expected)  # what came later differs


def test_best_and_newest_are_kept(tmp_path: Path, state: TrainState):
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        assert checkpoints.newest_step is None
        assert checkpoints.best_step is None
        for step, bleu in enumerate([3.0, 9.0, 5.0, 7.0], start=1):
            checkpoints.save(step, state, {"bleu": bleu, "signature": "no number"})
        checkpoints.save(5, state)
        assert checkpoints.best_step == 2
        assert checkpoints.newest_step == 5
    assert {path.name for path in tmp_path.iterdir()} == {"2", "4", "5"}
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        assert checkpoints.best_step == 2
        assert checkpoints.scores(2) == {"bleu": 9.0}
        assert checkpoints.scores(5) is None
        assert checkpoints.scores(3) is None


def test_without_scores_the_newest_is_the_best(tmp_path: Path, state: TrainState):
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        checkpoints.save(3, state)
        assert checkpoints.best_step == 3


def test_scores_are_added_to_a_step_that_was_saved_without(tmp_path: Path, state: TrainState):
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        checkpoints.save(3, state)
        checkpoints.save(3, state, {"bleu": 4.0})
        checkpoints.save(3, state)  # nothing to add
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        assert checkpoints.scores(3) == {"bleu": 4.0}


def test_another_config_is_refused_by_the_keys_that_differ(tmp_path: Path, state: TrainState):
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        checkpoints.save(3, state)
    other = replace(CONFIG, seed=7, model=ModelConfig(norm_first=False))
    with Checkpoints(tmp_path, other, "bleu") as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(3, state)
    assert "model.norm_first is True there and False here, seed is 0 there and 7 here" in str(error.value)
    assert "d_model" not in str(error.value)


def test_files_may_have_moved(tmp_path: Path):
    """The record of the data tells whether they hold the same; what is read of them may not change."""
    old = replace(CONFIG, data=Seq2SeqData(("rows.csv",), test_path=("test.csv",)))
    moved = Seq2SeqData(("away/rows.tsv",), test_path=("away/test.tsv",), delimiter="tab", encoding="cp1252")
    check_same_config(to_dict(old), to_dict(replace(CONFIG, data=moved)), tmp_path)
    other = replace(CONFIG, data=replace(moved, target_column="kind"))
    with pytest.raises(UserError, match=r"but data\.target_column is 'target' there and 'kind' here$"):
        check_same_config(to_dict(old), to_dict(other), tmp_path)


@pytest.mark.parametrize("damaged", ["params/_METADATA", "_CHECKPOINT_METADATA"])
def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path: Path, state: TrainState, damaged: str):
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        checkpoints.save(3, state)
    (tmp_path / "3" / damaged).write_bytes(b"not what it was")
    with (
        Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints,
        pytest.raises(UserError, match="cannot be read") as error,
    ):
        checkpoints.restore(3, state)
    assert str(tmp_path / "3") in str(error.value)
    assert "\n" not in str(error.value)


def overwritten(path: Path) -> None:
    """One byte of the largest file below a folder becomes another, as a bad disk leaves it."""
    largest = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x10
    largest.write_bytes(content)


def test_the_loss_scale_is_kept(tmp_path: Path, state: TrainState):
    scaled = state._replace(loss_scale=LossScale(jnp.asarray(512.0), jnp.asarray(7, jnp.int32)))
    like = state._replace(loss_scale=create_loss_scale())
    with Checkpoints(tmp_path, CONFIG, "accuracy") as checkpoints:
        checkpoints.save(1, scaled)
    with Checkpoints(tmp_path, CONFIG, "accuracy") as checkpoints:
        assert_same_bits(checkpoints.restore(1, like), scaled)


@pytest.mark.parametrize("part", ["training", "params", "fingerprints"])
def test_damage_to_each_part_alone_is_seen(tmp_path: Path, part: str):
    """Also where it would read well: the moments of the optimizer are no part of any prediction."""
    params = nnx.state(nnx.Linear(40, 50, rngs=nnx.Rngs(0)), nnx.Param)
    opt_state = jax.tree.map(lambda array: jnp.asarray(np.random.default_rng(1).normal(size=array.shape)), params)
    state = TrainState(params, opt_state, jnp.zeros((), jnp.int32))
    for step in (1, 2):
        with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
            checkpoints.save(step, state)
    told: list[str] = []
    overwritten(tmp_path / "2" / part)
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        assert checkpoints.restore_newest(state, told.append)[0] == 1
    assert len(told) == 1
    assert (tmp_path / "2.damaged").is_dir()


def test_other_bits_of_the_optimizer_alone_are_seen(tmp_path: Path, state: TrainState):
    """As where they are of another run of the same config: every file is well-formed."""
    other = TrainState(state.params, jax.tree.map(lambda array: array + 1, state.opt_state), state.step)
    for folder, saved in (("one", state), ("other", other)):
        with Checkpoints(tmp_path / folder, CONFIG, "bleu") as checkpoints:
            checkpoints.save(1, saved)
    shutil.rmtree(tmp_path / "one" / "1" / "training")
    shutil.copytree(tmp_path / "other" / "1" / "training", tmp_path / "one" / "1" / "training")
    with (
        Checkpoints(tmp_path / "one", CONFIG, "bleu") as checkpoints,
        pytest.raises(UserError, match="expected the opt_state that were saved, but bits changed"),
    ):
        checkpoints.restore(1, state)
    with Checkpoints(tmp_path / "one", CONFIG, "bleu") as checkpoints:
        assert_same_bits(checkpoints.restore_params(1, state.params), state.params)


def test_a_step_under_the_name_of_another_is_refused(tmp_path: Path, state: TrainState):
    """An older one would train some steps again, or be taken for the best."""
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        checkpoints.save(3, state, {"bleu": 1.0})
    for name in ("4", "2", "13"):
        shutil.copytree(tmp_path / "3", tmp_path / name)
        with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
            with pytest.raises(UserError, match="it is of step 3"):
                checkpoints.restore(int(name), state)
            with pytest.raises(UserError, match="it is of step 3"):
                checkpoints.restore_params(int(name), state.params)
        shutil.rmtree(tmp_path / name)
    shutil.copytree(tmp_path / "3", tmp_path / "4")
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        assert checkpoints.restore_newest(state, lambda text: None)[0] == 3


def test_a_checkpoint_whose_fingerprints_are_gone_is_refused(tmp_path: Path, state: TrainState):
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        checkpoints.save(3, state)
    shutil.rmtree(tmp_path / "3" / "fingerprints")
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints, pytest.raises(UserError, match="cannot be read"):
        checkpoints.restore(3, state)


def test_a_step_that_is_damaged_again_and_again_is_set_aside_each_time(tmp_path: Path, state: TrainState):
    for _ in range(3):
        for step in (1, 2):
            with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
                checkpoints.save(step, state)
        (tmp_path / "2" / "_CHECKPOINT_METADATA").write_bytes(b"not what it was")
        with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
            assert checkpoints.restore_newest(state, lambda text: None)[0] == 1
    aside = {"2.damaged", "2.damaged-2", "2.damaged-3"}
    assert {path.name for path in tmp_path.iterdir()} == {"1"} | aside


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", None])
def test_scores_that_cannot_be_read_are_one_more_damage(tmp_path: Path, state: TrainState, content: bytes | None):
    for step in (1, 2):
        with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
            checkpoints.save(step, state, {"bleu": step})
    path = tmp_path / "2" / "metrics" / "metrics"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match="2/metrics/metrics: expected the scores of a checkpoint, but they cannot be"):
        Checkpoints(tmp_path, CONFIG, "bleu")
    told: list[str] = []
    set_aside_unscored(tmp_path, told.append)
    assert len(told) == 1
    assert (tmp_path / "2.damaged").is_dir()
    with Checkpoints(tmp_path, CONFIG, "bleu") as checkpoints:
        assert checkpoints.best_step == checkpoints.restore_newest(state, pytest.fail)[0] == 1


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("no folder", encoding="utf-8")
    with pytest.raises(UserError, match="checkpoints: expected a folder of checkpoints, got a file"):
        Checkpoints(tmp_path / "checkpoints", CONFIG, "bleu")
