"""Flags of training: the shortest command of each task, and files as a shell hands them over."""

from pathlib import Path

import pytest

from flax_transformer.cli.train import parse_train_flags
from flax_transformer.config import ClassificationData, ModelConfig, Seq2SeqData, save_config
from flax_transformer.errors import UserError
from flax_transformer.presets import PRESETS


@pytest.mark.parametrize("task", PRESETS)
def test_no_flag_at_all_is_the_default_preset(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config, folder, resume, _ = parse_train_flags(task, [])
    assert config == PRESETS[task]["default"]
    assert folder == Path("runs", f"{task}-default")
    assert not resume


@pytest.mark.parametrize(("task", "kind"), [("classification", ClassificationData), ("seq2seq", Seq2SeqData)])
def test_several_files_and_how_they_are_read(task: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a shell spells out ``--data.path train-*.csv``."""
    monkeypatch.chdir(tmp_path)
    flags = ["--data.path", "train-1.csv", "train-2.csv", "--data.test-path", "test.csv", "--data.delimiter", "tab"]
    config, *_ = parse_train_flags(
        task, [*flags, "--data.encoding", "cp1252", "--data.numbers-as-text", "--epochs", "2"]
    )
    assert config.data == kind(
        path=("train-1.csv", "train-2.csv"),
        test_path=("test.csv",),
        delimiter="\t",
        encoding="cp1252",
        numbers_as_text=True,
    )
    assert config.epochs == 2


@pytest.mark.parametrize(
    ("task", "flags", "told"),
    [
        ("manifests", ["--r-drop", "3"], "--r-drop: expected --model.dropout above 0 too"),
        ("imdb", ["--frozen-layers", "1"], "--frozen-layers: expected --pretrained FOLDER too"),
        ("imdb", ["--pretrained", "export", "--tokenizer.vocab-size", "500"], "--tokenizer: expected no flags of it"),
        (
            "imdb",
            ["--tokenizer.path", "tokenizer.json", "--tokenizer.vocab-size", "500"],
            "--tokenizer: expected no other flags of it",
        ),
        ("imdb", ["--run"], "argument --run: expected one argument"),
    ],
)
def test_flags_that_would_change_nothing_are_refused(
    task: str, flags: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("export").mkdir()
    save_config(ModelConfig("classifier", max_length=512), Path("export", "config.json"))
    with pytest.raises(UserError, match=told):
        parse_train_flags(task, flags)


def test_what_goes_with_such_flags_makes_them_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("export").mkdir()
    save_config(ModelConfig("classifier", max_length=512), Path("export", "config.json"))
    config, *_ = parse_train_flags("imdb", ["--pretrained", "export", "--frozen-layers", "1", "--r-drop", "3"])
    assert (config.frozen_layers, config.r_drop) == (1, 3)
    config, *_ = parse_train_flags("manifests", ["--r-drop", "3", "--model.dropout", "0.1"])
    assert config.r_drop == 3
