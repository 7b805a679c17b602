"""``flax-transformer verify``: its verdicts, its exit codes, and one line for each kind of wrong input."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from mutants import TINY

from flax_transformer.cli.main import main
from flax_transformer.errors import UserError
from flax_transformer.interop.export import WEIGHTS_FILE, save_export
from flax_transformer.nn.models import create_model
from flax_transformer.parity.targets import load_target
from flax_transformer.parity.verify import CERTIFICATE

NUDGED = "decoder.layers.0.feed_forward.up_proj.weight"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    save_export(folder, create_model(dataclasses.replace(TINY, attention_backend="auto"), seed=0))
    return folder


def rewrite(folder: Path, change) -> None:
    weights = safetensors.numpy.load_file(folder / WEIGHTS_FILE)
    change(weights)
    safetensors.numpy.save_file(weights, folder / WEIGHTS_FILE)


def nudge(weights: dict[str, np.ndarray]) -> None:
    weights[NUDGED] = weights[NUDGED].copy()
    weights[NUDGED][3, 5] += 1e-4 * np.abs(weights[NUDGED]).max()


@pytest.mark.slow
def test_an_export_passes_and_after_a_nudge_fails_and_names_the_tensor(exported: Path, tmp_path: Path, capfd):
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    arguments = ["verify", str(exported), "--dtype", "float32", "--steps", "2"]
    assert main([*arguments, "--html", str(page), "--json", str(figures)]) == 0
    report = json.loads(figures.read_text())
    assert report["passed"]
    assert report == json.loads((exported / CERTIFICATE).read_text())
    assert {result["check"] for result in report["precisions"][0]["results"]} >= {
        "logits",
        "gradients",
        "step",
        "2 steps",
    }
    text = page.read_text()
    assert "float32 on cpu" in text
    assert "http" not in text  # self-contained
    assert "decoder.layers.0.cross_attention.weights" in text

    rewrite(exported, nudge)
    capfd.readouterr()
    assert main(["verify", str(exported), "--dtype", "bfloat16"]) == 1
    assert NUDGED in capfd.readouterr().out.replace("\n", "").replace(" ", "").replace("│", "")


def test_wrong_input_is_one_line_and_exit_code_2(exported: Path, tmp_path: Path, capsys):
    assert main(["verify"]) == 2
    assert main(["verify", "--preset", "huge"]) == 2
    assert main(["verify", str(tmp_path)]) == 2
    assert main(["verify", str(exported), "--preset", "mini"]) == 2
    assert main(["verify", str(exported), "--steps", "0"]) == 2
    assert main(["verify", str(exported), "--dtype", "float8"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("error: ") for line in lines)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: w.pop("encoder.norm.bias"), "encoder.norm.bias"),
        (lambda w: w.update(extra=np.zeros(2, np.float32)), "extra"),
        (lambda w: w.update({"encoder.norm.bias": np.full(16, np.nan, np.float32)}), "16 values that are not finite"),
        (lambda w: w.update({"encoder.norm.bias": np.zeros(3, np.float32)}), r"\(3,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, expected: str, tmp_path: Path):
    save_export(tmp_path, create_model(TINY, seed=0))
    rewrite(tmp_path, change)
    with pytest.raises(UserError, match=expected):
        load_target(tmp_path, None, None)


def test_without_torch_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["verify", "--preset", "mini"]) == 2
    assert "flax-transformer[torch]" in capsys.readouterr().err


def test_a_killed_precision_is_reported_as_out_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(killed))
    assert main(["verify", "--preset", "mini", "--dtype", "float32"]) == 2
    assert "error: the float32 precision was killed, most likely for want of memory" in capsys.readouterr().err
