"""Exports for CTranslate2: the tokens of our generator, what is refused, and mistakes that must show."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served_models import DOCS, MODEL, OWN, T5, TEXTS, TOKENIZER, example, numpy_weights, random_export, random_torch

from flax_transformer.cli import main as cli
from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.interop import ctranslate2_export, ctranslate2_spec
from flax_transformer.interop.ctranslate2_export import save_ctranslate2, token_names
from flax_transformer.interop.exported import Exported
from flax_transformer.parity.against_ctranslate2 import Served, checks_of
from flax_transformer.parity.cases import Sizes
from flax_transformer.parity.pair import Pair
from flax_transformer.parity.targets import Target
from torch_reference.decoding.generate import generate, read_tokens

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs CTranslate2, to read what is exported for it")

LENGTHS = np.array([30, 7, 1, 19])
VARIANTS: dict[str, dict[str, Any]] = {
    "pre-LN": {},
    "post-LN": {"norm_first": False, "final_norm": False},
    "post-LN with last norms": {"norm_first": False},
    "pre-LN without last norms": {"final_norm": False},
    "relu": {"activation": "relu"},
    "gelu by tanh": {"activation": "gelu_tanh"},
    "silu": {"activation": "silu"},
    "gated": {"gated": True},
    "learned": {"positions": "learned", "position_offset": 2, "embedding_norm": True},
    "halves": {"positions": "sinusoidal_halves"},
    "rope": {"positions": "rope"},
    "rope in narrow heads": {"positions": "rope", "head_width": 6},
    "no positions": {"positions": "none"},
    "T5": T5 | {"scale_embeddings": False, "scale_logits": True},
    "T5 with few buckets": T5 | {"relative_buckets": 8, "relative_max_distance": 20, "head_width": 5},
    "no biases": {"bias": False},
    "RMS norms": {"norm": "rms", "embedding_norm": True},
    "epsilon": {"norm_eps": 0.1},
    "epsilon of RMS norms": {"norm": "rms", "norm_eps": 0.1},
    "embeddings as they are": {"scale_embeddings": False},
    "constant on the logits": {"logits_bias": True, "tie_embeddings": "none"},
    "inputs tied": {"tie_embeddings": "inputs"},
    "target tied": {"tie_embeddings": "target", "target_vocab_size": 31},
}


def translator_of(model: Any, folder: Path) -> Any:
    save_ctranslate2(folder, model.config, numpy_weights(model))
    return ctranslate2.Translator(str(folder), device="cpu", compute_type="float32", intra_threads=1)


GREEDY = GenerationConfig(20)
BEAM = GenerationConfig(20, strategy="beam", beam_width=4, length_penalty="mean", length_alpha=0.8)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.sample(8)
def test_greedy_and_beam_tokens_are_ours(name: str, tmp_path: Path):
    model: Any = random_torch(dataclasses.replace(MODEL, **VARIANTS[name]))
    translator = translator_of(model, tmp_path / "served")
    source = np.random.default_rng(0).integers(3, 37, (4, 30))
    names, ids = token_names(37), {token: i for i, token in enumerate(token_names(model.config.target_vocab_size))}
    sources = [[names[token] for token in row[:length]] for row, length in zip(source, LENGTHS, strict=True)]
    for config, settings in ((GREEDY, {"beam_size": 1}), (BEAM, {"beam_size": 4, "length_penalty": 0.8})):
        ours = read_tokens(generate(model, torch.tensor(source), torch.tensor(LENGTHS), config))
        found = translator.translate_batch(sources, max_decoding_length=20, min_decoding_length=0, **settings)
        assert [[ids[token] for token in result.hypotheses[0]] for result in found] == ours


@pytest.fixture(scope="module")
def target() -> Target:
    """The model that mistakes are planted in."""
    config = dataclasses.replace(MODEL, tie_embeddings="none", norm_eps=1e-3)
    return Target("model", config, numpy_weights(random_torch(config, seed=1)), Sizes(5, 30, 20))


@pytest.fixture(scope="module")
def pair(target: Target) -> Pair:
    return Pair(target.case("float32"), backward=False)


def failing(pair: Pair, target: Target, *checks: str) -> set[str]:
    known = checks_of(pair, target)
    return {result.check for check in checks for result in known[check]() if not result.passed}


def test_targets_are_as_probable_as_with_both_twins(pair: Pair, target: Target):
    assert failing(pair, target, "log-probabilities") == set()


@pytest.mark.slow
def test_all_checks_pass_and_report_int8(pair: Pair, target: Target):
    results = {result.check: result for check in checks_of(pair, target).values() for result in check()}
    assert all(result.passed for result in results.values()), results
    assert results["int8"].note.startswith("reported, not judged")


def _wrong_epsilon(spec: Any) -> None:
    spec.config.layer_norm_epsilon = 1e-5


def _wrong_activation(spec: Any) -> None:
    from ctranslate2.specs import common_spec

    spec.decoder.activation = np.int8(common_spec.Activation.GELUTanh)


def _unscaled_embeddings(spec: Any) -> None:
    spec.encoder.scale_embeddings = False


def _scaled_twice(spec: Any) -> None:
    spec.decoder.layer[1].attention.queries_scale = 1 / 8


def _swapped_tables(spec: Any) -> None:
    encoder, decoder = spec.encoder.embeddings[0], spec.decoder.embeddings
    encoder.weight, decoder.weight = decoder.weight, encoder.weight


def _tied_projection(spec: Any) -> None:
    spec.decoder.projection.weight = spec.decoder.embeddings.weight


def _swapped_key_and_value(spec: Any) -> None:
    linear = spec.decoder.layer[0].attention.linear[1]
    linear.weight = np.concatenate(np.split(linear.weight, 2)[::-1])


def _own_sinusoids(spec: Any) -> None:
    spec.encoder.position_encodings.encodings = "__optional"


def _post_ln(spec: Any) -> None:
    spec.decoder.pre_norm = False


MISTAKES = [
    *(_wrong_epsilon, _wrong_activation, _unscaled_embeddings, _scaled_twice, _swapped_tables, _tied_projection),
    *(_swapped_key_and_value, _own_sinusoids, _post_ln),
]


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__[1:])
def test_a_mistake_in_the_specification_shows(
    plant: Callable[[Any], None], pair: Pair, target: Target, monkeypatch: pytest.MonkeyPatch
):
    def planted(config: ModelConfig, weights: Any) -> Any:
        spec = ctranslate2_spec.make_spec(config, weights)
        plant(spec)
        return spec

    monkeypatch.setattr(ctranslate2_export, "make_spec", planted)
    assert failing(pair, target, "log-probabilities")


@pytest.mark.parametrize("token", ["begin", "end"])
def test_a_wrong_begin_or_end_token_shows(token: str, pair: Pair, target: Target, monkeypatch: pytest.MonkeyPatch):
    wrong = {"begin": {"bos_id": 2}, "end": {"eos_id": 7}}[token]
    save = ctranslate2_export.save_ctranslate2
    monkeypatch.setattr(
        "flax_transformer.parity.against_ctranslate2.save_ctranslate2",
        lambda folder, config, *rest: save(folder, dataclasses.replace(config, **wrong), *rest),
    )
    assert failing(pair, target, "log-probabilities")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "classifier": ({"architecture": "classifier"}, "--format onnx"),
    "narrow embeddings": ({"embedding_width": 8, "tie_embeddings": "inputs"}, "without --model.embedding-width"),
    "smeared keys": ({"smeared_keys": True}, "--model.no-smeared-keys"),
    "positions and a bias": ({"relative_buckets": 32}, "--model.positions none, or without --model.relative-buckets"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_hold_is_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    change, advice = REFUSED[name]
    source = random_export(tmp_path / "ours", dataclasses.replace(OWN, num_classes=3, **change))
    assert cli.main(["export", str(source), str(tmp_path / "served"), "--format", "ctranslate2"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert advice in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours"]


def test_quantization_is_of_this_format_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["export", "run", str(tmp_path / "served"), "--format", "hf", "--quantization", "int8"]
    assert cli.main(arguments) == 2
    assert "expected --format ctranslate2, got hf" in capsys.readouterr().err


def test_without_the_package_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert cli.main(["export", "run", str(tmp_path / "served"), "--format", "ctranslate2"]) == 2
    assert "pip install 'flax-transformer[ctranslate2]'" in capsys.readouterr().err


def test_each_row_has_a_name_of_its_own():
    names = token_names(TOKENIZER.vocab_size + 3, TOKENIZER)
    assert len(set(names)) == TOKENIZER.vocab_size + 3
    assert names[: TOKENIZER.vocab_size] == [TOKENIZER.token_names()[i] for i in range(TOKENIZER.vocab_size)]

    class Confusing:
        def token_names(self) -> dict[int, str]:
            return {0: "<3>", 1: "<<3>>", 2: "a"}

    assert token_names(4, Confusing()) == ["<3>", "<<3>>", "a", "<<<3>>>"]  # pyright: ignore[reportArgumentType]


def test_the_folder_serves_texts_as_the_documentation_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = random_export(tmp_path / "ours", OWN)
    served = tmp_path / "served"
    assert cli.main(["export", str(source), str(served), "--format", "ctranslate2"]) == 0
    files = {path.name for path in served.iterdir()}
    assert files == {"config.json", "model.bin", "shared_vocabulary.json", "tokenizer.json"}
    settings = json.loads((served / "config.json").read_text(encoding="utf-8"))
    assert (settings["decoder_start_token"], settings["eos_token"]) == ("[BOS]", "[EOS]")
    program = example(DOCS, "ctranslate2").replace('"DIR', f'"{served}').replace("256", "12")
    capsys.readouterr()
    exec(compile(program, str(DOCS), "exec"), {"texts": TEXTS})
    expected = [prediction.value for prediction in Exported.load(source).predict(TEXTS, GenerationConfig(12))]
    assert capsys.readouterr().out == f"{expected}\n"


def test_quantized_weights_are_smaller(tmp_path: Path):
    weights = numpy_weights(random_torch(MODEL))
    before = {name: weight.copy() for name, weight in weights.items()}
    sizes = {}
    for kind in ("float32", "float16", "int8"):
        save_ctranslate2(tmp_path / kind, MODEL, weights, None, kind)
        sizes[kind] = (tmp_path / kind / "model.bin").stat().st_size
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]
    assert all(np.array_equal(weights[name], weight) for name, weight in before.items())


def test_an_import_without_a_tokenizer_takes_ids_for_names(tmp_path: Path):
    from torch_reference.interop.export import save_export

    model: Any = random_torch(MODEL)
    save_export(tmp_path / "bare", model)
    assert cli.main(["export", str(tmp_path / "bare"), str(tmp_path / "served"), "--format", "ctranslate2"]) == 0
    translator = ctranslate2.Translator(str(tmp_path / "served"))
    found = translator.translate_batch([["<5>", "<6>"]], beam_size=1, max_decoding_length=8, min_decoding_length=0)
    expected = read_tokens(generate(model, torch.tensor([[5, 6]]), config=GenerationConfig(8)))
    assert [f"<{token}>" for token in expected[0]] == found[0].hypotheses[0]


@pytest.mark.slow
def test_a_trained_model_writes_the_same(tmp_path: Path):
    run, served = tmp_path / "run", tmp_path / "served"
    sizes = [
        "--data.train-size",
        "300",
        "--data.validation-size",
        "16",
        "--data.test-size",
        "16",
        "--data.short",
        "0.9",
    ]
    small = ["--model.d-model", "32", "--model.num-heads", "2", "--model.d-ff", "64", "--model.no-smeared-keys"]
    layers = ["--model.num-encoder-layers", "1", "--model.num-decoder-layers", "1"]
    assert cli.main(["train", "manifests", *sizes, *small, *layers, "--epochs", "3", "--run", str(run)]) == 0
    assert cli.main(["export", str(run), str(served), "--format", "ctranslate2"]) == 0
    assert cli.main(["verify", str(run), "--against", "ctranslate2"]) == 0


@pytest.mark.parametrize("name", ["bart", "mbart", "marian", "marian-two-tables", "pegasus", "t5", "t5-1.1"])
def test_families_that_are_imported_are_served(name: str):
    pytest.importorskip("transformers")
    from hf_models import imported

    _, config, weights = imported(name)
    target = Target(name, config, weights, Sizes(5, 30, 20))
    pair = Pair(target.case("float32"), backward=False)
    vars(pair)["flax"] = pair.torch  # compared with JAX elsewhere
    assert failing(pair, target, "log-probabilities") == set()


def test_served_models_read_no_limits_of_the_library(pair: Pair, target: Target):
    assert len(Served(target, "float32").score(pair)) == (pair.case.batch.target_lengths - 1).clip(min=0).sum()
