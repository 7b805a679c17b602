"""When training ends: early, for want of a better score, or later than it was first meant to."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flax_transformer import UserError, train
from flax_transformer.cli.main import main
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from flax_transformer.interop.state_dict import get_weights
from flax_transformer.training.run import Run


@pytest.fixture(scope="module")
def config(reviews: Path) -> TrainConfig:
    return TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig("classifier", d_model=8, num_heads=2, d_ff=8, num_encoder_layers=1, dropout=0.1),
        batch=BatchConfig(size=16, max_source_length=16, buckets=1),
        optimizer=OptimizerConfig(schedule="constant", warmup_steps=0),
    )


def newest(run: Run) -> int:
    with run.checkpoints() as checkpoints:
        assert checkpoints.newest_step is not None
        return checkpoints.newest_step


@pytest.mark.slow
def test_training_ends_when_no_evaluation_brings_a_better_score(config: TrainConfig, tmp_path: Path, capsys):
    # At rate 0 nothing ever gets better.
    stuck = replace(config, optimizer=replace(config.optimizer, learning_rate=0.0), epochs=9, evaluations_per_epoch=2)
    patient = train(replace(stuck, patience=3), tmp_path / "patient")
    steps_per_epoch = newest(train(replace(stuck, epochs=1), tmp_path / "one"))
    assert newest(patient) == steps_per_epoch * 4 // 2  # one evaluation is the best, three bring nothing
    assert "no better score in 3 evaluations" in capsys.readouterr().out
    # Going on with it changes nothing; with more patience it goes on.
    assert newest(train(replace(stuck, patience=3), tmp_path / "patient", resume=True)) == newest(patient)
    assert newest(train(replace(stuck, patience=5), tmp_path / "patient", resume=True)) == steps_per_epoch * 6 // 2
    assert Run.load(tmp_path / "patient").config.patience == 5


@pytest.mark.slow
def test_a_run_that_gets_better_is_not_stopped(config: TrainConfig, tmp_path: Path):
    better = replace(config, optimizer=replace(config.optimizer, learning_rate=0.03), epochs=2)
    assert newest(train(replace(better, patience=2), tmp_path / "a")) == newest(train(better, tmp_path / "b"))


@pytest.mark.slow
def test_more_epochs_after_the_end_are_those_of_a_longer_run(config: TrainConfig, tmp_path: Path):
    """With a constant rate, bit by bit: neither the order of the data nor dropout depends on the length."""
    whole = train(replace(config, epochs=3), tmp_path / "whole")
    train(replace(config, epochs=1), tmp_path / "longer")
    shutil.copytree(tmp_path / "longer", tmp_path / "command")
    longer = train(replace(config, epochs=3), tmp_path / "longer", resume=True)
    assert newest(longer) == newest(whole)
    assert longer.config.epochs == Run.load(longer.folder).config.epochs == 3
    assert longer.scores == whole.scores
    expected = get_weights(whole.best_model())
    assert all(np.array_equal(weight, expected[name]) for name, weight in get_weights(longer.best_model()).items())
    assert main(["train", "classification", "--run", str(tmp_path / "command"), "--resume", "--epochs", "3"]) == 0
    assert Run.load(tmp_path / "command").scores == whole.scores


def test_fewer_epochs_and_other_changes_are_refused(config: TrainConfig, classifier_run: Run):
    for change, message in (({"epochs": 1}, "epochs is 2 there and 1 here"), ({"seed": 3}, "seed is 0 there")):
        with pytest.raises(UserError, match=message):
            train(replace(classifier_run.config, **change), classifier_run.folder, resume=True)
    with pytest.raises(UserError, match="patience: expected a whole number of at least 0"):
        replace(config, patience=-1)
