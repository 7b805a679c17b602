"""Training from weights that are there already: what is kept, what is new, and what is refused."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import BERT, make_checkpoint

from flax_transformer import load, train
from flax_transformer.cli.main import main
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    TrainConfig,
)
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.huggingface.importing import import_checkpoint
from flax_transformer.interop.imported import export_huggingface, save_imported
from flax_transformer.interop.state_dict import get_weights
from flax_transformer.training.pretrained import start_from
from flax_transformer.training.run import Run
from flax_transformer.training.step import TrainStep

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(classifier_run: Run) -> Run:
    return classifier_run


@pytest.fixture(scope="module")
def three_classes(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "three.csv"
    path.write_text(reviews.read_text(encoding="utf-8") + "so so,middling\n" * 12, encoding="utf-8")
    return path


def finetuning(run: Run, **changes) -> TrainConfig:
    return replace(run.config, pretrained=str(run.folder), **changes)


@pytest.mark.parametrize("fields", [{}, {"scan_layers": True}, {"dtype": "bfloat16"}, {"remat": "full"}], ids=repr)
@pytest.mark.sample(1)
def test_weights_are_kept_bit_for_bit_and_the_head_by_its_classes(run: Run, fields: dict):
    trained = get_weights(run.model)
    config = finetuning(run, model=replace(run.config.model, **fields))
    step = TrainStep(config, 10)
    state, new, left_out = start_from(run, config, run.classes, step)
    assert new == left_out == []
    kept = get_weights(step.model(state))
    assert kept.keys() == trained.keys()
    assert all(np.array_equal(kept[name], trained[name]) for name in trained)

    config = replace(config, model=replace(config.model, num_classes=3))
    step = TrainStep(config, 10)
    state, new, left_out = start_from(run, config, ("good", "middling", "poor"), step)
    assert new == ["head"]
    assert left_out == []
    changed = get_weights(step.model(state))
    assert {name for name in trained if not np.array_equal(changed[name], trained[name])} == {
        "head.kernel",
        "head.bias",
    }


def test_other_names_of_as_many_classes_take_a_new_head(run: Run):
    step = TrainStep(finetuning(run), 10)
    state, new, left_out = start_from(run, finetuning(run), ("bad", "fine"), step)
    assert new == ["head"]
    assert left_out == []
    assert not np.array_equal(get_weights(step.model(state))["head.kernel"], get_weights(run.model)["head.kernel"])


@pytest.mark.slow
def test_a_run_an_export_and_other_data_are_a_start(run: Run, three_classes: Path, tmp_path: Path, capsys):
    run.export(tmp_path / "export")
    data = ["--data.path", str(three_classes), "--batch.size", "8", "--epochs", "1"]
    scores = []
    for source in (run.folder, tmp_path / "export"):
        folder = tmp_path / f"from-{source.name}"
        assert main(["train", "classification", *data, "--pretrained", str(source), "--run", str(folder)]) == 0
        assert f"starting from the weights in {source}; new: head" in capsys.readouterr().out.replace("\n", " ")
        tuned = Run.load(folder)
        assert tuned.classes == ("good", "middling", "poor")
        assert tuned.tokenizer.encode(["a loud film"]) == run.tokenizer.encode(["a loud film"])
        scores.append(tuned.scores)
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on_to_the_same_bits(run: Run, tmp_path: Path):
    whole = train(finetuning(run, epochs=2), tmp_path / "whole")
    shutil.copytree(whole.folder, tmp_path / "killed")
    steps = sorted(int(path.name) for path in (tmp_path / "killed/checkpoints").iterdir() if path.name.isdecimal())
    for killed_before in (steps[-1:], steps):  # before its end; before its first checkpoint
        for step in killed_before:
            shutil.rmtree(tmp_path / "killed/checkpoints" / str(step), ignore_errors=True)
        again = train(finetuning(run, epochs=2), tmp_path / "killed", resume=True)
        weights = get_weights(again.best_model())
        assert all(np.array_equal(weight, weights[name]) for name, weight in get_weights(whole.best_model()).items())


@pytest.mark.slow
def test_on_eight_devices_the_weights_become_those_of_one(run: Run, reviews: Path, tmp_path: Path):
    weights = []
    for devices, mesh in ((1, []), (8, ["--mesh.fsdp", "4", "--mesh.model", "2"])):
        folder = tmp_path / f"on-{devices}"
        flags = ["--data.path", str(reviews), "--pretrained", str(run.folder), "--run", str(folder)]
        environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        flags += ["--batch.size", "8", "--epochs", "2", *mesh]
        command = [sys.executable, "train_flax.py", "classification", *flags]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
        weights.append(get_weights(Run.load(folder).best_model()))
    for name, weight in weights[0].items():
        if name.endswith("key.bias"):
            continue  # its gradient is 0 but for rounding, of which Adam makes whole steps
        np.testing.assert_allclose(weights[1][name], weight, rtol=0, atol=1e-6, err_msg=name)
    assert not np.array_equal(weights[0]["head.kernel"], get_weights(run.model)["head.kernel"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--pretrained", "RUN", "--model.d-model", "32"], "model.d_model: expected 8, as the model in"),
        (["--pretrained", "RUN", "--model.no-norm-first"], "model.norm_first: expected True, as the model in"),
        (["--pretrained", "RUN", "--batch.max-source-length", "100"], "model.max_length"),
        (["--pretrained", "nowhere"], "nowhere/config.json: expected a config in JSON"),
        (["--preset", "finetune"], "--preset finetune: expected --pretrained FOLDER too"),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused(
    flags: list[str], expected: str, run: Run, reviews: Path, tmp_path: Path, capsys
):
    flags = [str(run.folder) if flag == "RUN" else flag for flag in flags]
    run_flags = ["--data.path", str(reviews), "--run", str(tmp_path / "new")]
    assert main(["train", "classification", *run_flags, *flags]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_model_of_another_kind_is_refused(run: Run, tmp_path: Path, capsys):
    assert main(["train", "manifests", "--pretrained", str(run.folder), "--run", str(tmp_path / "new")]) == 2
    assert "the task 'manifests' needs a seq2seq, got a classifier" in capsys.readouterr().err


def test_the_record_of_an_import_stays_with_what_is_trained_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the families whose models have the same form, it tells which one is written."""
    roberta = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"]}
    settings = BERT | roberta | {"type_vocab_size": 1, "pad_token_id": 0}
    save_imported(tmp_path / "imported", import_checkpoint(make_checkpoint(tmp_path / "theirs", settings)), "somebody")
    imported = Exported.load(tmp_path / "imported")
    batch = BatchConfig(max_source_length=8)
    config = TrainConfig(data=ClassificationData(), model=imported.config, batch=batch, pretrained=str(imported.folder))
    run = Run(tmp_path / "run", config, imported.tokenizer, imported.classes)
    run.save({})
    second = replace(run, folder=tmp_path / "second", config=replace(config, pretrained=str(run.folder)))
    second.save({})
    monkeypatch.setattr(Run, "best_model", lambda _: imported.best_model())
    export = second.export(tmp_path / "export")
    record = (imported.folder / "source.json").read_bytes()
    for trained in (run, second, export):
        assert (trained.folder / "source.json").read_bytes() == record
        folder = tmp_path / f"hf-{trained.folder.name}"
        assert export_huggingface(trained, folder) == "XLMRobertaForSequenceClassification"


def test_the_python_face_takes_the_config_of_what_it_starts_from(run: Run, tmp_path: Path):
    config = TrainConfig(
        data=run.config.data,
        model=load(run.folder).model_config,
        batch=run.config.batch,
        pretrained=str(run.folder),
    )
    assert train(config, tmp_path / "tuned").classes == run.classes
