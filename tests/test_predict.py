"""Predictions for files: order, resumption after signals, constraints, and one clear line for each mistake of a user.

The models are exports with random weights, which generate nonsense, but do so reproducibly.
"""

import gzip
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from random_exports import CLASSES, TEXTS, save_model

from flax_transformer.cli import main as cli
from flax_transformer.cli.predict import plain_interrupts
from flax_transformer.config import BatchConfig, GenerationConfig, TokenizerConfig
from flax_transformer.data.batches import Sequences
from flax_transformer.data.constraint import json_constraint
from flax_transformer.data.tokenizer import Tokenizer, train_tokenizer
from flax_transformer.decoding.predictor import Prediction, Predictor
from flax_transformer.errors import UserError

ROOT = Path(__file__).parent.parent
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["bags", "drums"]}, "note": {"type": "string"}},
    "required": ["kind", "note"],
}
MANY = TEXTS[:300]  # several times what is written at once
SAMPLE = ("--strategy", "sample", "--max-new-tokens", "12", "--batch-size", "2")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps({"source": text}) + "\n" for text in MANY).encode()))
    return path


def predict(*arguments: str | Path) -> int:
    """The exit code."""
    return cli.main(["predict", *map(str, arguments)])


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Stopped and gone on with


def test_an_interrupt_that_jaxlib_makes_an_error_of_is_an_interrupt():
    """As where it comes while static arguments are compared."""

    def compare():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as interrupt:
            raise ValueError("static arguments should be comparable") from interrupt

    with pytest.raises(KeyboardInterrupt), plain_interrupts():
        compare()
    with pytest.raises(ValueError, match="another"), plain_interrupts():
        raise ValueError("another")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_as_if_it_had_never_been_stopped(
    generator: Path, texts: Path, tmp_path: Path, number: signal.Signals
):
    """Byte for byte, with tokens that are drawn by chance."""
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    assert predict(generator, "--file", texts, *SAMPLE, "--output", whole) == 0
    assert [line["text"] for line in lines_of(whole)] == MANY

    arguments = [str(generator), "--file", str(texts), *SAMPLE, "--output", str(stopped)]
    command = [sys.executable, "-m", "flax_transformer", "predict", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (stopped.exists() and stopped.stat().st_size):
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 128 + number, errors
        assert errors == f"stopped; go on with: flax-transformer predict {' '.join(arguments)} --resume\n"
    written = stopped.read_bytes()
    assert 0 < len(written) < len(whole.read_bytes())

    # A line that the file system has only a part of.
    stopped.write_bytes(whole.read_bytes()[: len(written) + 7])
    assert predict(*arguments, "--resume") == 0
    assert stopped.read_bytes() == whole.read_bytes()
    assert predict(*arguments, "--resume") == 0
    assert stopped.read_bytes() == whole.read_bytes()


def test_an_output_of_other_texts_is_left_alone(
    generator: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "out.jsonl"
    arguments = (generator, "--file", texts, *SAMPLE, "--output", output)
    first_rows = tmp_path / "first.jsonl"
    first_rows.write_text("".join(json.dumps({"source": text}) + "\n" for text in TEXTS[:3]), encoding="utf-8")
    assert predict(generator, "--file", first_rows, *SAMPLE, "--output", output) == 0
    lines = output.read_text(encoding="utf-8").splitlines(keepends=True)
    for content, wrong in (
        (lines[0] * 2, 2),
        ("nothing of ours\n", 1),
        ("[1]\n", 1),
        ("nothing of ours, and no end of line", 1),
        (lines[0] + "nothing of ours", 2),
        (lines[0] + lines[2], 2),
        (lines[0] + '{"row": 3', 2),
        ("[" * 100_000, 1),
    ):
        output.write_text(content, encoding="utf-8")
        assert predict(*arguments, "--resume") == 2
        message = f"line {wrong}: expected the prediction for text {wrong} of the same input"
        assert message in capsys.readouterr().err
        assert output.read_text(encoding="utf-8") == content


def test_an_output_that_something_else_made_is_left_alone(
    generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Another model, or the same one with other settings: the file would hold the predictions of two."""
    other = save_model(tmp_path / "other", "seq2seq", seed=1)
    same = shutil.copytree(generator, tmp_path / "same")
    output, texts = tmp_path / "out.jsonl", TEXTS[:3]
    settings = ("--max-new-tokens", "3", "--batch-size", "2")
    assert predict(generator, *texts, *settings, "--output", output) == 0
    written = output.read_bytes()
    whole = written.splitlines(keepends=True)
    contents = itertools.cycle((written, whole[0], whole[0] + whole[1][:9]))
    for model, changed, named in (
        (other, settings, "another weights made it"),
        (generator, ("--max-new-tokens", "4", "--batch-size", "2"), "another generation"),
        (generator, (*settings, "--strategy", "sample"), "another generation"),
        (generator, (*settings, "--strategy", "sample", "--seed", "3"), "another generation"),
        (generator, ("--max-new-tokens", "3", "--batch-size", "3"), "another batch_size"),
        (generator, (*settings, "--long", "cut"), "another long"),
    ):
        content = next(contents)
        output.write_bytes(content)
        assert predict(model, *texts, *changed, "--output", output, "--resume") == 2
        assert named in capsys.readouterr().err
        assert output.read_bytes() == content
    output.write_bytes(whole[0])
    assert predict(same, *texts, *settings, "--output", output, "--resume") == 0, (
        "a copy of the model is the same model"
    )
    assert output.read_bytes() == written


@pytest.mark.parametrize("note", [None, "", "[]", "{}", "[" * 100_000, "\xff"])
def test_an_output_without_a_note_of_what_made_it_is_left_alone(
    generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], note: str | None
):
    output = tmp_path / "out.jsonl"
    for content in ("precious", "precious\n", '{"row": 1, "text": "the film", "prediction": ""}\n'):
        output.write_text(content, encoding="utf-8")
        if note is not None:
            (tmp_path / "out.jsonl.meta.json").write_text(note, encoding="latin-1")
        assert predict(generator, "the film", "--output", output, "--resume") == 2
        assert "expected out.jsonl.meta.json beside it" in capsys.readouterr().err
        assert output.read_text(encoding="utf-8") == content


def test_a_note_is_not_written_over_something_else(generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    taken = tmp_path / "out.jsonl.meta.json"
    taken.write_text('{"precious": 1}', encoding="utf-8")
    assert predict(generator, "the film", "--output", tmp_path / "out.jsonl") == 2
    assert "but it is taken" in capsys.readouterr().err
    assert taken.read_text(encoding="utf-8") == '{"precious": 1}'
    assert not (tmp_path / "out.jsonl").exists()


def test_resume_starts_where_nothing_was_written(generator: Path, tmp_path: Path):
    output = tmp_path / "out.jsonl"
    assert predict(generator, "the film", "--max-new-tokens", "3", "--output", output, "--resume") == 0
    assert len(lines_of(output)) == 1


# Order and batches


def encode(tokenizer: Tokenizer, texts: list[str]) -> Sequences:
    return Sequences(tokenizer.encode(texts))


def make_predictor(folder: Path, size: int, **settings: Any) -> tuple[Predictor, Tokenizer]:
    from flax_transformer.training.run import load_trained

    run = load_trained(folder)
    generation = GenerationConfig(max_new_tokens=6, **settings)
    return Predictor(run.best_model(), run.tokenizer, BatchConfig(size=size), generation), run.tokenizer


@pytest.mark.parametrize("strategy", ["greedy", "sample"])
@pytest.mark.slow
def test_what_is_said_of_a_text_depends_on_its_number_alone(generator: Path, strategy: Any):
    """Not on the rows of a batch, nor on what is in it, but for rounding."""

    def predictions(size: int, first: int = 0) -> tuple[list[Any], list[Any]]:
        predictor, tokenizer = make_predictor(generator, size, strategy=strategy)
        found = list(predictor.predict(encode(tokenizer, TEXTS[:150]), first))
        return [prediction.value for prediction in found], [prediction.score for prediction in found]

    values, scores = predictions(8)
    assert len({round(score, 2) for score in scores}) > 20, "all texts are alike, so their order cannot be seen"
    other_values, other_scores = predictions(3)
    assert other_values == values
    assert other_scores == pytest.approx(scores, rel=1e-4)
    assert predictions(8, first=131) == (values[131:], scores[131:])


def test_progress_counts_what_is_new(generator: Path):
    predictor, tokenizer = make_predictor(generator, 2)
    counts: list[int] = []
    predictions = list(predictor.predict(encode(tokenizer, TEXTS[:20]), 7, counts.append))
    assert sum(counts) == len(predictions) == 13
    assert max(counts) == 2


def test_the_next_best_outputs_are_told(generator: Path):
    predictor, tokenizer = make_predictor(generator, 4, strategy="beam", beam_width=3, n_best=3)
    for best in predictor.predict(encode(tokenizer, TEXTS[:5])):
        outputs = [best, *best.alternatives]
        assert len({output.value for output in outputs}) == len(outputs) == 3
        scores: list[Any] = [output.score for output in outputs]
        assert scores == sorted(scores, reverse=True)


def test_a_class_comes_with_its_probability(classifier: Path, capsys: pytest.CaptureFixture[str]):
    assert predict(classifier, *TEXTS[:9]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == TEXTS[:9]
    assert {line["prediction"] for line in lines} <= set(CLASSES)
    assert all(1 / 3 <= line["score"] <= 1 for line in lines)


def test_an_output_that_was_cut_off_says_so(generator: Path, capsys: pytest.CaptureFixture[str]):
    assert predict(generator, "the film", "--max-new-tokens", "1") == 0
    assert json.loads(capsys.readouterr().out)["complete"] is False
    assert Prediction("", 0.0).complete


# Constraints


def test_every_output_is_json_of_the_schema(generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    texts, settings = TEXTS[:12], ("--max-new-tokens", "32")
    for strategy in ("greedy", "sample", "beam"):
        capsys.readouterr()
        assert predict(generator, *texts, *settings, "--schema", schema, "--strategy", strategy) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        outputs = [json.loads(line["prediction"]) for line in lines]
        assert [list(output) for output in outputs] == [["kind", "note"]] * len(texts)
        assert {output["kind"] for output in outputs} <= {"bags", "drums"}
        assert not any("complete" in line for line in lines)
    assert predict(generator, *texts, *settings) == 0
    free = [json.loads(line)["prediction"] for line in capsys.readouterr().out.splitlines()]
    assert not any(text.startswith("{") for text in free), "the model writes JSON of its own accord"


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**6},
        {"type": "string", "pattern": "(a|b)*a(a|b){24}"},
        {"type": "string", "pattern": "([a-z]{1,500}){1,500}"},
        {"type": "array", "minItems": 10**12, "items": {"type": "null"}},
    ],
    ids=str,
)
def test_a_schema_that_is_too_large_is_refused_in_time(value: dict[str, Any]):
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS)
    schema = {"type": "object", "properties": {"x": value}, "required": ["x"]}
    start = time.monotonic()
    with pytest.raises(UserError, match="JSON schema: expected"):
        json_constraint(schema, tokenizer)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("spaces", ["joined", "isolated"])
def test_the_automaton_accepts_json_of_the_schema_and_nothing_else(spaces: Literal["joined", "isolated"]):
    config = TokenizerConfig(vocab_size=320, spaces=spaces)
    tokenizer = train_tokenizer(config, [json.dumps({"kind": "bags", "note": "x"})] * 3)
    constraint = json_constraint(SCHEMA, tokenizer)

    def end(text: str) -> int:
        """The state behind a text and the end token; negative where the automaton refuses it."""
        state = 0
        for token in [*tokenizer.encode([text])[0], tokenizer.eos_id]:
            state = int(constraint.transitions[state, token])
            if state < 0:
                break
        return state

    for note in ("", "pöor", 'a "quoted" \\ note', "tab\t", "\x01", "日本"):
        for keeps_unicode in (True, False):
            text = json.dumps({"kind": "bags", "note": note}, separators=(",", ":"), ensure_ascii=not keeps_unicode)
            assert end(text) == len(constraint.transitions) - 1, text
    for text in ('{"kind":"boxes","note":""}', '{"kind":"bags"}', '{"note":"","kind":"bags"}', "", '{"kind":"bags",'):
        assert end(text) < 0, text


def test_each_state_knows_how_far_the_end_is():
    constraint = json_constraint(SCHEMA, train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS))
    transitions, distances = constraint
    assert distances[-1] == 0
    for state in range(len(distances) - 1):
        following = transitions[state][transitions[state] >= 0]
        assert distances[state] == distances[following].min() + 1


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: expected --output FILE"),
        (["--output", "taken"], "taken: .* exists; go on with --resume"),
        (["--file", "texts.txt"], "expected texts or --file, got both"),
        (["--json"], "does not know the JSON of its outputs; give it with --schema"),
        (["--schema", "no.json"], r"no\.json: expected a JSON schema, but it cannot be read"),
        (["--schema", "taken"], "taken: expected a JSON schema, got something else"),
        (["--schema", "list.json"], r"list\.json: expected a JSON schema, got list"),
        (["--schema", "odd.json"], "JSON schema: expected one that outlines-core can follow"),
        (["--schema", "good.json", "--max-new-tokens", "9"], "max_new_tokens: expected at least .* shortest output"),
        (["--schema", "good.json", "--min-new-tokens", "9"], "min_new_tokens: a constraint says"),
        (["--max-new-tokens", "65"], "max_new_tokens: expected at most the model's max_length=64, got 65"),
        (["--strategy", "beam", "--beam-width", "400"], "beam_width: expected at most the vocabulary size"),
        (["--top-p", "1.5"], r"top_p: expected a number in \(0, 1\], got 1\.5"),
        (["--batch-size", "0"], "size: expected a whole number of at least 1, got 0"),
        (["--n-best", "2"], "n_best: expected at most 1 with strategy='greedy'"),
        (["--beam-width", "8"], "--beam-width: expected --strategy beam too, got greedy"),
        (["--strategy", "beam", "--temperature", "0.5"], "--temperature: expected --strategy sample too, got beam"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    generator: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    files = {"taken": "taken", "list.json": "[]", "odd.json": '{"type": "horse"}', "good.json": json.dumps(SCHEMA)}
    for name, content in files.items():
        Path(name).write_text(content, encoding="utf-8")
    output = [] if "--output" in arguments or "--resume" in arguments else ["--output", "out.jsonl"]
    assert predict(generator, "the film", *arguments, *output) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert re.search(message, errors[0]), errors[0]
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == files


def test_a_classifier_does_not_generate(classifier: Path, capsys: pytest.CaptureFixture[str]):
    for arguments in (["--json"], ["--strategy", "beam"], ["--max-new-tokens", "3"]):
        assert predict(classifier, "the film", *arguments) == 2
        assert "expected no flags of generation, since it is a classifier" in capsys.readouterr().err


def test_the_run_comes_first(capsys: pytest.CaptureFixture[str]):
    assert predict("--file", "texts.txt", "RUN") == 2
    assert "expected the folder of a run before all flags, got --file" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_told(generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import safetensors.numpy

    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", str(generator), str(broken)], check=True)
    weights = safetensors.numpy.load_file(broken / "model.safetensors")
    weights["source_table.weight"][:] = np.nan
    safetensors.numpy.save_file(weights, broken / "model.safetensors")
    assert predict(broken, "the film", "--max-new-tokens", "3") == 2
    assert "logits are not finite" in capsys.readouterr().err


def test_a_closed_pipe_ends_quietly(generator: Path):
    command = [sys.executable, "-m", "flax_transformer", "predict", str(generator), *SAMPLE]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write("\n".join(TEXTS).encode())
    process.stdin.close()
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stderr.close()
