"""Training on packed rows: a stopped run goes on bit for bit, and eight devices give the losses of one."""

import signal
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from stopped_runs import final_state, read_metrics, stop_on_call
from worker_processes import run_worker

from flax_transformer.config import BatchConfig, ClassificationData, ModelConfig, TokenizerConfig, TrainConfig
from flax_transformer.errors import UserError
from flax_transformer.training.loop import Stopped, train
from flax_transformer.training.report import Report


@pytest.fixture(scope="module")
def config(reviews: Path) -> TrainConfig:
    return TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(architecture="classifier", d_model=8, num_heads=2, d_ff=12, num_encoder_layers=1),
        batch=BatchConfig(size=2, max_source_length=64, word_dropout=0.1, packing=True),
        epochs=3,
        log_every=2,
    )


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    train(config, tmp_path / "alone")
    assert "packed rows: " in capsys.readouterr().out
    steps = read_metrics(tmp_path / "alone")[-1]["step"]
    with monkeypatch.context() as patch:
        stop_on_call(patch, Report, "train_step", steps // 2, signal.SIGTERM)
        with pytest.raises(Stopped):
            train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped", resume=True)
    states = [final_state(tmp_path / name, steps) for name in ("alone", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_kernel_that_cannot_serve_packed_rows_is_refused_before_anything_is_written(
    config: TrainConfig, tmp_path: Path
):
    cudnn = replace(config, model=replace(config.model, attention_backend="cudnn"))
    with pytest.raises(UserError, match="attention_backend='cudnn' "):
        train(cudnn, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_eight_devices_train_to_the_losses_of_one():
    one, eight = (
        run_worker(sizes, 5, devices=int(np.prod(sizes)), packing=True)[0] for sizes in ((1, 1, 1), (4, 1, 2))
    )
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=0, atol=1e-10)
    assert len(set(one["losses"])) == 5  # batches differ, and so would rows that went to the wrong device
