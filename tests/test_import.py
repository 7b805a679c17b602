"""Importing checkpoints of transformers: files, tokenizers, the record, generation, the hub."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from checkpoints import (
    BART,
    BERT,
    CLS,
    FILM,
    GOOD,
    PAD,
    SEP,
    T5,
    THE,
    UNK,
    WAS,
    WORDS,
    change_settings,
    change_weights,
    make_checkpoint,
    weights_of,
    write_json,
)

from flax_transformer.cli import main as cli
from flax_transformer.config import BatchConfig, GenerationConfig
from flax_transformer.data.encoding import encode_examples, encode_sources
from flax_transformer.data.examples import Examples
from flax_transformer.data.tokenizer import load_tokenizer
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.predictor import Predictor
from flax_transformer.errors import UserError
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.huggingface.family import Settings, Weights
from flax_transformer.interop.huggingface.generation import read_generation
from flax_transformer.interop.huggingface.importing import import_checkpoint
from flax_transformer.interop.imported import save_imported


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_an_imported_classifier_predicts_as_any_export(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert cli.main(["import", str(bert), str(out)]) == 0
    assert "bert: " in capsys.readouterr().out
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    loaded = Exported.load(out)
    assert loaded.classes == ("poor", "good", "mixed")
    assert loaded.prediction_config.max_source_length == 16
    first, second = loaded.predict(["the film was good", "a poor film"])
    assert first.value in loaded.classes
    assert first.score != second.score


def test_the_record_names_origin_files_and_what_was_left_out(bert: Path, tmp_path: Path):
    change_weights(bert, lambda weights: weights.update({"bert.embeddings.position_ids": np.arange(16)[None]}))
    save_imported(tmp_path / "out", import_checkpoint(bert), "somebody/bert", "abc123")
    record = json.loads((tmp_path / "out" / "source.json").read_text(encoding="utf-8"))
    assert (record["origin"], record["revision"], record["model_type"]) == ("somebody/bert", "abc123", "bert")
    assert record["files"].keys() == {"config.json", "model.safetensors", "tokenizer.json"}
    assert record["ignored_tensors"] == ["bert.embeddings.position_ids"]


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_special_tokens_that_changed_since_are_refused(bert: Path, tmp_path: Path, change: str):
    """They decide what stands around a text, as much as the tokenizer does."""
    out = tmp_path / "out"
    save_imported(out, import_checkpoint(bert), "bert")
    before = Exported.load(out).fingerprint(Exported.load(out).model)
    path = out / "special_tokens.json"
    special = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, special | {"source_suffix": []}) if change == "edited" else path.unlink()
    with pytest.raises(UserError, match=r"special_tokens\.json: expected the file that was written with the weights"):
        Exported.load(out)
    (out / "prediction.json").unlink()
    if change == "edited":
        loaded = Exported.load(out)
        assert loaded.fingerprint(loaded.model)["special_tokens"] != before["special_tokens"]


def test_export_of_an_import_gives_the_same_files_back(bert: Path, tmp_path: Path):
    assert cli.main(["import", str(bert), str(tmp_path / "ours")]) == 0
    assert cli.main(["export", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--format", "hf"]) == 0
    assert same(weights_of(tmp_path / "theirs"), weights_of(bert))
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text(encoding="utf-8"))
    expected = {name: value for name, value in BERT.items() if name != "id2label"}
    assert {name: settings[name] for name in expected} == expected
    assert settings["id2label"] == {"0": "poor", "1": "good", "2": "mixed"}
    ours, theirs = (tmp_path / folder / "source.json" for folder in ("ours", "theirs"))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("names", [("poor", "good", "mixed"), ("toxic",)], ids=len)
def test_a_checkpoint_of_several_labels_is_one_here_and_comes_back(bert: Path, tmp_path: Path, names: tuple[str, ...]):
    """Also where there is only one label, which a text has or has not."""
    change_settings(bert, problem_type="multi_label_classification", id2label=dict(enumerate(names)))
    change_weights(
        bert,
        lambda weights: {name: w[: len(names)] if name.startswith("classifier") else w for name, w in weights.items()},
    )
    assert cli.main(["import", str(bert), str(tmp_path / "ours")]) == 0
    loaded = Exported.load(tmp_path / "ours")
    assert loaded.thresholds() == (0.5,) * len(names)
    first, second = loaded.predict(["the film was good", "a poor film"])
    assert isinstance(first.value, tuple)
    assert first.score != second.score
    assert cli.main(["export", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--format", "hf"]) == 0
    assert same(weights_of(tmp_path / "theirs"), weights_of(bert))
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text(encoding="utf-8"))
    assert settings["problem_type"] == "multi_label_classification"
    assert list(settings["id2label"].values()) == list(names)


# Files


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(bert: Path, dtype: str):
    import ml_dtypes

    stored = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    expected = {name: weight.astype(stored).astype(np.float32) for name, weight in weights_of(bert).items()}
    change_weights(bert, lambda weights: {name: weight.astype(stored) for name, weight in weights.items()})
    imported = import_checkpoint(bert)
    assert {weight.dtype for weight in imported.weights.values()} == {np.dtype(np.float32)}
    assert imported.record["stored_in"] == (dtype,)
    assert np.array_equal(imported.weights["head.weight"], expected["classifier.weight"])


def test_shards_are_read_and_a_missing_one_is_named(bert: Path):
    expected = import_checkpoint(bert).weights
    weights = weights_of(bert)
    (bert / "model.safetensors").unlink()
    shards = {f"model-0000{i + 1}-of-00002.safetensors": sorted(weights)[i::2] for i in range(2)}
    for file, names in shards.items():
        safetensors.numpy.save_file({name: weights[name] for name in names}, bert / file)
    index = {name: file for file, names in shards.items() for name in names}
    write_json(bert / "model.safetensors.index.json", {"weight_map": index})
    assert same(import_checkpoint(bert).weights, expected)
    (bert / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"expected model-00002-of-00002\.safetensors, one of the 2 files"):
        import_checkpoint(bert)


def test_old_names_of_norms_are_known(bert: Path):
    expected = import_checkpoint(bert).weights
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(weights: Weights) -> Weights:
        for new, name in old.items():
            weights = {key.replace(new, name): weight for key, weight in weights.items()}
        return weights

    change_weights(bert, rename)
    assert any(key.endswith("gamma") for key in weights_of(bert))
    assert same(import_checkpoint(bert).weights, expected)


def test_a_bare_encoder_keeps_its_pooler_and_has_no_classes(bert: Path, tmp_path: Path):
    change_settings(bert, architectures=["BertModel"])
    change_weights(
        bert, lambda weights: {key.removeprefix("bert."): w for key, w in weights.items() if "classifier" not in key}
    )
    imported = import_checkpoint(bert)
    assert (imported.config.num_classes, imported.config.head_hidden, imported.classes) == (0, "tanh", ())
    assert "hidden.weight" in imported.weights
    save_imported(tmp_path / "out", imported, "bert")
    model: Any = Exported.load(tmp_path / "out").model
    assert model(jnp.array([[CLS, FILM, SEP]])).shape == (1, 8)


def test_heads_of_other_tasks_are_left_out(bert: Path):
    change_settings(bert, architectures=["BertForMaskedLM"])
    change_weights(bert, lambda weights: weights.update({"cls.predictions.bias": np.zeros(13, np.float32)}))
    imported = import_checkpoint(bert)
    assert imported.record["ignored_tensors"] == ["classifier.bias", "classifier.weight", "cls.predictions.bias"]
    assert "head.weight" not in imported.weights


def test_tables_that_are_one_may_stand_twice_if_they_are_equal(tmp_path: Path):
    folder = make_checkpoint(tmp_path / "bart", BART)
    copy = "model.encoder.embed_tokens.weight"
    change_weights(folder, lambda weights: weights.update({copy: weights["model.shared.weight"].copy()}))
    import_checkpoint(folder)
    change_weights(folder, lambda weights: weights.update({"lm_head.weight": weights["model.shared.weight"] + 1}))
    with pytest.raises(UserError, match=r"expected the values of .*, with which it is one table"):
        import_checkpoint(folder)


@pytest.mark.parametrize(
    ("settings", "own_table", "scaled"),
    [
        ({}, False, True),  # T5 1.0
        ({"tie_word_embeddings": False}, True, False),  # T5 1.1 of transformers 4
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, True, False),  # T5 1.1 of transformers 5
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False, False),
    ],
)
def test_the_weights_say_whether_t5_has_a_projection_of_its_own(
    tmp_path: Path, settings: Settings, own_table: bool, scaled: bool
):
    folder = make_checkpoint(tmp_path / "t5", T5)
    change_settings(folder, **settings)
    if own_table:
        change_weights(folder, lambda weights: weights.update({"lm_head.weight": weights["shared.weight"] + 1}))
    config = import_checkpoint(folder).config
    assert (config.tie_embeddings, config.scale_logits) == ("inputs" if own_table else "all", scaled)


# Tokenizers


def rows_of(sequences: Any) -> list[list[int]]:
    ids, lengths = sequences.padded(np.arange(len(sequences.lengths)), int(sequences.lengths.max()), 0)
    return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]


def test_texts_stand_between_the_special_tokens_of_the_model(bert: Path, tmp_path: Path):
    save_imported(tmp_path / "out", import_checkpoint(bert), "bert")
    tokenizer = load_tokenizer(tmp_path / "out" / "tokenizer.json")
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (PAD, CLS, SEP, UNK)
    assert tokenizer.vocab_size == 13  # the rows of the table, which are more than the entries
    texts = ["the film was good", "", "the [SEP] film", "the film " * 9]
    whole, cut = (encode_sources(texts, tokenizer, longest, "cut") for longest in (16, 5))
    assert rows_of(whole.sequences)[:2] == [
        [CLS, THE, FILM, WAS, GOOD, SEP],
        [CLS, THE, UNK, UNK, UNK, FILM, SEP],  # a typed special token is text
    ]
    assert rows_of(cut.sequences) == [[CLS, THE, FILM, WAS, SEP], [CLS, THE, UNK, UNK, SEP], [CLS, THE, FILM, THE, SEP]]
    assert cut.cut == [True, False, True, True]
    labelled = encode_examples(Examples(texts[:1], [1]), tokenizer, BatchConfig(max_source_length=3), training=True)
    assert rows_of(labelled.sources) == [[CLS, THE, SEP]]


def test_it_encodes_as_the_tokenizers_library(bert: Path, tmp_path: Path):
    save_imported(tmp_path / "out", import_checkpoint(bert), "bert")
    ours = load_tokenizer(tmp_path / "out" / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(bert / "tokenizer.json"))
    theirs.no_padding()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[4:], 1 + n % 11)) for n in range(100)]
    for longest in (4, 7, 16):
        theirs.enable_truncation(longest)
        expected = [encoding.ids for encoding in theirs.encode_batch(texts)]
        assert rows_of(encode_sources(texts, ours, longest, "cut").sequences) == expected


@pytest.mark.parametrize(
    ("settings", "source", "target"),
    [
        (T5, [FILM, WAS, SEP], [PAD, FILM, WAS, SEP]),
        (BART, [CLS, FILM, WAS, SEP], [SEP, CLS, FILM, WAS, SEP]),
    ],
)
def test_targets_begin_as_the_decoder_does(tmp_path: Path, settings: Settings, source: list[int], target: list[int]):
    tokenizer = import_checkpoint(make_checkpoint(tmp_path / "model", settings)).tokenizer
    assert tokenizer is not None
    encoded = encode_examples(Examples(["film was"], ["film was"]), tokenizer, BatchConfig(), training=True)
    assert rows_of(encoded.sources) == [source]
    assert rows_of(encoded.targets) == [target]


def test_a_model_without_its_tokenizer_is_one_of_ids(tmp_path: Path):
    folder = make_checkpoint(tmp_path / "t5", T5)
    (folder / "tokenizer.json").unlink()
    assert cli.main(["import", str(folder), str(tmp_path / "out"), "--bare"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors", "source.json"}


# Generation


def test_generation_settings_become_fields_and_the_others_are_listed():
    fields, left = read_generation(
        {"num_beams": 4, "length_penalty": 2.0, "max_length": 142, "forced_bos_token_id": 7, "no_repeat_ngram_size": 3}
    )
    assert fields == {
        "strategy": "beam",
        "beam_width": 4,
        "length_penalty": "mean",
        "length_alpha": 2.0,
        "early_stopping": False,
        "prefix": [7],
        "max_new_tokens": 141,
    }
    assert left == {"no_repeat_ngram_size": 3}
    assert read_generation({"num_beams": 1, "top_k": 50, "length_penalty": 1.0}) == ({}, {})


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
@pytest.mark.sample(1)
def test_rows_of_the_table_without_a_token_are_not_generated(tmp_path: Path, strategy: Any):
    folder = make_checkpoint(tmp_path / "t5", T5, tie_word_embeddings=False)
    direction = np.random.default_rng(0).standard_normal(8).astype(np.float32)

    def prefer_them(weights: Weights) -> None:
        own = weights["shared.weight"] + 1
        own[len(WORDS) :] = 100 * direction, -100 * direction
        weights["lm_head.weight"] = own

    change_weights(folder, prefer_them)
    save_imported(tmp_path / "out", import_checkpoint(folder), "t5")
    trained = Exported.load(tmp_path / "out")
    how = GenerationConfig(4, min_new_tokens=4, strategy=strategy, beam_width=2)
    model: Any = trained.model
    source, lengths = np.array([[FILM, WAS, SEP]]), np.array([3])
    assert (np.asarray(generate(model, source, lengths, how).tokens) >= len(WORDS)).any()
    predictor = Predictor(model, trained.tokenizer, BatchConfig(1), how)
    generated: Any = predictor.start(source, lengths, np.array([0]))
    assert (np.asarray(generated.tokens) < len(WORDS)).all()
    with pytest.raises(UserError, match="prefix: expected token ids below the vocabulary size 11"):
        Predictor(model, trained.tokenizer, BatchConfig(1), replace(how, prefix=(12,))).start(source, lengths, lengths)


# The hub


def test_a_model_of_the_hub_is_recorded_with_its_commit(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **named: Any) -> str:
        asked.update(named, name=name)
        return str(shutil.copytree(bert, tmp_path / "snapshots" / "0123abcd"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert cli.main(["import", "somebody/bert", str(tmp_path / "out"), "--revision", "main"]) == 0
    assert (asked["name"], asked["revision"]) == ("somebody/bert", "main")
    assert not any(pattern.endswith("bin") for pattern in asked["allow_patterns"])
    record = json.loads((tmp_path / "out" / "source.json").read_text(encoding="utf-8"))
    assert (record["origin"], record["revision"]) == ("somebody/bert", "0123abcd")


def test_a_name_that_nobody_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("no\nsuch thing")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert cli.main(["import", "somebody/horse", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "somebody/horse: expected a folder, or a model that the hub or its cache has" in error
    assert error.count("\n") == 1
    assert cli.main(["import", str(tmp_path / "absent"), str(tmp_path / "out")]) == 2
    assert "expected a folder with a checkpoint, but there is none" in capsys.readouterr().err
