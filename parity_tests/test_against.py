"""``verify --against``: its verdicts, its report, and one line for what it cannot do."""

import dataclasses
import json
from pathlib import Path

import pytest
from served_models import OWN, random_export

from flax_transformer.cli.main import main
from flax_transformer.errors import UserError
from flax_transformer.parity import against
from flax_transformer.parity.against import THIRD_PARTIES
from flax_transformer.parity.targets import load_target

SMALL = dataclasses.replace(OWN, num_encoder_layers=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", THIRD_PARTIES)
def test_an_export_passes_and_the_report_names_the_third_party(name: str, tmp_path: Path, capsys):
    for package in THIRD_PARTIES[name].packages:
        pytest.importorskip(package)
    folder, page = random_export(tmp_path / "ours", SMALL), tmp_path / "page.html"
    assert main(["verify", str(folder), "--against", name, "--html", str(page)]) == 0
    report = json.loads((folder / f"parity-{name}.json").read_text(encoding="utf-8"))
    assert report["against"] == name
    assert set(THIRD_PARTIES[name].packages) <= set(report["versions"])
    assert [precision["dtype"] for precision in report["precisions"]] == list(THIRD_PARTIES[name].dtypes)
    assert f"JAX, PyTorch and {name} are" in page.read_text(encoding="utf-8")
    assert f"against {name}" in capsys.readouterr().out
    assert not (folder / "parity.json").exists()


def test_a_precision_that_it_does_not_compute_in_is_refused(tmp_path: Path, capsys):
    pytest.importorskip("ctranslate2")
    folder = random_export(tmp_path / "ours", SMALL)
    assert main(["verify", str(folder), "--against", "ctranslate2", "--dtype", "bfloat16"]) == 2
    assert "--dtype: expected float32 with --against ctranslate2, got bfloat16" in capsys.readouterr().err


@pytest.mark.parametrize("name", THIRD_PARTIES)
def test_a_missing_package_is_one_line_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch, capsys):
    find = against.importlib.util.find_spec
    missing = THIRD_PARTIES[name].packages[-1]
    monkeypatch.setattr(
        against.importlib.util, "find_spec", lambda package: None if package == missing else find(package)
    )
    assert main(["verify", "--preset", "mini", "--against", name]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"needs {missing}: pip install 'flax-transformer[{THIRD_PARTIES[name].extra}]'" in error


def test_what_a_third_party_cannot_hold_is_refused(tmp_path: Path):
    pytest.importorskip("ctranslate2")
    folder = random_export(tmp_path / "ours", dataclasses.replace(SMALL, architecture="classifier", num_classes=3))
    with pytest.raises(UserError, match="export it with --format onnx"):
        against.run_against("ctranslate2", load_target(folder, None, None), "float32", print)
