"""Runs and exports as folders: whole or not there at all, equal in what they predict, and refused where changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors

from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    ModelConfig,
    Seq2SeqData,
    TokenizerConfig,
    TrainConfig,
)
from flax_transformer.data.fingerprint import load_record
from flax_transformer.errors import UserError
from flax_transformer.interop.export import load_export, save_export
from flax_transformer.interop.exported import Exported
from flax_transformer.outputs import check_new_file, check_new_folder, whole_folder, write_whole
from flax_transformer.training.loop import train
from flax_transformer.training.run import Run, load_trained

ROOT = Path(__file__).parent.parent
# The run cuts at 12 tokens and generates 5; the model itself could do with 64.
BATCH = BatchConfig(size=8, buckets=1, max_source_length=12, max_target_length=6)
MODEL = ModelConfig(d_model=8, num_heads=2, d_ff=12, num_encoder_layers=1, num_decoder_layers=1, max_length=64)
# Past the twelfth token another word decides.
TEXTS = ["the good film", "good " * 12 + "poor " * 40, "poor", "poor " * 11 + "good " * 20]


@pytest.fixture(scope="module")
def classifier(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=replace(MODEL, architecture="classifier", dropout=0.0),
        batch=BATCH,
        epochs=2,
    )
    return train(config, str(tmp_path_factory.mktemp("runs") / "classifier")).run


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("pairs")
    pairs = [{"source": f"say {number}", "target": f"{number}"} for number in range(40)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    config = TrainConfig(
        data=Seq2SeqData(path=(str(path),)), tokenizer=TokenizerConfig(vocab_size=300), model=MODEL, batch=BATCH
    )
    return train(config, folder / "run").run


@pytest.fixture
def copied(classifier: Run, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(classifier.folder, tmp_path / "run"))


# One face


@pytest.mark.slow
def test_an_export_predicts_exactly_what_its_run_predicts(classifier: Run, generator: Run, tmp_path: Path):
    """Texts longer than the run's limit among them, and outputs that reach it."""
    for number, (run, texts) in enumerate(((classifier, TEXTS), (generator, ["say 7", "say 12", "7"]))):
        exported = run.export(str(tmp_path / str(number)))
        predictions = run.predict(texts)
        assert exported.predict(texts) == predictions
        assert exported.prediction_config == replace(
            run.prediction_config,
            tokenizer_sha256=exported.prediction_config.tokenizer_sha256,
            classes_sha256=exported.prediction_config.classes_sha256,
        )
        loaded = load_trained(str(exported.folder))
        assert isinstance(loaded, Exported)
        assert loaded.predict(texts) == predictions
        assert isinstance(load_trained(run.folder), Run)
    assert {prediction.value for prediction in classifier.predict(TEXTS)} <= {"good", "poor"}
    assert not any(prediction.complete for prediction in generator.predict(["say 7"])), "the limit is not reached"


@pytest.mark.slow
def test_the_limit_of_the_run_is_seen_in_the_test_above(classifier: Run, tmp_path: Path):
    """Without it an export predicts other things, so equality there says something."""
    exported = classifier.export(tmp_path / "export")
    (exported.folder / "prediction.json").unlink()
    unlimited = Exported.load(exported.folder)
    assert unlimited.prediction_config.max_source_length == MODEL.max_length
    assert [one.score for one in unlimited.predict(TEXTS)] != [one.score for one in classifier.predict(TEXTS)]
    assert unlimited.predict(TEXTS[:1]) == classifier.predict(TEXTS[:1])


def test_no_texts_give_no_predictions_and_one_text_is_no_list(classifier: Run):
    assert classifier.predict([]) == []
    with pytest.raises(UserError, match=r"expected a list of texts, got the single text 'good'; write \[text\]"):
        classifier.predict("good")


# Whole or not there


def test_an_export_that_is_killed_leaves_nothing_in_the_way(classifier: Run, tmp_path: Path):
    """Killed by the system while its second file is written."""
    directory = tmp_path / "export"
    program = (
        "import os, sys, safetensors.numpy\n"
        "from flax_transformer.training.run import Run\n"
        "safetensors.numpy.save_file = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "Run.load(sys.argv[1]).export(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, str(classifier.folder), str(directory)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    assert not directory.exists()
    exported = classifier.export(directory)
    assert exported.predict(TEXTS) == classifier.predict(TEXTS)


def test_an_export_is_readable_by_all_and_marked_as_pytorchs(classifier: Run, tmp_path: Path):
    exported = classifier.export(tmp_path / "made" / "on the way")
    files = {path.name: oct(path.stat().st_mode & 0o777) for path in exported.folder.iterdir()}
    names = ("classes.json", "config.json", "model.safetensors", "prediction.json", "tokenizer.json")
    assert files == dict.fromkeys(names, "0o644")
    with safetensors.safe_open(exported.folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_model_alone_is_an_export_too(classifier: Run, tmp_path: Path):
    model = classifier.best_model()
    save_export(tmp_path / "bare", model)
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"config.json", "model.safetensors"}
    assert load_export(str(tmp_path / "bare")).config == model.config
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_trained(tmp_path / "bare")


def test_saving_a_run_touches_nothing_beside_it(classifier: Run, tmp_path: Path):
    """A neighbour whose name is that of the run and something more was deleted once."""
    for name in ("run.new", "run.tmp", ".run", ".run.new", "run.damaged"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    record = load_record(classifier.folder)
    assert record is not None
    replace(classifier, folder=tmp_path / "run").save(record)
    assert len(list(tmp_path.glob("*/precious"))) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".run", ".run.new", "run", "run.damaged", "run.new", "run.tmp",
    ]  # fmt: skip
    assert Run.load(tmp_path / "run").classes == classifier.classes


def test_what_is_there_is_never_written_over(tmp_path: Path):
    """Files, folders with content, links that lead nowhere, and names that cannot be."""
    file, full, link, to_folder = (tmp_path / name for name in ("file", "full", "link", "to_folder"))
    file.write_text("x", encoding="utf-8")
    (full / "x").mkdir(parents=True)
    link.symlink_to(tmp_path / "nowhere")
    to_folder.symlink_to(full)
    for path in (file, full, link, to_folder, file / "x", file / "x" / "y", tmp_path / ("n" * 300), Path("a\0b")):
        with pytest.raises(UserError):
            check_new_folder(path)
        with pytest.raises(UserError), whole_folder(path):
            pytest.fail("there is nothing to fill")
        with pytest.raises(UserError):
            check_new_file(path)
    with pytest.raises(UserError, match=r"expected its folder .* to exist"):
        check_new_file(tmp_path / "absent" / "x")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "full", "link", "to_folder"}
    check_new_file(tmp_path / "new")
    check_new_folder(tmp_path / "new" / "in" / "new")
    with pytest.raises(UserError, match="got ~ as the shell left it"):  # --run=~/run, which shells do not expand
        check_new_folder(Path("~/run"))


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on a full disk."""
    write_whole(tmp_path / "new" / "figures.json", "old")
    monkeypatch.setattr(Path, "replace", lambda *_: os.write(-1, b""))
    with pytest.raises(UserError, match=r"figures\.json: expected to write it, but could not \(Bad file descriptor\)"):
        write_whole(tmp_path / "new" / "figures.json", "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figures.json"]
    assert (tmp_path / "new" / "figures.json").read_text() == "old"


# Changed since


def swap(values: list[Any]) -> list[Any]:
    return values[::-1]


CHANGES: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "one class too many": ("classes.json", lambda names: [*names, "third"], "expected 2 different names"),
    "one class too few": ("classes.json", lambda names: names[:1], "expected 2 different names"),
    "no class": ("classes.json", lambda names: [], "expected 2 different names"),
    "a string": ("classes.json", lambda names: "go", "expected a JSON list of class names, got str"),
    "a dict": ("classes.json", lambda names: dict(enumerate(names)), "expected a JSON list of class names, got dict"),
    "numbers": ("classes.json", lambda names: [0, 1], "expected a JSON list of class names"),
    "one name twice": ("classes.json", lambda names: ["good", "good"], "expected 2 different names"),
    "exchanged names": ("classes.json", swap, "it was changed since"),
    "another name": ("classes.json", lambda names: ["good", "bad"], "it was changed since"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_classes_are_refused(copied: Path, change: str, tmp_path: Path):
    name, changed, message = CHANGES[change]
    exported = Run.load(copied).export(tmp_path / "export").folder
    for folder in (copied, exported):
        path = folder / name
        path.write_text(json.dumps(changed(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            load_trained(folder)


def exchange_ids(tokenizer: dict[str, Any], one: str, other: str) -> dict[str, Any]:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    ids = {token["content"]: token for token in tokenizer["added_tokens"]}
    if one in ids and other in ids:
        ids[one]["id"], ids[other]["id"] = ids[other]["id"], ids[one]["id"]
        tokenizer["added_tokens"].sort(key=lambda token: token["id"])
    return tokenizer


@pytest.mark.parametrize(("one", "other"), [("[BOS]", "[EOS]"), ("[PAD]", "[EOS]"), ("a", "b")])
def test_a_tokenizer_with_exchanged_ids_is_refused(copied: Path, tmp_path: Path, one: str, other: str):
    exported = Run.load(copied).export(tmp_path / "export").folder
    for folder in (copied, exported):
        path = folder / "tokenizer.json"
        changed = exchange_ids(json.loads(path.read_text(encoding="utf-8")), one, other)
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(UserError, match=r"tokenizer\.json: expected the (tokenizer of this model|file that was)"):
            load_trained(folder)


def test_the_tokenizer_of_another_run_is_refused(copied: Path, generator: Run):
    """Also one of the same size: both have 300 entries at most."""
    shutil.copy(generator.folder / "tokenizer.json", copied / "tokenizer.json")
    with pytest.raises(UserError, match=r"expected the (tokenizer of this model|file that was written)"):
        Run.load(copied)
    (copied / "prediction.json").unlink()
    with pytest.raises(UserError, match="expected the tokenizer of this model"):
        Run.load(copied)


def test_folders_of_version_0_1_0_are_read(copied: Path, classifier: Run, tmp_path: Path):
    exported = Run.load(copied).export(tmp_path / "export").folder
    for folder in (copied, exported):
        (folder / "prediction.json").unlink()
        assert load_trained(folder).predict(TEXTS[:1]) == classifier.predict(TEXTS[:1])


@pytest.mark.parametrize("content", ["", "[]", '{"max_source_length": 0, "max_new_tokens": 1}', '{"shoe": 1}'])
def test_damaged_limits_are_refused(copied: Path, content: str):
    (copied / "prediction.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"prediction\.json|max_source_length"):
        Run.load(copied)


def test_a_run_is_no_export_and_the_reverse(classifier: Run, tmp_path: Path):
    exported = classifier.export(tmp_path / "export")
    with pytest.raises(UserError, match="expected a run, got an export"):
        Run.load(exported.folder)
    with pytest.raises(UserError, match="expected the folder of a run or of an export, but there is none"):
        load_trained(tmp_path / "absent")
