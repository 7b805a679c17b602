"""The command line: a tiny run from start to export, its help, and one clear line for each mistake of a user."""

import contextlib
import gc
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import TINY, error_line, run_command

from flax_transformer.cli import main as cli
from flax_transformer.data.manifests.task import MANIFEST_SCHEMA
from flax_transformer.errors import UserError
from flax_transformer.interop.export import load_export
from flax_transformer.outputs import whole_folder
from flax_transformer.presets import PRESETS
from flax_transformer.training.run import Run

ROOT = Path(__file__).parent.parent
CLASSIFICATION = ["classification", *TINY, "--batch.max-source-length", "16", "--epochs", "1"]
MANIFESTS = [
    *("manifests", *TINY, "--epochs", "1", "--data.max-items", "1"),
    *("--data.train-size", "16", "--data.validation-size", "3", "--data.test-size", "4"),
    *("--batch.max-source-length", "512", "--batch.max-target-length", "512"),
]
BEAM = ("--strategy", "beam", "--beam-width", "2")


@pytest.fixture(scope="module")
def manifests_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "manifests"
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        assert run_command("train", *MANIFESTS, "--run", folder) == 0
    assert errors.getvalue() == ""
    return folder, output.getvalue()


def test_training_ends_with_three_examples_and_the_score(manifests_run: tuple[Path, str]):
    folder, output = manifests_run
    assert re.search(r"step 1/1  loss \d\.\d+  [\d,]+ tokens/s  ETA 0:00:00\n", output)
    assert len(re.findall(r"\ninput: .+\nexpected: +\{.+\}\npredicted:", output)) == 3
    assert re.search(r"\nexact match \d+\.\d%\n\Z", output)
    assert (folder / "results.json").is_file()


def test_evaluate_gives_the_scores_of_the_run(
    classifier_run: Run, manifests_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
):
    results = json.loads((classifier_run.folder / "results.json").read_text(encoding="utf-8"))
    for split in ("test", "validation"):
        capsys.readouterr()
        assert run_command("evaluate", classifier_run.folder, "--split", split) == 0
        expected = f"accuracy {results[split]['accuracy']:.1%}\nloss {results[split]['loss']:.4f}\n"
        assert re.match(
            rf"{expected}calibration error .*\nat most 1%.*\nat most 5%.*\nmacro f1 ", capsys.readouterr().out
        )
    assert run_command("evaluate", manifests_run[0]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ +main +seen\nexact match +0\.0% .*\nfield/carrier +0\.0% +0\.0%\n", printed, re.DOTALL)
    assert re.search(r"\nmain: at most 1% wrong among the surest 0\.0%\n.*\nseen: at most 1% wrong", printed)


def test_a_review_says_what_to_trust(
    classifier_run: Run, manifests_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
):
    """Of an untrained model: nothing."""
    capsys.readouterr()
    assert run_command("predict", manifests_run[0], "two boxes", "--json", "--review", "--n-best", "2", *BEAM) == 0
    line = json.loads(capsys.readouterr().out)
    manifest, fields = json.loads(line["prediction"]), line["fields"]
    assert fields["shipper"]["value"] == manifest["shipper"]
    assert "not in text" in fields["items.0.container"]["flags"]
    assert all(0 <= field["confidence"] < 0.5 for field in fields.values())
    assert "expected a model of manifests" in error_line(capsys, "predict", classifier_run.folder, "a", "--review")


def test_a_file_of_manifests_is_scored_by_field(
    manifests_run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "labelled.jsonl"
    path.write_text(json.dumps({"source": "two boxes", "target": {"carrier": "MAEU", "items": [{"goods": "rice"}]}}))
    capsys.readouterr()
    assert run_command("evaluate", manifests_run[0], "--file", path) == 0
    found = capsys.readouterr().out
    assert "field/carrier 0.0%\nfield/items.goods 0.0%\n" in found
    assert run_command("export", manifests_run[0], tmp_path / "export") == 0
    capsys.readouterr()
    assert run_command("evaluate", tmp_path / "export", "--file", path) == 0
    assert capsys.readouterr().out == found
    for target in ("no JSON", [1], {}):
        path.write_text(json.dumps({"source": "two boxes", "target": target}))
        told = error_line(capsys, "evaluate", manifests_run[0], "--file", path)
        assert "line 1: expected a JSON object with fields, as manifests writes them" in told


@pytest.mark.slow
def test_the_schema_of_the_task_makes_every_output_parse(
    manifests_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
):
    """Also those of a model that has learned nothing."""
    for flags, parsed in (([], "0.0%"), (["--json"], "100.0%")):
        capsys.readouterr()
        assert run_command("evaluate", manifests_run[0], *flags) == 0
        row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("parsed"))
        assert row.split() == ["parsed", parsed, parsed]
    assert run_command("predict", manifests_run[0], "two boxes", "--json", "--strategy", "beam") == 0
    assert list(json.loads(json.loads(capsys.readouterr().out)["prediction"])) == list(MANIFEST_SCHEMA["properties"])


def test_predict_reads_arguments_files_and_standard_input(
    classifier_run: Run, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def predicted(*arguments: str | Path) -> list[dict[str, str]]:
        capsys.readouterr()
        assert run_command("predict", classifier_run.folder, *arguments) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    texts = ["the good film", "the pöor film", "?"]
    lines = predicted(*texts)
    assert [line["text"] for line in lines] == texts
    assert all(line["prediction"] in ("good", "poor") for line in lines)

    plain = tmp_path / "texts.txt.gz"
    plain.write_bytes(gzip.compress("\n".join(texts).encode()))
    assert predicted("--file", plain) == lines
    rows = tmp_path / "texts.jsonl"
    rows.write_text("".join(json.dumps({"review": text}) + "\n" for text in texts), encoding="utf-8")
    assert predicted("--file", rows, "--column", "review") == lines
    assert len(predicted("--file", reviews)) == 80

    command = [sys.executable, "-m", "flax_transformer", "predict", str(classifier_run.folder), "--output", "out.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    piped = "\n".join(texts).encode()
    result = subprocess.run(command, cwd=tmp_path, env=environment, input=piped, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in written] == lines


def test_export_is_whole_and_a_damaged_one_is_refused(
    manifests_run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    directory = tmp_path / "export"
    assert run_command("export", manifests_run[0], directory) == 0
    names = {"config.json", "model.safetensors", "tokenizer.json", "prediction.json"}
    assert {path.name for path in directory.iterdir()} == names
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o644}
    assert load_export(directory).config == Run.load(manifests_run[0]).config.model
    assert "it exists" in error_line(capsys, "export", manifests_run[0], directory)
    assert "expected --file with labelled texts" in error_line(capsys, "evaluate", directory)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_export(directory)


def test_an_export_predicts_what_its_run_does(classifier_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    directory = tmp_path / "export"
    assert run_command("export", classifier_run.folder, directory) == 0
    assert "classes.json" in {path.name for path in directory.iterdir()}
    outputs = []
    for folder in (classifier_run.folder, directory):
        capsys.readouterr()
        assert run_command("predict", folder, "the good film", "the poor film") == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    (directory / "classes.json").unlink()
    assert "expected a JSON list of class names" in error_line(capsys, "predict", directory, "the good film")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.num-heads", "3"], r"num_heads: expected a divisor of d_model=8, got 3"),
        (["--optimizer.learning-rate", "-1"], r"learning_rate: expected a finite number of at least 0, got -1\.0"),
        (["--optimizer.learning-rate", "nan"], r"learning_rate: .* got nan"),
        (["--model.dropout", "1.5"], r"dropout: expected a number in \[0, 1\), got 1\.5"),
        (["--epochs", "-2"], r"epochs: expected a whole number of at least 1, got -2"),
        (["--batch.max-source-length", "1000"], r"max_length: expected at least the batch's 1000 tokens"),
        (["--data.path", "absent.csv"], r"absent\.csv"),
        (["--data.path", "empty.csv"], r"empty\.csv: .*empty"),
        (["--data.path", "latin1.csv"], r"latin1\.csv.*UTF-8"),
        (["--data.text-column", "review"], r"expected one column 'review'"),
        (["--data.test-path", "other.csv"], r"other\.csv.*awful"),
        (["--tokenizer.path", "absent.json"], r"absent\.json"),
        (["--preset", "huge"], r"--preset: expected one of default, finetune, got 'huge'"),
        (["--resume"], r"new: expected a run to go on with"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: Sequence[str],
    message: str,
):
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin1.csv").write_bytes("text,label\nsehr schön,good\nnein,poor\n".encode("latin-1"))
    (tmp_path / "other.csv").write_text("text,label\nthe film,awful\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    line = error_line(capsys, "train", *CLASSIFICATION, "--data.path", reviews, "--run", "new", *flags)
    assert re.search(message, line), line
    assert not (tmp_path / "new").exists()


def test_an_existing_run_folder_is_left_alone(classifier_run: Run, reviews: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in classifier_run.folder.rglob("*")}
    train = ("train", *CLASSIFICATION, "--data.path", reviews, "--run", classifier_run.folder)
    assert "but it exists; go on with --resume, or name another with --run" in error_line(capsys, *train)
    line = error_line(capsys, *train, "--resume", "--seed", "5", "--optimizer.learning-rate", "0.5")
    assert "optimizer.learning_rate is 0.001 there and 0.5 here, seed is 0 there and 5 here" in line
    assert {path: path.stat().st_mtime_ns for path in classifier_run.folder.rglob("*")} == before


def test_mistakes_in_using_a_run(
    classifier_run: Run, manifests_run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "expected a run folder" in error_line(capsys, "evaluate", tmp_path)
    assert "no_such.txt" in error_line(capsys, "predict", classifier_run.folder, "--file", tmp_path / "no_such.txt")
    other_task = error_line(capsys, "train", "imdb", "--run", classifier_run.folder, "--resume")
    assert "got one of 'classification'" in other_task
    taken = tmp_path / "taken"
    taken.touch()
    assert "it exists" in error_line(capsys, "predict", classifier_run.folder, "text", "--output", taken)
    too_long = error_line(capsys, "predict", manifests_run[0], "x " * 600, "--strict")
    assert re.search(r"but the text has \d+ tokens, and the model reads at most 512", too_long)
    assert "expected a command" in error_line(capsys, "trian")
    assert "expected a task" in error_line(capsys, "train", "imbd")


def test_a_checkpoint_of_another_config_is_refused(
    classifier_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copied = tmp_path / "run"
    subprocess.run(["cp", "-r", str(classifier_run.folder), str(copied)], check=True)
    config = (copied / "config.json").read_text(encoding="utf-8")
    (copied / "config.json").write_text(config.replace('"pooling": "mean"', '"pooling": "max"'), encoding="utf-8")
    line = error_line(capsys, "predict", copied, "text")
    assert "model.pooling is 'mean' there and 'max' here" in line


@pytest.mark.parametrize("task", PRESETS)
def test_help_explains_every_flag(task: str, capsys: pytest.CaptureFixture[str]):
    assert run_command("train", task, "--help") == 0
    lines = [line.strip(" │") for line in capsys.readouterr().out.splitlines()]
    explained = {line.split()[0].rstrip(","): below for line, below in pairwise(lines) if re.match(r"--\w", line)}
    assert len(explained) > 40
    assert {"--preset", "--run", "--resume", "--epochs", "--model.d-model", "--optimizer.beta1"} <= explained.keys()
    assert [flag for flag, explanation in explained.items() if re.match(r"$|--|\(default", explanation)] == []
    decided_by_data = {"source-vocab-size", "target-vocab-size", "pad-id", "num-classes", "architecture"}
    assert not {f"--model.{name}" for name in decided_by_data} & explained.keys()
    assert ("--data.noise" in explained) == (task == "manifests")


@pytest.mark.parametrize("command", [[], ["--help"], ["train"], ["train", "--help"]])
def test_overviews_name_what_there_is(command: list[str], capsys: pytest.CaptureFixture[str]):
    assert run_command(*command) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in (PRESETS if "train" in command else cli.COMMANDS))


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "train"])
def test_commands_explain_themselves(command: str, capsys: pytest.CaptureFixture[str]):
    assert run_command(command, "--help") == 0
    assert f"usage: flax-transformer {command}" in capsys.readouterr().out


def test_a_command_that_is_told_to_end_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def export(name: str, rest: Sequence[str]) -> int:
        with whole_folder(tmp_path / "export"):
            signal.raise_signal(signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli, "_run", export)
    with pytest.raises(SystemExit, match="143"):
        cli.main(["export"])
    assert not list(tmp_path.iterdir())
    signal.signal(signal.SIGTERM, before)


def test_ctrl_c_within_the_garbage_collector_is_obeyed(monkeypatch: pytest.MonkeyPatch):
    """jax has a callback there, in which Python would print it and go on."""

    def interrupted(*_: object) -> None:
        gc.callbacks.remove(interrupted)
        raise KeyboardInterrupt

    def collect() -> None:
        gc.callbacks.append(interrupted)
        gc.collect()
        time.sleep(5)

    monkeypatch.setattr(sys, "unraisablehook", cli._unraisable)
    with pytest.raises(KeyboardInterrupt):
        collect()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_tells_how_to_go_on(reviews: Path, tmp_path: Path, number: signal.Signals):
    folder = tmp_path / "run"
    endless = ["--epochs", "100000", "--log-every", "1", "--data.path", str(reviews), "--run", str(folder)]
    command = [sys.executable, "train_flax.py", *CLASSIFICATION, *endless]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number, errors
    with Run.load(folder).checkpoints() as checkpoints:
        step = checkpoints.newest_step
    go_on = f"go on with: flax-transformer train classification --run {folder} --resume"
    assert errors == f"{number.name} after step {step}, which is saved; {go_on}\n"
