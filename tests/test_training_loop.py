"""The training loop: what a run leaves behind, and that a stopped one goes on as if it had never been stopped."""

import json
import math
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from stopped_runs import final_state, read_metrics, stop_on_call
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from flax_transformer.data.batches import ClassifierBatch
from flax_transformer.data.labels import balanced_weights
from flax_transformer.errors import UserError
from flax_transformer.training.evaluate import Evaluator, format_counts
from flax_transformer.training.input import prefetch
from flax_transformer.training.loop import Result, Stopped, _is_evaluation_step, train
from flax_transformer.training.report import Diverged, Report
from flax_transformer.training.run import Run
from flax_transformer.training.step import TrainStep, _compiler_options

STEPS_PER_EPOCH, EPOCHS = 9, 2  # 68 training rows, 8 at a time
STEPS = STEPS_PER_EPOCH * EPOCHS


@pytest.fixture(scope="module")
def config(reviews: Path) -> TrainConfig:
    return TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(architecture="classifier", d_model=8, num_heads=2, d_ff=12, num_encoder_layers=1),
        batch=BatchConfig(size=8, buckets=1, max_source_length=16, word_dropout=0.1, bpe_dropout=0.2),
        optimizer=OptimizerConfig(name="muon"),  # whose state holds that of AdamW, too
        epochs=EPOCHS,
        evaluations_per_epoch=2,
        log_every=3,
    )


@pytest.fixture(scope="module")
def finished(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(config, tmp_path_factory.mktemp("runs") / "finished")


def test_what_is_cut_is_told_with_the_flags_that_the_task_has(config: TrainConfig):
    told = "3 texts are cut, being longer than --batch.max-source-length"
    assert format_counts({"cut": 3}, config) == f"{told} 16"
    assert format_counts({"cut": 3}, TrainConfig()) == f"{told} 256 or --batch.max-target-length 256"


def test_a_reader_who_goes_away_does_not_end_the_training(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """As ``head -1`` does; a run that ends there would have saved nothing."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        result = train(config, tmp_path / "run")
        print("to nobody", flush=True)
    assert (result.run.folder / "results.json").exists()
    assert capsys.readouterr().err.count("nobody reads the output any more") == 1


def test_a_deterministic_step_asks_the_compiler_for_it_on_a_gpu_alone():
    wanted = TrainConfig(deterministic=True)
    options = _compiler_options(wanted, "gpu")
    assert options
    assert _compiler_options(wanted, "cpu") is None
    assert _compiler_options(TrainConfig(), "gpu") is None
    jax.jit(lambda x: x + 1, compiler_options=options)(1)  # the names are known to XLA
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        jax.jit(lambda x: x + 1, compiler_options={f"{name}_": True for name in options})(1)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
def test_deterministic_runs_on_a_gpu_have_the_same_bits(config: TrainConfig, tmp_path: Path):
    runs = [train(replace(config, deterministic=True), tmp_path / name).run for name in ("one", "two")]
    jax.tree.map(np.testing.assert_array_equal, *(final_state(run.folder, STEPS) for run in runs))


def assert_same_run(folder: Path, other: Path):
    jax.tree.map(np.testing.assert_array_equal, final_state(folder, STEPS), final_state(other, STEPS))
    evaluations = [
        {line["step"]: line["validation/loss"] for line in read_metrics(run) if "validation/loss" in line}
        for run in (folder, other)
    ]
    assert evaluations[0] == evaluations[1]
    results = [json.loads((run / "results.json").read_text(encoding="utf-8")) for run in (folder, other)]
    assert results[0] == results[1]


def test_a_run_leaves_all_it_takes_to_use_it(finished: Result):
    folder = finished.run.folder
    names = {path.name for path in folder.iterdir()}
    files = {"config", "tokenizer", "classes", "prediction", "data", "results"}
    assert names == {f"{name}.json" for name in files} | {"metrics.jsonl", "checkpoints", "tensorboard", ".lock"}
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["test"] == finished.scores
    run = Run.load(folder)
    assert run.classes == ("good", "poor")
    assert run.config.model.source_vocab_size == run.tokenizer.vocab_size
    assert run.config.model.num_classes == 2
    assert Evaluator(finished.examples, run.tokenizer, run.config, copying=run.copy_rule).evaluate(
        run.best_model()
    ) == (
        finished.predictions,
        finished.scores,
    )


def test_metrics_are_written_down_as_lines_and_as_events(finished: Result):
    lines = read_metrics(finished.run.folder)
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert list(losses) == [3, 5, 8, 9, 12, 14, 17, 18]  # every 3 steps, and before each evaluation
    assert all(0 < loss < 2 for loss in losses.values())
    assert [line["step"] for line in lines if "validation/accuracy" in line] == [5, 9, 14, 18]
    events = EventAccumulator(str(finished.run.folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Tensors("train/loss")] == list(losses)
    assert [event.step for event in events.Tensors("validation/loss")] == [5, 9, 14, 18]


def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    config: TrainConfig, finished: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_on_call(patch, Report, "train_step", 6, signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            train(config, folder)
    assert (stopped.value.number, stopped.value.step) == (signal.SIGTERM, 6)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
        metrics.write('{"step": 7, "validation/loss": 0}\n{"step": 8, "los')  # as a killed run leaves them
    train(config, folder, resume=True)
    assert_same_run(folder, finished.run.folder)
    train(config, folder, resume=True)  # nothing is left to do
    assert_same_run(folder, finished.run.folder)


def test_a_run_is_trained_by_one_process_at_a_time(config: TrainConfig, finished: Result):
    folder = finished.run.folder
    before = (folder / "config.json").read_bytes()
    with finished.run.held(), pytest.raises(UserError, match="expected nobody else to train this run, but another"):
        train(replace(config, epochs=EPOCHS + 1), folder, resume=True)
    assert (folder / "config.json").read_bytes() == before
    with finished.run.held():  # the lock was given back
        pass


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.slow
def test_balanced_classes_count_alike(config: TrainConfig, parts: int):
    """The loss of a step is the mean over classes of their mean losses, however the batch is cut."""
    model = replace(config.model, source_vocab_size=17, num_classes=3, dropout=0.0)
    plain = replace(config, model=model, gradient_accumulation_steps=parts)
    labels = np.array([0, 0, 0, 0, 1, 0, 1, 2], np.int32)
    batch = ClassifierBatch(np.arange(24, dtype=np.int32).reshape(8, 3) % 17, np.full(8, 3, np.int32), labels)
    weights = balanced_weights(labels, 3)
    step = TrainStep(plain, total_steps=2, class_weights=weights)
    logits = step.model(step.init())(jax.numpy.asarray(batch.source), jax.numpy.asarray(batch.source_lengths))
    logits = np.asarray(logits, np.float64)
    losses = np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(8), labels]
    expected = np.mean([losses[labels == label].mean() for label in range(3)])
    _, metrics = step(step.init(), batch)
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    _, unweighted = TrainStep(plain, total_steps=2)(step.init(), batch)
    assert unweighted["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert metrics["loss"] != pytest.approx(losses.mean(), rel=1e-3)


@pytest.mark.parametrize("parts", [1, 2])
def test_two_passes_without_dropout_are_one(config: TrainConfig, parts: int):
    """They do not diverge, and the mean over both is that of one; with dropout, what they diverge by is added."""
    rng, lengths = np.random.default_rng(0), np.array([3, 1, 0, 2, 3, 2, 0, 1], np.int32)
    source, labels = rng.integers(17, size=(8, 3)), rng.integers(3, size=8)
    batch = ClassifierBatch(source.astype(np.int32), lengths, labels.astype(np.int32))

    def first_step(dropout: float, r_drop: float) -> tuple[float, float]:
        """Its loss, and the norm of its gradient."""
        model = replace(config.model, source_vocab_size=17, num_classes=3, dropout=dropout)
        options = replace(config, model=model, gradient_accumulation_steps=parts, label_smoothing=0.1, r_drop=r_drop)
        step = TrainStep(options, total_steps=2)
        _, metrics = step(step.init(), batch)
        return float(metrics["loss"]), float(metrics["grad_norm"])

    assert first_step(0.0, r_drop=3.0) == pytest.approx(first_step(0.0, r_drop=0.0), rel=1e-5)
    # Of the same draws.
    once, twice, four_times = (first_step(0.5, r_drop)[0] for r_drop in (1.0, 2.0, 4.0))
    assert twice > once * 1.001
    assert four_times - twice == pytest.approx(2 * (twice - once), rel=1e-4)


@pytest.mark.parametrize("r_drop", [-1.0, math.nan, math.inf])
def test_divergence_cannot_be_rewarded(r_drop: float):
    with pytest.raises(UserError, match="r_drop: expected a finite number of at least 0"):
        TrainConfig(r_drop=r_drop)


@pytest.mark.slow
def test_a_run_can_balance_its_classes(config: TrainConfig, tmp_path: Path):
    balanced = train(replace(config, balance_classes=True), tmp_path / "run")
    assert Run.load(tmp_path / "run").config.balance_classes
    assert "accuracy" in balanced.scores


def test_a_task_without_classes_has_none_to_balance():
    with pytest.raises(UserError, match="balance_classes: expected False for a task without classes"):
        TrainConfig(balance_classes=True)


@pytest.fixture(scope="module")
def averaged(config: TrainConfig) -> TrainConfig:
    return replace(config, optimizer=replace(config.optimizer, ema_decay=0.9, learning_rate=0.1))


def test_the_mean_of_the_weights_is_what_is_evaluated(averaged: TrainConfig):
    config = replace(averaged, model=replace(averaged.model, source_vocab_size=17, num_classes=2))
    step = TrainStep(config, total_steps=5)
    batch = ClassifierBatch(np.ones((8, 3), np.int32), np.full(8, 3, np.int32), np.arange(8, dtype=np.int32) % 2)
    state = step.init()
    mean = jax.tree.map(np.float64, state.params)
    for taken in range(4):
        state, _ = step(state, batch)
        decay = min(0.9, (1 + taken) / (10 + taken))
        mean = jax.tree.map(lambda m, w, d=decay: d * m + (1 - d) * np.float64(w), mean, state.params)
    assert state.average is not None
    jax.tree.map(lambda found, expected: np.testing.assert_allclose(found, expected, atol=1e-6), state.average, mean)
    evaluated = nnx.state(step.model(state))
    jax.tree.map(np.testing.assert_array_equal, evaluated, state.average)
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, evaluated, state.params)
    before = jax.tree.map(np.array, state.average)
    broken = jax.tree.map(lambda w: w * np.nan, state.params)
    state, metrics = step(state._replace(params=broken), batch)
    assert metrics["skipped"]
    jax.tree.map(np.testing.assert_array_equal, state.average, before)


@pytest.mark.slow
def test_a_resumed_run_has_the_mean_of_an_uninterrupted_one(
    averaged: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train(averaged, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_on_call(patch, Report, "train_step", 6, signal.SIGTERM)
        with pytest.raises(Stopped):
            train(averaged, tmp_path / "run")
    train(averaged, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    started = replace(averaged, pretrained=str(tmp_path / "run"), epochs=1)
    train(started, tmp_path / "started")


@pytest.mark.slow
def test_an_evaluation_that_was_stopped_is_made_up_for(
    config: TrainConfig, finished: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_on_call(patch, Evaluator, "evaluate", 2, signal.SIGINT)
        with pytest.raises(Stopped) as stopped:
            train(config, folder)
    assert stopped.value.step == STEPS_PER_EPOCH
    train(config, folder, resume=True)
    assert_same_run(folder, finished.run.folder)


def test_a_second_signal_is_obeyed_at_once(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = Report.train_step

    def train_step(self: Report, metrics: Any):
        original(self, metrics)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Report, "train_step", train_step)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")


def test_evaluations_are_spread_over_the_epoch():
    steps = range(15)
    assert [step for step in steps if _is_evaluation_step(step, 7, 1)] == [7, 14]
    assert [step for step in steps if _is_evaluation_step(step, 7, 2)] == [4, 7, 11, 14]
    assert [step for step in steps if _is_evaluation_step(step, 7, 50)] == list(range(1, 15))


class Scalar:
    """A scalar on the device, which knows whether it was read."""

    def __init__(self, value: float) -> None:
        self.value, self.read = value, False

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        self.read = True
        return np.array(self.value)


def step_metrics(loss: float) -> dict[str, Any]:
    return {
        "loss": Scalar(loss),
        "tokens": Scalar(10),
        "grad_norm": Scalar(1.0),
        "learning_rate": Scalar(0.1),
        "skipped": Scalar(not math.isfinite(loss)),
    }


def new_report(folder: Path) -> Report:
    return Report(folder, step=0, total_steps=10, steps_per_epoch=5, log_every=2, max_skipped=3)


def test_the_newest_step_is_never_waited_for(tmp_path: Path):
    steps = [step_metrics(loss) for loss in (1.0, 2.0, 3.0, 4.0, 5.0)]
    read = []
    with new_report(tmp_path) as report:
        for metrics in steps:
            report.train_step(metrics)
            read.append([step["loss"].read for step in steps].count(True))
    assert read == [0, 0, 2, 2, 4]
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.5, 3.5]


def test_skipped_steps_are_counted_and_too_many_in_a_row_end_the_run(tmp_path: Path):
    with new_report(tmp_path) as report:
        for loss in (math.nan, math.nan, 1.0, 2.0, math.nan, math.inf):
            report.train_step(step_metrics(loss))
        report.read_pending()
        report.train_step(step_metrics(math.nan))
        with pytest.raises(Diverged, match="3 steps in a row, 4 to 6"):
            report.read_pending()
    lines = [(line["step"], line["loss"], line.get("skipped")) for line in read_metrics(tmp_path)]
    assert lines == [(2, None, 2), (4, 1.5, None), (6, None, 2)]


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
):
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
    with new_report(tmp_path) as report:
        report.train_step(step_metrics(1.0))
        report.read_pending()
    output = capsys.readouterr().out
    assert "tokens/s" in output
    assert ("━" in output) == terminal
    assert ("step 1/10  loss 1.000" in output) != terminal


def test_prefetched_batches_begin_at_any_step():
    batches = [
        ClassifierBatch(np.full((2, 3), step, np.int32), np.array([3, 3], np.int32), np.zeros(2, np.int32))
        for step in range(9)
    ]
    for first in (0, 4, 9):
        fed = list(prefetch(batches, first))
        assert [int(batch.source[0, 0]) for batch in fed] == list(range(first, 9))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(fed))
