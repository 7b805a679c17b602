"""JSON files that a user has edited: another editor's encoding and line ends change nothing, a key twice is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import torch_reference
from flax_transformer.config import TrainConfig, load_config, load_json, save_config
from flax_transformer.data.constraint import read_schema
from flax_transformer.errors import UserError
from flax_transformer.interop.exported import Exported
from flax_transformer.presets import PRESETS

ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"Straße": {"type": "string"}}}


def save_anew(path: Path, encoding: str) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values, ensure_ascii=False), encoding=encoding, newline="\r\n")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_export_that_an_editor_saved_anew_is_the_same(classifier: Path, encoding: str, tmp_path: Path):
    folder = shutil.copytree(classifier, tmp_path / "export")
    for name in ("config.json", "classes.json", "prediction.json"):
        save_anew(folder / name, encoding)
    old, new = Exported.load(classifier), Exported.load(folder)
    assert (new.model_config, new.classes, new.prediction_config) == (
        old.model_config,
        old.classes,
        old.prediction_config,
    )
    assert torch_reference.load(folder).config == old.model_config


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_configs_and_schemas_of_any_editor_are_read(encoding: str, tmp_path: Path):
    config = PRESETS["classification"]["default"]
    save_config(config, tmp_path / "config.json")
    save_anew(tmp_path / "config.json", encoding)
    assert load_config(TrainConfig, tmp_path / "config.json") == config
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA, ensure_ascii=False), encoding=encoding)
    assert read_schema(tmp_path / "schema.json") == SCHEMA


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"epochs": 3, "seed": 1, "epochs": 5}', "something else .the key 'epochs' stands there twice"),
        (b'{"model": {"d_model": 8, "d_model": 9}}', "something else .the key 'd_model' stands there twice"),
        (b"\xef\xbb\xbf", "something else"),
        (b"\xff\xfe{", "something else"),
        (b"{'epochs': 3}", "something else"),
        (b'{"epochs": 3,}', "something else"),
        (b"[" * 100_000, "something else"),
    ],
)
def test_json_that_cannot_be_meant_is_refused(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=f"config.json: expected a config, got {message}"):
        load_json(tmp_path / "config.json", "a config")
