"""Exports for ONNX Runtime: logits and tokens of the twins, and mistakes that must show."""

import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from served_models import (
    DOCS,
    MODEL,
    OWN,
    T5,
    TEXTS,
    example,
    export_with_unused_rows,
    numpy_weights,
    random_export,
    random_torch,
)

from flax_transformer.cli import main as cli
from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.onnx_export import save_onnx
from flax_transformer.interop.state_dict import read_weights
from flax_transformer.parity import against_onnx
from flax_transformer.parity.against_onnx import Served, checks_of
from flax_transformer.parity.cases import Sizes
from flax_transformer.parity.pair import Pair
from flax_transformer.parity.targets import Target
from torch_reference.interop import onnx as graphs

pytest.importorskip("onnx", reason="needs onnx, to write graphs")
pytest.importorskip("onnxscript", reason="needs onnxscript, to write graphs")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime, to run graphs")

GENERATOR = dataclasses.replace(MODEL, num_encoder_layers=1, num_decoder_layers=1, tie_embeddings="none")
CLASSIFIER = dataclasses.replace(GENERATOR, architecture="classifier", num_classes=5)


def target_of(config: ModelConfig, **changes: Any) -> Target:
    """The weights depend on the shapes alone, so that a change of any other field is a mistake."""
    weights = numpy_weights(random_torch(config))
    return Target("model", dataclasses.replace(config, **changes), weights, Sizes(5, 30, 20))


def pair_of(target: Target) -> Pair:
    return Pair(target.case("float32"), backward=False)


@pytest.fixture(autouse=True, scope="module")
def symbolic_shapes() -> Iterator[None]:
    """While a graph is traced, lengths are symbols, which are no whole numbers to the checks of signatures."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# Two graphs take some ten seconds to trace.
KINDS = [pytest.param(GENERATOR, marks=pytest.mark.slow, id="generator"), pytest.param(CLASSIFIER, id="classifier")]


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest) -> tuple[ModelConfig, Served]:
    target = target_of(request.param)
    return request.param, Served(target.model, dict(target.weights))


def failing(target: Target, served: Served, monkeypatch: pytest.MonkeyPatch, flax: bool = False) -> set[str]:
    """The checks of a graph that fail with the twins of ``target``; that of JAX is skipped where it is the same."""
    monkeypatch.setattr(against_onnx, "Served", lambda config, weights: served)
    pair = pair_of(target)
    if not flax:
        vars(pair)["flax"] = pair.torch
    return {result.check for check in checks_of(pair, target).values() for result in check() if not result.passed}


def test_graphs_compute_what_both_twins_compute(served, monkeypatch: pytest.MonkeyPatch):
    config, graph = served
    assert failing(target_of(config), graph, monkeypatch, flax=True) == set()


# Of a twin that is not the model which the graph was made of.
MISTAKES: dict[str, dict[str, Any]] = {
    "epsilon": {"norm_eps": 1e-4},
    "activation": {"activation": "gelu_tanh"},
    "scale of the embeddings": {"scale_embeddings": False},
    "scale of the scores": {"scale_attention": False},
    "pre-LN": {"norm_first": False},
    "positions": {"positions": "sinusoidal_halves"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_graph_of_another_model_shows(mistake: str, served, monkeypatch: pytest.MonkeyPatch):
    config, graph = served
    assert "logits" in failing(target_of(config, **MISTAKES[mistake]), graph, monkeypatch)


@pytest.mark.parametrize("mistake", ["swapped tables", "begin token", "forgotten lengths", "cache not passed on"])
def test_a_mistake_in_serving_shows(mistake: str, served, monkeypatch: pytest.MonkeyPatch):
    config, graph = served
    target = target_of(config)
    if config.architecture == "classifier" and mistake != "forgotten lengths":
        return
    match mistake:
        case "swapped tables":
            tables = ("source_table.weight", "target_table.weight")
            swapped = dict(zip(tables, (target.weights[name] for name in reversed(tables)), strict=True))
            target = dataclasses.replace(target, weights={**target.weights, **swapped})
        case "begin token":
            target = target_of(config, bos_id=7)
            begin = Served.decode
            monkeypatch.setattr(
                Served, "decode", lambda self, ids, state: begin(self, np.where(ids == 7, 1, ids), state)
            )
        case "forgotten lengths":
            for name in ("classify", "start"):
                monkeypatch.setattr(Served, name, _with_full_rows(getattr(Served, name)))
        case "cache not passed on":
            decode = Served.decode
            monkeypatch.setattr(Served, "decode", lambda self, ids, state: (decode(self, ids, state)[0], state))
    assert failing(target, graph, monkeypatch)


def _with_full_rows(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, ids, lengths: call(self, ids, np.full_like(lengths, ids.shape[1]))


@pytest.mark.slow
def test_a_decoder_that_counts_positions_from_the_newest_token_shows(monkeypatch: pytest.MonkeyPatch):
    def forgetful(self, target, source_lengths, memory, cache):
        logits, written = self.model.decode(target, graphs._by_layer(memory), source_lengths)
        return logits, *(new for layer in written for new in layer)

    monkeypatch.setattr(graphs.DecoderGraph, "forward", forgetful)
    target = target_of(GENERATOR)
    assert failing(target, Served(target.model, dict(target.weights)), monkeypatch) >= {"logits"}


VARIANTS: dict[str, ModelConfig] = {
    "rope": dataclasses.replace(MODEL, positions="rope", head_width=6),
    "T5": dataclasses.replace(MODEL, **T5, gated=True, scale_logits=True),
    "BART": dataclasses.replace(
        MODEL, positions="learned", position_offset=2, embedding_norm=True, norm_first=False, logits_bias=True
    ),
    "BERT": dataclasses.replace(
        CLASSIFIER,
        positions="learned",
        token_types=2,
        embedding_norm=True,
        norm_first=False,
        final_norm=False,
        pooling="first",
        head_hidden="tanh",
    ),
    "maximum": dataclasses.replace(CLASSIFIER, pooling="max", embedding_width=7),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_graphs_of_all_kinds(name: str, monkeypatch: pytest.MonkeyPatch):
    target = target_of(VARIANTS[name])
    assert failing(target, Served(target.model, dict(target.weights)), monkeypatch, flax=True) == set()


@pytest.mark.slow
def test_the_loop_of_the_documentation_writes_what_predict_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, folder = random_export(tmp_path / "ours", OWN), tmp_path / "served"
    assert cli.main(["export", str(source), str(folder), "--format", "onnx"]) == 0
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "decoder.onnx", "encoder.onnx", "prediction.json", "tokenizer.json"}
    check_loop(source, folder, capsys)


@pytest.mark.slow
def test_the_loop_writes_no_row_without_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, folder = export_with_unused_rows(tmp_path / "ours"), tmp_path / "served"
    assert cli.main(["export", str(source), str(folder), "--format", "onnx"]) == 0
    check_loop(source, folder, capsys)
    exported = Exported.load(source)
    save_onnx(tmp_path / "all", exported.config, read_weights(source / "model.safetensors"))  # knows of no tokens
    for name in ("encoder.onnx", "decoder.onnx"):
        shutil.copy(tmp_path / "all" / name, folder / name)
    with pytest.raises(AssertionError):
        check_loop(source, folder, capsys)


def check_loop(source: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the loop of the documentation writes with the graphs is what our own predictions are."""
    capsys.readouterr()
    program = example(DOCS, "onnx").replace('"DIR', f'"{folder}').replace("json.load(open(", "json.loads(Path(")
    program = program.replace('json"))', 'json").read_text())')
    exec(compile(program, str(DOCS), "exec"), {"texts": TEXTS, "Path": Path})
    limit = Exported.load(source).prediction_config.max_new_tokens
    expected = [prediction.value for prediction in Exported.load(source).predict(TEXTS, GenerationConfig(limit))]
    assert capsys.readouterr().out == f"{expected}\n"


def test_the_folder_of_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import onnxruntime

    config = dataclasses.replace(OWN, architecture="classifier", num_classes=3, num_encoder_layers=1)
    source, folder = random_export(tmp_path / "ours", config), tmp_path / "served"
    assert cli.main(["export", str(source), str(folder), "--format", "onnx"]) == 0
    assert {path.name for path in folder.iterdir()} == {
        *("model.onnx", "config.json", "prediction.json", "tokenizer.json", "classes.json")
    }
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for shape in ((1, 1), (3, 41)):  # the least, and the longest that the model was made for
        inputs = {"source": np.full(shape, 5), "source_lengths": np.full(shape[0], shape[1])}
        assert session.run(None, inputs)[0].shape == (shape[0], 3)


def test_without_a_package_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert cli.main(["export", "run", str(tmp_path / "served"), "--format", "onnx"]) == 2
    assert "pip install 'flax-transformer[onnx]'" in capsys.readouterr().err
