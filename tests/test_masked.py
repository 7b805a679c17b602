"""Training on masked tokens: it learns, resumes to the same bits, and gives other tasks a start."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import torch_reference
from flax_transformer import MaskedLM, load, train
from flax_transformer.cli.main import main
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    ImdbData,
    MaskedData,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    to_dict,
)
from flax_transformer.data.batches import Encoded, Sequences, evaluation_batches
from flax_transformer.data.fingerprint import tell_seen
from flax_transformer.data.masking import Masking, count_predicted
from flax_transformer.data.tasks import load_splits
from flax_transformer.errors import UserError
from flax_transformer.interop.state_dict import get_weights
from flax_transformer.planning.flops import forward_flops
from flax_transformer.planning.plan import abstract_batch
from flax_transformer.presets import PRESETS
from flax_transformer.training.pretrained import require_model_of, start_from
from flax_transformer.training.run import Run
from flax_transformer.training.step import TrainStep

ROOT = Path(__file__).parent.parent
WORDS = ["eins", "zwei", "drei", "vier", "acht"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same word again and again, so that the others tell what stands at a masked place."""
    texts = [(word, count) for word in WORDS for count in range(6, 30)]
    lines = [json.dumps({"body": " ".join([word] * count), "kind": str(count % 2)}) for word, count in texts]
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(texts: Path) -> TrainConfig:
    return TrainConfig(
        data=MaskedData(path=(str(texts),), text_column=("body",)),
        tokenizer=TokenizerConfig(vocab_size=300, kind="wordpiece"),
        model=ModelConfig("masked", d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, max_length=32, dropout=0.0),
        batch=BatchConfig(size=8, max_source_length=32, buckets=1),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=10),
        epochs=6,
    )


@pytest.fixture(scope="module")
def run(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config, tmp_path_factory.mktemp("runs") / "pre")


def classifying(run: Run, **changes) -> TrainConfig:
    """A classification that starts from the encoder of ``run``."""
    learned: Any = run.config.data
    data = ClassificationData(learned.path, text_column=("body",), label_column="kind")
    model = replace(run.model_config, architecture="classifier", **changes)
    return TrainConfig(data=data, model=model, batch=run.config.batch, pretrained=str(run.folder))


@pytest.mark.slow
def test_it_learns_what_stands_at_a_masked_place(run: Run) -> None:
    scores: Any = run.scores
    assert scores.keys() == {"accuracy", "perplexity", "loss"}
    assert math.isclose(scores["perplexity"], math.exp(scores["loss"]))
    assert scores["accuracy"] > 0.8  # always the same word: about a fifth
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    first, *_, last = (line["validation/loss"] for line in lines if "validation/loss" in line)
    assert last < 0.7 * first


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(config: TrainConfig, tmp_path: Path) -> None:
    short = replace(config, epochs=2, batch=replace(config.batch, word_dropout=0.1), patience=2)
    whole = train(short, tmp_path / "whole")
    shutil.copytree(whole.folder, tmp_path / "killed")
    steps = sorted(int(path.name) for path in (tmp_path / "killed/checkpoints").iterdir() if path.name.isdecimal())
    shutil.rmtree(tmp_path / "killed/checkpoints" / str(steps[-1]))
    again = train(short, tmp_path / "killed", resume=True)
    assert again.scores == whole.scores
    weights = get_weights(again.best_model())
    assert all(np.array_equal(weight, weights[name]) for name, weight in get_weights(whole.best_model()).items())


@pytest.mark.slow
def test_other_ways_to_compute_a_step_are_open_to_it(config: TrainConfig, tmp_path: Path) -> None:
    model = replace(config.model, scan_layers=True, remat="full", dtype="bfloat16", dropout=0.1)
    options = replace(config, model=model, gradient_accumulation_steps=2, label_smoothing=0.1, epochs=1)
    scores: Any = train(options, tmp_path / "run").scores
    assert math.isfinite(scores["loss"])


@pytest.mark.parametrize("fields", [{}, {"scan_layers": True, "head_hidden": "tanh"}], ids=repr)
@pytest.mark.sample(1)
def test_a_classifier_takes_the_encoder_and_has_a_new_head(run: Run, fields: dict) -> None:
    tuning = classifying(run, **fields)
    require_model_of(run, tuning.model)
    step = TrainStep(tuning, 10)
    state, new, left_out = start_from(run, tuning, ("0", "1"), step)
    assert new == (["head", "hidden"] if fields else ["head"])
    assert left_out == ["output_bias"]
    trained, started = get_weights(run.model), get_weights(step.model(state))
    assert trained.keys() - started.keys() == {"output_bias"}
    assert all(np.array_equal(started[name], trained[name]) for name in trained.keys() - {"output_bias"})


def test_an_encoder_of_another_shape_is_no_start(run: Run) -> None:
    with pytest.raises(UserError, match=r"model\.d_ff: expected 32"):
        require_model_of(run, classifying(run, d_ff=64).model)


@pytest.mark.slow
def test_the_command_starts_from_it_and_says_what_is_left_out(run: Run, texts: Path, tmp_path: Path, capsys) -> None:
    data = ["--data.path", str(texts), "--data.text-column", "body", "--data.label-column", "kind"]
    flags = [*data, "--pretrained", str(run.folder), "--run", str(tmp_path / "new"), "--epochs", "1"]
    flags += ["--batch.size", "8", "--batch.buckets", "1"]
    assert main(["train", "classification", *flags]) == 0
    said = capsys.readouterr()
    told = f"starting from the weights in {run.folder}; new: head; left out: output_bias"
    assert told in said.out.replace("\n", " ")
    tuned = Run.load(tmp_path / "new")
    assert tuned.tokenizer.to_json() == run.tokenizer.to_json()
    # The head is the task's own, as are the rates of dropout.
    default = PRESETS["classification"]["finetune"].model
    assert (tuned.model_config.pooling, tuned.model_config.dropout) == (default.pooling, default.dropout)
    assert main(["train", "seq2seq", *data[:2], "--pretrained", str(run.folder), "--run", str(tmp_path / "no")]) == 2
    assert "the task 'seq2seq' needs a seq2seq, got a masked model" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_more_pre_training_keeps_all_weights(run: Run) -> None:
    again = replace(run.config, pretrained=str(run.folder))
    require_model_of(run, again.model)
    step = TrainStep(again, 10)
    state, new, left_out = start_from(run, again, (), step)
    assert new == left_out == []
    trained, started = get_weights(run.model), get_weights(step.model(state))
    assert all(np.array_equal(started[name], weight) for name, weight in trained.items())


def test_it_gives_vectors_and_no_predictions(run: Run, tmp_path: Path, capsys) -> None:
    assert main(["predict", str(run.folder), "eins zwei", "--embed", "mean"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    vector = np.array(json.loads(line)["embedding"])
    assert math.isclose(np.linalg.norm(vector), 1, rel_tol=1e-5)
    for command, expected in [
        (["predict", str(run.folder), "eins zwei"], "got one that predicts masked tokens"),
        (["predict", str(run.folder), "eins zwei", "--top", "2"], "more than 1 of a classifier alone"),
        (["evaluate", str(run.folder), "--strategy", "beam"], "since it is a model of masked tokens"),
        (["export", str(run.folder), str(tmp_path / "hf"), "--format", "hf"], "expected a classifier or a seq2seq"),
    ]:
        assert main(command) == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


def test_it_is_evaluated_on_its_test_split_and_on_files(run: Run, texts: Path, capsys) -> None:
    assert main(["evaluate", str(run.folder)]) == 0
    assert f"loss {run.scores['loss']:.4f}" in capsys.readouterr().out
    assert main(["evaluate", str(run.folder), "--file", str(texts), "--batch-size", "3"]) == 0
    said = capsys.readouterr()
    assert "perplexity" in said.out
    assert "which flatters the score" in said.err


def test_both_twins_read_its_export(run: Run, tmp_path: Path) -> None:
    exported = run.export(tmp_path / "export")
    assert isinstance(exported.model, MaskedLM)
    assert np.allclose(exported.embed(["eins zwei"]), run.embed(["eins zwei"]))
    source, positions = np.array([[5, 6, 7, 8]], np.int32), np.array([[1, 3]], np.int32)
    twin = torch_reference.load(tmp_path / "export")
    with torch.no_grad():
        logits = twin(torch.tensor(source), torch.tensor(positions))
    np.testing.assert_allclose(exported.model(jnp.asarray(source), jnp.asarray(positions)), logits, atol=1e-5)
    tuning = replace(classifying(run), pretrained=str(tmp_path / "export"))
    _, new, _ = start_from(load(tmp_path / "export"), tuning, ("0", "1"), TrainStep(tuning, 10))
    assert new == ["head"]


def test_a_plan_has_room_for_its_predicted_tokens(config: TrainConfig) -> None:
    batch = abstract_batch(config)
    full = Encoded(Sequences([[5] * 32] * 8), Masking(3, np.arange(4, 300), ()), pad_id=0, unk_id=3)
    (_, made), *_ = evaluation_batches(full, config.batch)
    assert [array.shape for array in batch] == [array.shape for array in made]
    step = TrainStep(config, 10)
    jax.eval_shape(step, step.abstract_state, batch)
    head = 2 * count_predicted(32) * config.model.d_model * config.model.source_vocab_size
    bare = replace(config, data=ClassificationData(), model=replace(config.model, architecture="classifier"))
    of_classes = 2 * config.model.d_model * config.model.num_classes
    assert forward_flops(config) - forward_flops(bare) == 8 * (head - of_classes)


# --- texts of another task ---


def test_the_texts_of_a_task_are_those_of_its_own_splits(texts: Path, tmp_path: Path) -> None:
    columns: Any = {"text_column": "body", "label_column": "kind"}
    labelled = load_splits(ClassificationData((str(texts),), **columns), seed=3)
    alone = load_splits(MaskedData((str(texts),), of="classification", **columns), seed=3)
    other = load_splits(MaskedData((str(texts),), of="classification", **columns), seed=4)
    for name in ("train", "validation", "test"):
        expected, found = getattr(labelled, name), getattr(alone, name)
        assert found.sources == expected.sources
        assert set(found.targets) == {None}
        assert getattr(other, name).sources != expected.sources
    assert alone.classes == ()
    assert alone.files == labelled.files


def test_the_texts_of_imdb_are_those_of_its_training_split(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    rows = [f"{split},{number % 2},review<br />{split} {number}" for split in ("train", "test") for number in range(30)]
    path.write_text("\n".join(["split,label,text", *rows]) + "\n", encoding="utf-8")
    labelled = load_splits(ImdbData(str(path), "official"), seed=0)
    alone = load_splits(MaskedData((str(path),), of="imdb", split="official"), seed=0)
    assert [part.sources for part in (alone.train, alone.validation, alone.test)] == [
        part.sources for part in (labelled.train, labelled.validation, labelled.test)
    ]
    assert not any("test" in text for text in alone.train.sources)
    for fields in ({"path": ("a.csv", "b.csv")}, {"test_path": "b.csv"}):
        with pytest.raises(UserError, match="imdb"):
            MaskedData(**{"path": (str(path),), "of": "imdb", **fields})


def test_the_preset_of_imdb_has_the_encoder_of_its_classifier_but_for_its_positions() -> None:
    pre, tuned = PRESETS["masked"]["imdb"], PRESETS["imdb"]["default"]
    assert pre.data == MaskedData(of="imdb")
    assert pre.tokenizer == tuned.tokenizer
    assert pre.batch.max_source_length == tuned.batch.max_source_length
    others = ("architecture", "dropout", "positions")
    pre_model, tuned_model = ({**to_dict(config.model), **dict.fromkeys(others)} for config in (pre, tuned))
    assert pre_model == tuned_model


def test_texts_to_be_scored_that_were_trained_on_are_told(run: Run, tmp_path: Path, capsys) -> None:
    for seed, is_told in ((0, False), (1, True)):
        tell_seen(run.folder, load_splits(classifying(run).data, seed))
        told = capsys.readouterr().err
        for name in ("validation", "test"):
            assert (f"of the {name} split are among those that {run.folder} was trained on" in told) == is_told
    assert told.count("\n") == 2
    tell_seen(run.export(tmp_path / "export").folder, load_splits(classifying(run).data, 1))  # knows no texts
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "masked: expected --data.path, files to learn from"),
        (["--data.path", "CSV"], "expected one column 'text', got none in body"),
        (["--data.path", "BLANK"], "expected rows with 'text', got 1 of 1 without"),
        (["--data.path", "EMPTY"], "expected at least one row, got an empty file"),
        (["--data.path", "CSV", "--data.text-column", "body"], "expected more than 1 distinct texts to split, got 1"),
        (
            ["--data.path", "TEXTS", "--data.of", "classification"],
            "name yours with --data.text-column and --data.label-column",
        ),
        (["--data.path", "TEXTS", "--model.embedding-width", "8"], "embedding_width: expected d_model"),
    ],
)
def test_bad_input_is_one_line(flags: list[str], expected: str, texts: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "one.csv").write_text("body\nonly\n", encoding="utf-8")
    (tmp_path / "blank.csv").write_text("text,kind\n,good\n", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    files = {"TEXTS": texts, "CSV": tmp_path / "one.csv", "BLANK": tmp_path / "blank.csv"}
    files["EMPTY"] = tmp_path / "empty.txt"
    arguments = [str(files.get(flag, flag)) for flag in flags]
    assert main(["train", "masked", *arguments, "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_on_eight_devices_the_weights_become_those_of_one(texts: Path, tmp_path: Path) -> None:
    weights = []
    for devices, mesh in ((1, []), (8, ["--mesh.fsdp", "4", "--mesh.model", "2"])):
        folder = tmp_path / f"on-{devices}"
        flags = ["--data.path", str(texts), "--data.text-column", "body", "--run", str(folder), "--batch.size", "8"]
        flags += ["--model.d-model", "16", "--model.num-heads", "2", "--model.d-ff", "16", "--epochs", "1", *mesh]
        environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        command = [sys.executable, "train_flax.py", "masked", *flags]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
        weights.append(get_weights(Run.load(folder).best_model()))
    for name, weight in weights[0].items():
        if name.endswith("key.bias"):
            continue  # its gradient is 0 but for rounding, of which Adam makes whole steps
        np.testing.assert_allclose(weights[1][name], weight, rtol=0, atol=1e-6, err_msg=name)
