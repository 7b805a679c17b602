"""``flax-transformer doctor``: what it takes, what it writes, and one clear line for whatever is wrong."""

import json
import sys
from pathlib import Path

import pytest
import torch

from flax_transformer.doctor.command import main

MODELS = """
import sys
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(20, 16), nn.Embedding(32, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.output = nn.Linear(16, 20)

    def forward(self, ids):
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.output(self.layer(self.table(ids) + self.places(torch.arange(ids.shape[1])), mask))


class NoMask(Model):
    def forward(self, ids):
        return self.output(self.layer(self.table(ids) + self.places(torch.arange(ids.shape[1]))))


class Shape(Model):
    def forward(self, ids):
        return super().forward(ids)[:, :3, :2]


class NotANumber(Model):
    def forward(self, ids):
        return super().forward(ids) * float("nan")


class Mutates(Model):
    def forward(self, ids):
        with torch.no_grad():
            self.output.bias += 1
        return super().forward(ids)


class Floats(Model):
    def forward(self, x):
        return self.output(self.layer(x))


class WantsGpu(Model):
    def forward(self, ids):
        return super().forward(ids.to("cuda"))


class WrongType(Model):
    def forward(self, ids):
        return super().forward(ids.float())


class WantsMore(Model):
    def forward(self, ids, image):
        return super().forward(ids)


def raises():
    raise RuntimeError("no weights here")


def leaves():
    sys.exit(0)


def prints():
    print("noise")
    return Model()


def needs(path):
    return Model()


def unknown():
    return {"model": Model(), "color": "red"}


def nothing():
    return None


def a_class():
    return Model


def with_tokenizer():
    return Model(), object()


def pad_beyond():
    return {"model": Model(), "pad_id": 50}


def pad_in_words():
    return {"model": Model(), "pad_id": "<pad>"}


def ids_beyond():
    return {"model": Model(), "vocab_size": 100, "kind": "decoder"}


def length_in_words():
    return {"model": Model(), "max_length": "64"}


def without_values():
    model = Model()
    model.output = nn.Linear(16, 20, device="meta")
    return model


def lazy():
    model = Model()
    model.output = nn.LazyLinear(20)
    return model


def bare():
    return nn.Module()


class PrintsAlways(Model):
    def forward(self, ids):
        print("noise")
        return super().forward(ids)


number = 3
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("doctor") / "models.py"
    file.write_text(MODELS, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("nowhere", 2, "there is no 'nowhere' in it; there is"),
        ("number", 2, "expected a function that returns the model, got int"),
        ("nothing", 2, "expected it to return a model, got NoneType"),
        ("a_class", 2, "expected it to return a model, got the class Model"),
        ("with_tokenizer", 2, "a model, or a Linen module and its variables, got (Model, object)"),
        ("pad_beyond", 2, "pad_id: expected a token id below 32, which no table reaches, got 50"),
        ("pad_in_words", 2, "pad_id: expected a token id, a whole number from 0, got '<pad>'"),
        ("length_in_words", 2, "max_length: expected a number from 1, got '64'"),
        ("ids_beyond", 3, "failed on token ids below 100: IndexError: index out of range"),
        ("without_values", 3, "output.weight is on the meta device and has no values"),
        ("lazy", 3, "output.weight has no shape yet: call the model once"),
        ("bare", 3, "Module has no forward(), so pass forward="),
        ("needs", 2, "needs path; name a function without arguments"),
        ("unknown", 2, "returned color; examine takes"),
        ("raises", 3, "raised RuntimeError: no weights here (models.py, line"),
        ("leaves", 3, "raised SystemExit"),
        ("Shape", 3, "expected logits (12 rows, 7 tokens, vocab) or (12 rows, classes), got (12, 3, 2)"),
        ("Floats", 3, "the model failed on token ids"),
        ("WantsGpu", 3, "CUDA" if not torch.cuda.is_available() else ""),
        ("WrongType", 3, "Expected tensor for argument #1 'indices'"),
        ("WantsMore", 3, "the model needs 'image', which the doctor cannot make up"),
    ],
)
def test_bad_target_is_one_clear_line(
    models: Path, capsys: pytest.CaptureFixture[str], name: str, code: int, words: str
):
    assert main([f"{models}:{name}"]) == code
    output = capsys.readouterr()
    assert words in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert output.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.py:make"], "there is no such file"),
        (["nowhere"], "there is no such folder"),
        (["."], "there is no config.json in it"),
        (["setup.py"], "expected setup.py:FACTORY"),
        (["pyproject.toml"], "pyproject.toml: is a file; expected FILE.py:FACTORY"),
        (["broken.py:make"], "broken.py: invalid syntax (broken.py, line 1)"),
        (["relative.py:make"], "no known parent package; name a file outside its package that imports it"),
    ],
)
def test_no_such_target(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
):
    monkeypatch.chdir(tmp_path)
    for name, text in (("broken.py", "def make(:"), ("relative.py", "from . import x"), ("pyproject.toml", "")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_an_own_generator_generates_in_float64_too(generator: Path, tmp_path: Path):
    """Its caches and scores are as wide as what is written into them."""
    assert main([str(generator), "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["precision"] == "float64"
    assert {probe["verdict"] for probe in report["probes"] if probe["probe"] == "generation"} == {"healthy"}


def test_ill_model_and_what_is_written(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = {name: tmp_path / f"report.{name}" for name in ("json", "html", "png")}
    flags = [part for name, file in files.items() for part in (f"--{name}", str(file))]
    assert main([f"{models}:NoMask", "--kind", "decoder", *flags]) == 1
    output = capsys.readouterr().out
    assert "1. ill: the causal mask is missing" in output
    assert "!!" in output
    report = json.loads(files["json"].read_text(encoding="utf-8"))
    assert report["verdict"] == "ill"
    assert report["diagnosis"][0]["cause"] == "no-causal-mask"
    assert report["influence"][0]["measured"][0][1] > 0.01
    page = files["html"].read_text(encoding="utf-8")
    assert "the causal mask is missing" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing from elsewhere
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_healthy_model_whose_factory_prints(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert main([f"{models}:prints", "--json", "-"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["verdict"] == "healthy"
    assert output.err == "noise\n"
    assert not (models.parent / "__pycache__").exists()


def test_a_bar_on_stderr_leaves_the_report_on_stdout(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setattr("flax_transformer.doctor.command._QUIET_SECONDS", 0.0)
    assert main([f"{models}:prints"]) == 0
    output = capsys.readouterr()
    assert "healthy" in output.out
    assert "probes" in output.err


def test_a_model_that_prints_does_not_print_into_the_report(models: Path, capsys: pytest.CaptureFixture[str]):
    assert main([f"{models}:PrintsAlways", "--json", "-"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["verdict"] == "healthy"
    assert set(output.err.split()) == {"noise"}


def test_strict_counts_warnings(models: Path, capsys: pytest.CaptureFixture[str]):
    unscaled = models.with_name("unscaled.py")
    text = MODELS.replace("nn.Embedding(32, 16)", "nn.Embedding(32, 16, _weight=torch.randn(32, 16) * 1e-4)")
    unscaled.write_text(text, encoding="utf-8")
    assert main([f"{unscaled}:Model"]) == 0
    assert main([f"{unscaled}:Model", "--strict"]) == 1
    assert "positions hardly count" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "cause"), [("NotANumber", "not-finite"), ("Mutates", "mutates")])
def test_findings_about_the_run_itself(models: Path, capsys: pytest.CaptureFixture[str], name: str, cause: str):
    assert main([f"{models}:{name}", "--json", "-"]) == 1
    assert cause in {d["cause"] for d in json.loads(capsys.readouterr().out)["diagnosis"]}


def test_file_that_cannot_be_written_is_said_before(models: Path, capsys: pytest.CaptureFixture[str]):
    assert main([f"{models}:prints", "--html", "/nowhere/report.html"]) == 2
    assert "expected its folder /nowhere to exist" in capsys.readouterr().err
    assert main([f"{models}:prints", "--vocab-size", "2"]) == 2


def test_hugging_face_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert main([str(tmp_path), "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "decoder"
    verdicts = {probe["probe"]: probe["verdict"] for probe in report["probes"]}
    assert verdicts["generation"] == verdicts["cached step"] == "healthy"
