"""Checkpoints that cannot be imported: one line for each says why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import BART, WORDS, change_settings, change_weights, make_checkpoint, write_json

from flax_transformer.cli import main as cli
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.family import Settings, Weights
from flax_transformer.interop.huggingface.importing import import_checkpoint


def _with(**changed: Any) -> Callable[[Path], None]:
    return lambda folder: change_settings(folder, **changed)


def _weights(change: Callable[[Weights], Any]) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, change)


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _damaged(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "spiece.model")


def _two_sentencepieces(folder: Path) -> None:
    _without_tokenizer(folder)
    (folder / "source.spm").touch()


def _larger_tokenizer(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    values["model"]["vocab"] |= {f"word{i}": i for i in range(len(WORDS), 14)}
    write_json(folder / "tokenizer.json", values)


# What is wrong with a BERT -> what makes it so, and the line that says it.
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (_without_config, "there is no config.json in it"),
    "a folder of this project": (
        lambda folder: write_json(folder / "config.json", {"architecture": "classifier"}),
        "it is a folder of this project, which needs no import",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "expected model.safetensors or"),
    "only pickle": (
        _only_pickle,
        "got pytorch_model.bin, a format that can hold code; convert it: python .*t.BertForSequ",
    ),
    "damaged": (_damaged, "expected a whole safetensors file"),
    "unknown family": (_with(model_type="horse"), "expected one of bert, .*got 'horse'"),
    "decoder-only": (
        _with(model_type="llama", architectures=["LlamaForCausalLM"]),
        "got 'llama', which is decoder-only",
    ),
    "disentangled": (_with(model_type="deberta-v2"), "got 'deberta-v2', whose attention is disentangled"),
    "a decoder": (_with(is_decoder=True), "is_decoder: expected False of a bert, got True"),
    "used as a decoder": (_with(architectures=["BertLMHeadModel"]), "BertLMHeadModel, which is used as a decoder"),
    "relative keys": (
        _with(position_embedding_type="relative_key"),
        "expected 'absolute' of a bert, got 'relative_key'",
    ),
    "quantized": (_with(quantization_config={"quant_method": "gptq"}), r"got quantized ones \(gptq\)"),
    "unknown activation": (_with(hidden_act="mish"), "hidden_act: expected one of gelu, .*, got 'mish'"),
    "regression": (_with(id2label={"0": "score"}), "expected at least two classes .* got None with 1"),
    "stated regression": (_with(problem_type="regression"), "expected at least two classes .* got 'regression' with 3"),
    "ids with a gap": (
        _with(id2label={"0": "a", "2": "b", "3": "c"}),
        "id2label: expected the ids from 0 to 2 as keys",
    ),
    "ids below 0": (_with(id2label={"-1": "a", "0": "b", "1": "c"}), "id2label: expected the ids from 0 to 2 as keys"),
    "equal names": (_with(id2label={"0": "a", "1": "a", "2": "b"}), "id2label: expected different names, got a, a, b"),
    "number of classes": (
        _with(id2label={"0": "a", "1": "b"}),
        r"classifier.weight: expected shape \(2, 8\) by config.json, got \(3, 8\)",
    ),
    "heads": (_with(num_attention_heads=3), "num_heads: expected a divisor of d_model=8, got 3"),
    "another width": (_with(hidden_size=10), r"expected shape .* by config.json, got"),
    "a missing layer": (_with(num_hidden_layers=3), "expected the tensor bert.encoder.layer.2.* but it is missing"),
    "a layer too many": (_with(num_hidden_layers=1), "layer.1.* is not part of the model that config.json describes"),
    "a missing tensor": (
        _weights(lambda weights: {key: w for key, w in weights.items() if "pooler.dense.bias" not in key}),
        r"expected the tensor bert.pooler.dense.bias of shape \(8,\), but it is missing",
    ),
    "an unknown tensor": (
        _weights(lambda weights: weights.update({"bert.horse": np.zeros(1, np.float32)})),
        "bert.horse: this tensor is not part of a bert",
    ),
    "two values of one": (
        _weights(lambda weights: weights.update({"embeddings.LayerNorm.weight": np.zeros(8, np.float32)})),
        "expected the values of .*, with which it is one table",
    ),
    "no tokenizer": (_without_tokenizer, "expected tokenizer.json, got spiece.model; make it: python"),
    "two tokenizers": (_two_sentencepieces, "got two sentencepiece files, .* import the bare model with --bare"),
    "a larger tokenizer": (_larger_tokenizer, "expected ids below 13, the rows of the model's token table, got 13"),
    "a broken tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}", encoding="utf-8"),
        "expected a tokenizer.json of the tokenizers library",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_refused_in_one_line(
    bert: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    change, _ = REFUSED[name]
    change(bert)
    assert cli.main(["import", str(bert), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {bert}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=REFUSED[name][1]):
        import_checkpoint(bert)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder_attention_heads": 4}, "encoder_attention_heads and decoder_attention_heads to be equal"),
        ({"decoder_ffn_dim": 16}, "encoder_ffn_dim and decoder_ffn_dim to be equal"),
        ({"eos_token_id": [2, 3]}, "eos_token_id: expected one id"),
        ({"decoder_start_token_id": None}, "expected the id of the token that the decoder begins with"),
        ({"architectures": ["BartForSequenceClassification"]}, "expected BartForConditionalGeneration, got BartForSeq"),
    ],
)
def test_a_generator_that_has_no_place_here_is_refused(tmp_path: Path, changed: Settings, message: str):
    folder = make_checkpoint(tmp_path / "bart", BART)
    change_settings(folder, **changed)
    with pytest.raises(UserError, match=message):
        import_checkpoint(folder)


def test_sinusoids_that_are_none_are_refused(tmp_path: Path):
    pegasus = BART | {"model_type": "pegasus", "architectures": ["PegasusForConditionalGeneration"]}
    folder = make_checkpoint(tmp_path / "pegasus", pegasus)
    import_checkpoint(folder)
    table = "model.encoder.embed_positions.weight"
    change_weights(folder, lambda weights: weights.update({table: -weights[table]}))
    with pytest.raises(UserError, match="expected sinusoids, first all sines and then all cosines"):
        import_checkpoint(folder)


def test_a_taken_folder_is_refused_before_the_work(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(bert)
    (tmp_path / "out").write_text("precious", encoding="utf-8")
    assert cli.main(["import", str(bert), str(tmp_path / "out")]) == 2
    assert "it exists; name another" in capsys.readouterr().err
