"""Damaged models and flags without effect, as the bad invocations found them: one line, and nothing left behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from matplotlib.figure import Figure

from flax_transformer.cli.main import main
from flax_transformer.config import ModelConfig
from flax_transformer.doctor.command import DoctorFlags, doctor
from flax_transformer.errors import UserError
from flax_transformer.interop.onnx_export import save_onnx
from flax_transformer.outputs import PICTURE, check_report
from flax_transformer.pages.html import element
from flax_transformer.pages.page import to_page


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("architectures", "BertForSequenceClassification"),
        ("id2label", ["good", "poor", "mixed"]),
        ("quantization_config", "gptq"),
    ],
)
def test_settings_of_another_type_are_named(tmp_path: Path, capsys: Any, name: str, value: Any) -> None:
    folder = make_checkpoint(tmp_path / "bert", **{name: value})
    assert f"config.json: {name}: expected " in error_line(capsys, "import", folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_index_that_names_no_files_is_named(tmp_path: Path, capsys: Any) -> None:
    folder = make_checkpoint(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    for weight_map in (["model.safetensors"], {"a": 1}):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
        assert "weight_map: expected the file of each tensor" in error_line(capsys, "import", folder, tmp_path / "new")


@pytest.mark.parametrize(
    ("file", "program"),
    [("decoder.onnx", "ONNX Runtime"), ("model.bin", "CTranslate2"), ("tokenizer_config.json", "transformers")],
)
def test_exports_for_other_programs_are_named(
    classifier: Path, tmp_path: Path, capsys: Any, file: str, program: str
) -> None:
    folder = shutil.copytree(classifier, tmp_path / "export")
    (folder / file).touch()
    for command in (["predict", folder, "a"], ["verify", folder], ["export", folder, tmp_path / "new"]):
        assert f"that both twins load, got one for {program}; " in error_line(capsys, *command)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000], ids=["cut", "list", "deep"])
def test_a_damaged_record_of_an_import_is_named(classifier: Path, tmp_path: Path, capsys: Any, content: str) -> None:
    folder = shutil.copytree(classifier, tmp_path / "import")
    (folder / "source.json").write_text(content, encoding="utf-8")
    said = error_line(capsys, "export", folder, tmp_path / "new", "--format", "hf")
    assert "source.json: expected the record of an import" in said


def test_a_start_from_damaged_weights_leaves_no_run_behind(
    classifier: Path, reviews: Path, tmp_path: Path, capsys: Any
) -> None:
    damaged = shutil.copytree(classifier, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    flags = ["--data.path", reviews, "--run", tmp_path / "new", "--batch.size", "8", "--batch.buckets", "1"]
    assert "expected a whole safetensors file" in error_line(
        capsys, "train", "classification", *flags, "--pretrained", damaged
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("flags", [["--strategy", "beam"], ["--max-new-tokens", "3"]], ids=" ".join)
def test_vectors_take_no_flags_of_generation(generator: Path, capsys: Any, flags: list[str]) -> None:
    said = error_line(capsys, "predict", generator, "the film", "--embed", "mean", *flags)
    assert "--embed: expected no --threshold and no flags of generation" in said


@pytest.mark.parametrize("name", ["embedding", "fields", "scores"])
def test_columns_of_the_output_are_not_carried_over(classifier: Path, tmp_path: Path, capsys: Any, name: str) -> None:
    (tmp_path / "rows.csv").write_text(f"text,{name}\na,b\n", encoding="utf-8")
    assert name in error_line(capsys, "predict", classifier, "--file", tmp_path / "rows.csv", "--keep", name)


def test_the_doctor_says_what_is_wrong_with_a_flag_in_one_line(classifier: Path, capsys: Any) -> None:
    assert "--kind" in error_line(capsys, "doctor", classifier, "--kind", "horse")
    assert "horse" in error_line(capsys, "doctor", classifier, "--horse")


@pytest.mark.parametrize("flag", ["json", "html", "png"])
def test_the_doctor_writes_over_no_file_of_others(classifier: Path, tmp_path: Path, flag: str) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match="expected a name that is not taken"):
        doctor(replace(DoctorFlags(str(classifier)), **{flag: taken}))
    assert taken.read_text("utf-8") == "precious"


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"target": "a", "source": "b"}\n',
        b"<html>",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(17) + b"\0\0\0:tEXtSoftware\0Matplotlib version3.10.8",
        b"text,label\n",
    ],
)
def test_a_report_takes_the_place_of_reports_alone(tmp_path: Path, content: bytes) -> None:
    """Not that of data, configs, pages and pictures of users, which begin alike."""
    (tmp_path / "taken").write_bytes(content)
    with pytest.raises(UserError, match="taken: expected a name that is not taken, but it exists"):
        check_report(tmp_path / "taken")
    (tmp_path / "figures").write_text(json.dumps({"target": "x", "passed": True, "precisions": [], "config": {}}))
    (tmp_path / "page").write_text(to_page("title", element("p", "text")), encoding="utf-8")
    Figure().savefig(tmp_path / "picture.png", metadata=PICTURE)
    for name in ("figures", "page", "picture.png"):
        check_report(tmp_path / name)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"model_type": 7}', '{"model_type": "horse"}'])
@pytest.mark.sample(1)
def test_the_doctor_names_a_folder_that_transformers_cannot_read(tmp_path: Path, capsys: Any, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert str(tmp_path) in error_line(capsys, "doctor", tmp_path)


def test_a_model_of_masked_tokens_has_no_graph(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a classifier or a seq2seq model for ONNX Runtime"):
        save_onnx(tmp_path / "new", ModelConfig("masked"), {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--preset", "horse"], "--preset: expected a folder, or one of"),
        (["--layers", "0"], "num_encoder_layers: expected"),
        (["--batch", "0"], "size: expected"),
        (["--dropout", "2"], "dropout: expected"),
        (["--gradient-accumulation-steps", "3"], "gradient_accumulation_steps: expected"),
    ],
    ids=str,
)
def test_a_plan_of_what_cannot_be_is_refused_without_the_compiler_too(capsys: Any, flags: list[str], told: str) -> None:
    assert told in error_line(capsys, "plan", "--topology", "v5e:2x4", *flags)


def test_a_benchmark_says_what_is_wrong_with_a_flag_in_one_line(capsys: Any) -> None:
    assert "horse" in error_line(capsys, "bench", "generate", "horse")
