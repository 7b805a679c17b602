"""What training survives: damage, a full disk, being killed, and numbers that are not finite."""

import json
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from flax_transformer.cli.train import parse_train_flags
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    save_config,
)
from flax_transformer.data.batches import ClassifierBatch
from flax_transformer.data.tasks import load_splits
from flax_transformer.errors import UserError
from flax_transformer.training.checkpoint import Checkpoints, DamagedCheckpointError, fingerprint
from flax_transformer.training.loop import train
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import TrainStep

pytestmark = [
    # Where its reading or writing fails, orbax leaves coroutines behind that nobody awaits.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def new_state(seed: int) -> TrainState:
    params = nnx.state(nnx.Linear(30, 70, rngs=nnx.Rngs(seed)), nnx.Param)
    return TrainState(params, optax.adam(1e-3).init(params), jnp.zeros((), jnp.int32))


def save_two(folder: Path) -> Path:
    """Checkpoints 1 and 2, of different states; the folder of the second."""
    with Checkpoints(folder, TrainConfig(), "bleu") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, new_state(step))
    return folder / "2"


def largest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_bit(path: Path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        flip_a_bit,  # orbax and tensorstore read on as if nothing were
        Path.unlink,
    ],
    ids=["cut short", "one bit", "gone"],
)
def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path: Path, damage):
    damage(largest_file(save_two(tmp_path)))
    told: list[str] = []
    with Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints:
        step, state = checkpoints.restore_newest(new_state(0), told.append)
        assert step == 1
        jax.tree.map(np.testing.assert_array_equal, state, new_state(1))
        checkpoints.save(2, new_state(2))  # what was set aside is in nobody's way
    assert len(told) == 1
    assert str(tmp_path / "2") in told[0]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "2.damaged"}
    with Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints:
        assert checkpoints.restore_newest(new_state(0), told.append)[0] == 2
    assert len(told) == 1


def test_nothing_but_damage_ends_the_run(tmp_path: Path):
    flip_a_bit(largest_file(save_two(tmp_path)))
    flip_a_bit(largest_file(tmp_path / "1"))
    with (
        Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints,
        pytest.raises(UserError, match="all are damaged"),
    ):
        checkpoints.restore_newest(new_state(0), lambda text: None)


def test_damaged_parameters_are_not_used_for_predictions(tmp_path: Path):
    newest = save_two(tmp_path)
    flip_a_bit(largest_file(newest / "params"))
    with Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints, pytest.raises(DamagedCheckpointError):
        checkpoints.restore_params(2, new_state(0).params)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.int8])
def test_a_fingerprint_sees_each_bit_and_each_exchange(dtype):
    array = np.asarray(jnp.arange(24).reshape(4, 6).astype(dtype))
    seen = {int(fingerprint([array]))}
    for position in range(array.nbytes):
        changed = bytearray(array.tobytes())
        changed[position] ^= 1 << position % 8
        seen.add(int(fingerprint([np.frombuffer(changed, array.dtype).reshape(4, 6)])))
    seen |= {int(fingerprint([array[::-1]])), int(fingerprint([array.T.reshape(4, 6)]))}
    assert len(seen) == 1 + array.nbytes + 2
    assert int(fingerprint([array, array[::-1]])) != int(fingerprint([array[::-1], array]))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow past 100 bytes."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path):
    with Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints:
        checkpoints.save(1, new_state(1))
    with (
        pytest.raises(UserError, match="could not") as error,
        full_disk(),
        Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints,
    ):
        checkpoints.save(2, new_state(2))
    assert "the last good checkpoint is of step 1" in str(error.value)
    with Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints:
        step, state = checkpoints.restore_newest(new_state(0), pytest.fail)
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, state, new_state(1))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'file' / 'checkpoints'}: expected to write")):
        Checkpoints(tmp_path / "file" / "checkpoints", TrainConfig(), "bleu")


MODEL = ModelConfig("classifier", d_model=8, num_heads=2, d_ff=12, num_encoder_layers=1, source_vocab_size=50)


def classifier_batch(rows: int = 4) -> ClassifierBatch:
    rng = np.random.default_rng(0)
    source = rng.integers(3, 50, (rows, 6)).astype(np.int32)
    return ClassifierBatch(source, np.full(rows, 6, np.int32), rng.integers(0, 2, rows).astype(np.int32))


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
    config = TrainConfig(data=ClassificationData(), model=MODEL, batch=BatchConfig(size=4))
    step = TrainStep(config, total_steps=10)
    state, metrics = step(step.init(), classifier_batch())
    assert not metrics["skipped"]
    broken = jax.tree.map(jnp.copy, state)
    broken.params["head"]["kernel"][...] = broken.params["head"]["kernel"][...].at[0, 0].set(jnp.nan)
    before = jax.tree.map(np.array, broken)
    after, metrics = step(broken, classifier_batch())
    assert metrics["skipped"]
    assert int(after.step) == int(before.step) + 1
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (before.params, before.opt_state))
    healthy, _ = step(state, classifier_batch())
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (healthy.params, before.params)), strict=True))


def test_a_run_that_diverges_ends_with_the_examples_of_its_last_batches(reviews: Path, tmp_path: Path):
    config = TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        model=replace(MODEL, dropout=0.0),
        batch=BatchConfig(size=8, buckets=1, max_source_length=16),
        # The first step leads to weights that overflow.
        optimizer=OptimizerConfig(learning_rate=1e38, warmup_steps=0, schedule="constant", max_grad_norm=0.0),
        max_skipped=3,
    )
    config = replace(config, tokenizer=replace(config.tokenizer, vocab_size=300))
    with pytest.raises(UserError, match="no finite loss and gradient in 3 steps in a row"):
        train(config, tmp_path / "run")
    skipped = json.loads((tmp_path / "run" / "skipped.json").read_text(encoding="utf-8"))
    steps = [entry["step"] for entry in skipped]
    assert steps == list(range(steps[0], steps[0] + 3))
    examples = [index for entry in skipped for index in entry["examples"]]
    assert len(set(examples)) == len(examples) == 24
    assert set(examples) <= set(range(len(load_splits(config.data, config.seed).train)))


def test_resume_auto_starts_a_run_or_goes_on(tmp_path: Path):
    flags = ["--run", str(tmp_path), "--resume", "auto"]
    assert parse_train_flags("manifests", flags)[2] is False
    save_config(replace(TrainConfig(), seed=7), tmp_path / "config.json")
    config, folder, resume, _ = parse_train_flags("manifests", flags)
    assert (config.seed, folder, resume) == (7, tmp_path, True)
    # Alone it means yes, also before another flag.
    assert parse_train_flags("manifests", ["--resume", "--run", str(tmp_path)])[2] is True
    assert parse_train_flags("manifests", ["--run", str(tmp_path), "--seed", "1"])[2] is False


def test_a_run_goes_on_on_another_mesh(tmp_path: Path):
    with Checkpoints(tmp_path, TrainConfig(), "bleu") as checkpoints:
        checkpoints.save(1, new_state(1))
    with Checkpoints(tmp_path, TrainConfig(mesh=MeshConfig(fsdp=2)), "bleu") as checkpoints:
        assert checkpoints.restore_newest(new_state(0), pytest.fail)[0] == 1
