"""Several labels to a text from start to finish: training, resuming, evaluation, prediction, exports, other starts."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import torch_reference
from flax_transformer import load, train
from flax_transformer.cli.main import main
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    ModelConfig,
    MultilabelData,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from flax_transformer.decoding.labels import decide_labels
from flax_transformer.decoding.predictor import Prediction
from flax_transformer.errors import UserError
from flax_transformer.interop.export import load_export
from flax_transformer.interop.state_dict import get_weights
from flax_transformer.parity.targets import load_target
from flax_transformer.training.run import Run

WORDS = {"billing": "invoice", "crash": "freezes", "delivery": "parcel"}
SHARED = Path(__file__).parents[2] / "shared" / "data" / "snips"


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word of each text says that it has a label."""
    rng = np.random.default_rng(0)
    lines = ["text,labels"]
    for i in range(160):
        labels = [label for label in WORDS if rng.random() < 0.4]
        words = [*(WORDS[label] for label in labels), "please", "help", f"n{i}"]
        lines.append(f"{' '.join(rng.permutation(words))},{'; '.join(labels)}")
    path = tmp_path_factory.mktemp("data") / "tickets.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(tickets: Path) -> TrainConfig:
    return TrainConfig(
        data=MultilabelData(path=(str(tickets),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(
            "classifier", d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, max_length=16, dropout=0.0
        ),
        batch=BatchConfig(size=8, max_source_length=16, buckets=1),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
        epochs=5,
    )


@pytest.fixture(scope="module")
def run(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def export(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "export"
    run.export(folder)
    return folder


TEXTS = ["my invoice and my parcel", "it freezes", "please help", "invoice freezes parcel"]


def labels_of(prediction: Prediction) -> set[str | int]:
    assert isinstance(prediction.value, tuple)
    return set(prediction.value)


def test_it_learns_each_label(run: Run) -> None:
    scores: Any = run.scores
    assert scores.keys() == {"micro_f1", "macro_f1", "subset_accuracy", "loss"}
    assert scores["micro_f1"] > 0.8  # the same labels for every text: below 0.6
    assert [labels_of(one) for one in run.predict(TEXTS[:2])] == [{"billing", "delivery"}, {"crash"}]


def test_thresholds_are_those_of_the_best_checkpoint(run: Run) -> None:
    """In metrics.jsonl stand those of each evaluation; the best one is told by micro F1."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    evaluations = {line["step"]: line for line in lines if "validation/micro_f1" in line}
    results = json.loads((run.folder / "results.json").read_text("utf-8"))
    best = evaluations[results["step"]]
    assert best["validation/micro_f1"] == max(line["validation/micro_f1"] for line in evaluations.values())
    assert run.thresholds() == tuple(best[f"validation/threshold/{label}"] for label in run.classes)
    assert not any("threshold" in name for name in results["test"])


def test_predictions_come_with_probabilities(run: Run) -> None:
    for one in run.predict(TEXTS, top=9):
        assert isinstance(one.value, tuple)
        said: dict[Any, float] = dict(zip(one.value, one.label_scores, strict=True))
        others: dict[Any, float] = {other.value: other.score for other in one.alternatives}
        assert said.keys() | others.keys() == set(run.classes)
        limits = dict(zip(run.classes, run.thresholds(), strict=True))
        assert all(score >= limits[label] for label, score in said.items())
        assert all(score < limits[label] for label, score in others.items())
        assert list(said.values()) == sorted(said.values(), reverse=True)
        assert one.score == pytest.approx(math.prod([*said.values(), *(1 - score for score in others.values())]))
    assert [one.alternatives for one in run.predict(TEXTS)] == [()] * 4


def test_a_threshold_of_the_call_takes_the_place_of_all(run: Run) -> None:
    assert [len(labels_of(one)) for one in run.predict(TEXTS, threshold=0.0)] == [3] * 4
    assert [one.value for one in run.predict(TEXTS, threshold=1.0)] == [()] * 4
    for value in (-0.1, 1.5, math.nan):
        with pytest.raises(UserError, match="threshold: expected a probability in"):
            run.predict(TEXTS, threshold=value)


def test_the_export_predicts_the_same_in_both_frameworks(run: Run, export: Path) -> None:
    exported = load(export)
    assert exported.thresholds() == run.thresholds()
    expected = run.predict(TEXTS, top=3)
    assert exported.predict(TEXTS, top=3) == expected

    tokenizer, limits = run.tokenizer, exported.prediction_config
    ids = tokenizer.encode(TEXTS)
    source = np.zeros((4, max(map(len, ids))), np.int64)
    for row, tokens in zip(source, ids, strict=True):
        row[: len(tokens)] = tokens
    lengths = torch.tensor([len(tokens) for tokens in ids])
    model: Any = torch_reference.load(export)
    probabilities = torch_reference.label_probabilities(model, torch.tensor(source), lengths)
    decided = torch_reference.decide_labels(probabilities, limits.thresholds)
    for has, one in zip(decided.tolist(), expected, strict=True):
        assert {label for label, said in zip(run.classes, has, strict=True) if said} == labels_of(one)
    in_jax: Any = load_export(export)
    logits = np.asarray(in_jax(jnp.asarray(source, jnp.int32), jnp.asarray(lengths.numpy(), jnp.int32)), np.float64)
    np.testing.assert_allclose(probabilities.numpy(), 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert (decide_labels(probabilities.numpy(), limits.thresholds) == decided.numpy()).all()


def test_the_commands(run: Run, export: Path, tickets: Path, capsys) -> None:
    assert main(["evaluate", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert "micro f1" in said
    assert "label     precision  recall      f1  texts  threshold" in said
    assert main(["evaluate", str(run.folder), "--file", str(tickets)]) == 0
    assert "flatters the score" in capsys.readouterr().err
    assert main(["predict", str(export), *TEXTS[:2], "--top", "2"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(first["prediction"]) == {"billing", "delivery"}
    assert len(first["scores"]) == 2
    assert "alternatives" not in first
    assert (second["prediction"], len(second["alternatives"])) == (["crash"], 1)
    assert main(["predict", str(export), "x", "--threshold", "0"]) == 0
    assert len(json.loads(capsys.readouterr().out)["prediction"]) == 3
    assert main(["predict", str(export), "x", "--threshold", "2"]) == 2
    assert "threshold: expected a probability in [0, 1], got 2.0" in capsys.readouterr().err


def test_verify_knows_that_texts_have_several_labels(run: Run, export: Path) -> None:
    assert load_target(run.folder, None, None).has_labels
    assert load_target(export, None, None).has_labels
    assert load_target(None, "multilabel", None).has_labels
    assert not load_target(None, "classification", None).has_labels
    case = load_target(export, None, run.folder).case("float32")
    assert case.batch.labels.shape == (8, 3)


def test_a_page_without_predictions_takes_no_flags_about_texts(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--file", "missing.csv"], ["--limit", "3"], ["--split", "validation"]):
        assert main(["report", str(run.folder), *flags]) == 2
        assert "expected no flags but --output, since a page on several labels has no" in capsys.readouterr().err


def test_thresholds_that_do_not_fit_the_labels_are_refused(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "export")
    limits = tmp_path / "export" / "prediction.json"
    values = json.loads(limits.read_text("utf-8"))
    for thresholds, told in (([0.5], "expected 3 thresholds"), ([0.5, 2.0, 0.5], "thresholds: expected probabilities")):
        limits.write_text(json.dumps({**values, "thresholds": thresholds}), encoding="utf-8")
        with pytest.raises(UserError, match=told):
            load(tmp_path / "export")


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(config: TrainConfig, tmp_path: Path) -> None:
    options = replace(config, epochs=3, patience=3, balance_classes=True, label_smoothing=0.1)
    whole = train(options, tmp_path / "whole")
    shutil.copytree(whole.folder, tmp_path / "killed")
    steps = sorted(int(path.name) for path in (tmp_path / "killed/checkpoints").iterdir() if path.name.isdecimal())
    shutil.rmtree(tmp_path / "killed/checkpoints" / str(steps[-1]))
    again = train(options, tmp_path / "killed", resume=True)
    assert again.scores == whole.scores
    assert again.thresholds() == whole.thresholds()
    weights = get_weights(again.best_model())
    assert all(np.array_equal(weight, weights[name]) for name, weight in get_weights(whole.best_model()).items())


@pytest.mark.slow
def test_other_ways_to_compute_a_step_are_open_to_it(config: TrainConfig, tmp_path: Path) -> None:
    model = replace(config.model, scan_layers=True, remat="full", dtype="bfloat16", dropout=0.1)
    options = replace(config, model=model, gradient_accumulation_steps=2, balance_classes=True, epochs=1)
    scores: Any = train(options, tmp_path / "run").scores
    assert math.isfinite(scores["loss"])


@pytest.mark.slow
def test_it_starts_from_other_models(config: TrainConfig, run: Run, tickets: Path, tmp_path: Path, capsys) -> None:
    """From its own kind with the same labels the head is kept; from a classification with others it is new."""
    flags = ["--data.path", str(tickets), "--epochs", "1", "--batch.size", "8", "--batch.buckets", "1"]
    assert main(["train", "multilabel", *flags, "--pretrained", str(run.folder), "--run", str(tmp_path / "a")]) == 0
    assert "new: nothing" in capsys.readouterr().out.replace("\n", " ")
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"film {i},{'xy'[i % 2]}\n" for i in range(40)), encoding="utf-8")
    classes = train(replace(config, data=ClassificationData(path=(str(rows),)), epochs=1), tmp_path / "classes")
    flags += ["--pretrained", str(classes.folder)]
    assert main(["train", "multilabel", *flags, "--run", str(tmp_path / "b")]) == 0
    assert "new: head" in capsys.readouterr().out.replace("\n", " ")
    assert len(Run.load(tmp_path / "b").classes) == 3


@pytest.mark.slow
def test_transformers_and_onnx_runtime_read_it(config: TrainConfig, tmp_path: Path) -> None:
    """transformers takes a text with several labels from the problem type in the config."""
    model = replace(config.model, head_hidden="tanh", pooling="first", norm_first=False, final_norm=False)
    model = replace(model, positions="learned", embedding_norm=True, scale_embeddings=False, token_types=2)
    run = train(replace(config, model=model, epochs=1), tmp_path / "run")
    assert main(["export", str(run.folder), str(tmp_path / "hf"), "--format", "hf"]) == 0
    settings = json.loads((tmp_path / "hf" / "config.json").read_text("utf-8"))
    assert settings["problem_type"] == "multi_label_classification"
    assert list(settings["id2label"].values()) == list(run.classes)
    assert main(["export", str(run.folder), str(tmp_path / "onnx"), "--format", "onnx"]) == 0
    limits = json.loads((tmp_path / "onnx" / "prediction.json").read_text("utf-8"))
    assert limits["thresholds"] == list(run.thresholds())


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data set in ../shared/data/snips")
def test_the_slots_of_snips(config: TrainConfig, tmp_path: Path) -> None:
    """A small model learns from 1,500 of the commands which slots each has."""
    import gzip

    with gzip.open(SHARED / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = list(map(json.loads, file))
    lines = [json.dumps({"text": row["text"], "labels": list(row["target"]["slots"])}) for row in rows]
    path = tmp_path / "snips.jsonl"
    path.write_text("\n".join(lines[::9]) + "\n", encoding="utf-8")
    model = replace(config.model, d_model=64, num_heads=4, d_ff=128, max_length=48)
    batch = BatchConfig(size=32, max_source_length=48, buckets=2)
    options = replace(config, data=MultilabelData(path=(str(path),)), model=model, batch=batch, epochs=8)
    run = train(replace(options, tokenizer=TokenizerConfig(vocab_size=1_000)), tmp_path / "run")
    assert len(run.classes) > 30
    scores: Any = run.scores
    assert scores["micro_f1"] > 0.6
