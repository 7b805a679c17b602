"""The page of a run: its figures are those of the run, it is whole whatever the texts hold, bad input is one line."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checked_pages import check_page
from command_line import TINY, error_line, run_command

from flax_transformer.config import ManifestsData, ModelConfig
from flax_transformer.data.calibration import accepted_at, reliability
from flax_transformer.data.confusion import confusion_matrix
from flax_transformer.data.fields import field_outcomes
from flax_transformer.data.manifests.task import load_manifests, score_manifests
from flax_transformer.nn.models import Seq2Seq, create_model
from flax_transformer.report import attention
from flax_transformer.report.curves import smoothed
from flax_transformer.report.facts import read_facts
from flax_transformer.report.head import reproduce
from flax_transformer.report.mistakes import differences
from flax_transformer.training.evaluate import Evaluator
from flax_transformer.training.run import Run

NASTY = "<script>alert(1)</script>"


def train(task: str, path: Path, rows: list[dict[str, Any]], *flags: str) -> Path:
    """The folder of a tiny run on these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = path.with_name(task)
    common = [*TINY, "--batch.max-source-length", "64", "--log-every", "1"]
    assert run_command("train", task, *common, *flags, "--data.path", path, "--run", run) == 0
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a run of a classifier, whose texts and labels are HTML."""
    folder, labels = tmp_path_factory.mktemp("report"), ["<b>good</b>", "poor & 'odd'"]
    rows = [{"text": f"{NASTY} {labels[i % 2][:5]} film {i}", "label": labels[i % 2 * (i % 9 > 0)]} for i in range(90)]
    train("classification", folder / "rows.jsonl", rows, "--epochs", "3")
    return folder


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that writes JSON."""
    pairs = [{"source": f"say {i} {NASTY}", "target": json.dumps({"n": i, "in": [{"t": NASTY}]})} for i in range(48)]
    path = tmp_path_factory.mktemp("report") / "pairs.jsonl"
    return train("seq2seq", path, pairs, "--batch.max-target-length", "64")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the classifier's run, to be damaged."""
    return Path(shutil.copytree(folder / "classification", tmp_path / "run"))


def page_of(run: Path, *flags: str | Path) -> str:
    assert run_command("report", run, *flags) == 0
    return (run / "report.html").read_text(encoding="utf-8")


def check_figures(run: Path, page: str, printed: str) -> None:
    """The figures of a classifier's page are those of its results, and those that evaluate prints of the same texts."""
    text = check_page(page)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert f"{results['test']['accuracy']:.1%} accuracy, test" in text
    assert f"{results['validation']['accuracy']:.1%} accuracy, validation {results['step']:,} best step" in text
    assert f"loss {results['validation']['loss']:.4f} {results['test']['loss']:.4f}" in text
    assert f"negative log-likelihood (NLL) {results['test']['loss']:.4f}" in text
    found = re.findall(r"^macro f1 ([\d.]+%)|^calibration error .* ([\d.]+%)$", printed, re.MULTILINE)
    (_, ece), (macro, _) = found
    assert f"Macro F1: {macro}" in text
    assert f"expected calibration error (ECE, 15 bins) {ece}" in text
    for risk, share in re.findall(r"at most (\d%) wrong among the surest ([\d.]+%)", printed):
        assert f"can be accepted at a risk of {risk} {'none' if share == '0.0%' else share}" in text
    by_class = re.findall(r"^(?:<b>good</b>|poor & 'odd') +(?:[\d.]+% +){3}\d+$", printed, re.MULTILINE)
    assert len(by_class) == 2
    assert all(" ".join(line.split()) in text for line in by_class)
    confusion = re.findall(r"^(?:<b>good</b>|poor & 'odd') +(\d+) +(\d+)$", printed, re.MULTILINE)
    counts = dict(re.findall(r"<title>([^<]+ taken for [^<]+): (\d+) of", page))
    assert list(counts.values()) == [count for row in confusion for count in row]
    mistakes = re.search(r"of the (\d+) predictions that are not as expected", text)
    assert mistakes is not None
    assert int(mistakes[1]) == int(confusion[0][1]) + int(confusion[1][0])


@pytest.fixture
def printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What evaluate prints of the classifier."""
    capsys.readouterr()
    assert run_command("evaluate", folder / "classification") == 0
    return capsys.readouterr().out


def test_the_page_of_a_classifier_has_the_figures_of_its_run(
    folder: Path, printed: str, capsys: pytest.CaptureFixture[str]
):
    run = folder / "classification"
    page = page_of(run)
    assert capsys.readouterr().out.endswith(f"{run / 'report.html'}\n")
    check_figures(run, page, printed)
    assert "<script>alert" in check_page(page), "the mistakes quote the texts"


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("classes.confusion_matrix", lambda predictions, targets, n: confusion_matrix(targets, predictions, n)),
        ("confidence.reliability", lambda confidence, right: reliability(confidence, right, 5)),
        ("confidence.accepted_at", lambda curve, risk: accepted_at(curve, 20 * risk)),
        ("answers.outcomes", lambda data, values, examples: [value == 0 for value in values]),
    ],
)
def test_wrong_figures_are_seen(
    folder: Path, printed: str, monkeypatch: pytest.MonkeyPatch, name: str, mistake: Callable[..., Any]
):
    run = folder / "classification"
    monkeypatch.setattr(f"flax_transformer.report.{name}", mistake)
    with pytest.raises(AssertionError):
        check_figures(run, page_of(run), printed)


@pytest.mark.slow
def test_the_page_of_a_generator_has_the_figures_of_its_run(generator: Path, capsys: pytest.CaptureFixture[str]):
    run = generator
    page = page_of(run, "--split", "validation")
    text = check_page(page)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert f"exact match {results['validation']['exact_match']:.1%} {results['test']['exact_match']:.1%}" in text
    assert re.search(r"field right values (in\.t|n) ", text)
    assert "Cross-attention of the last layer" in text
    assert "mean confidence" in text
    assert text.count(NASTY) > 2
    assert "not as expected" in text
    capsys.readouterr()


def test_a_page_of_few_texts_says_so(folder: Path):
    text = check_page(page_of(folder / "classification", "--limit", "3", "--batch-size", "2"))
    assert "Predictions are of 3 evenly spaced texts of the" in text
    assert "this page, 3 texts" in text
    assert "predictions 3 " in text


def test_a_page_of_any_labelled_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "page.html"
    flags = ["--file", folder / "rows.jsonl", "--output", output]
    assert run_command("report", folder / "classification", *flags) == 0
    text = check_page(output.read_text(encoding="utf-8"))
    assert "this page, 90 texts" in text
    assert "among those that the run was trained on" in capsys.readouterr().err
    assert run_command("report", folder / "classification", *flags, "--limit", "1") == 0, "a page may be replaced"


def check_left_out(run: Path, reason: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    text = check_page(page_of(run))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("warning: there are no predictions on the page: ")
    assert reason in told[0]
    assert f"There are no predictions on this page: {told[0].partition('page: ')[2]}" in text
    assert "Learning curves" in text
    assert "Mistakes" not in text
    return text


@pytest.fixture
def data(folder: Path) -> Iterator[Path]:
    """The file that the classifier was trained on, to be changed."""
    path = folder / "rows.jsonl"
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def test_without_its_data_a_run_still_has_curves(copied: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    data.unlink()
    check_left_out(copied, "rows.jsonl: expected a file", capsys)


def test_changed_data_is_not_taken_for_that_of_the_run(copied: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
    data.write_text("".join(lines[:70]), encoding="utf-8")
    check_left_out(copied, "expected the test split that the run was made with, got another", capsys)
    assert run_command("evaluate", copied) == 0, "which evaluate warns of"


def test_an_interrupted_run_says_how_far_it_is(copied: Path):
    (copied / "results.json").unlink()
    with (copied / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 99, "epo')
    text = check_page(page_of(copied))
    assert "The run has not ended: it is at step" in text
    assert f"train classification --run {copied} --resume" in text
    assert "accuracy, test" not in text
    assert "Mistakes" in text


def test_a_run_without_a_checkpoint_yet(copied: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(copied / "checkpoints")
    (copied / "results.json").unlink()
    (copied / "metrics.jsonl").unlink()
    text = check_left_out(copied, "there is none; go on with --resume first", capsys)
    assert "it is at step 0" in text
    assert "has not logged anything yet" in text


@pytest.mark.slow
def test_a_model_of_masked_tokens_has_curves_alone(folder: Path, capsys: pytest.CaptureFixture[str]):
    run = folder / "masked"
    data = ["--data.path", folder / "rows.jsonl", "--data.text-column", "text", "--batch.max-source-length", "64"]
    assert run_command("train", "masked", *TINY, *data, "--epochs", "1", "--run", run) == 0
    capsys.readouterr()
    text = check_page(page_of(run))
    assert capsys.readouterr().err == ""
    assert "perplexity" in text
    assert "no predictions" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent"], "absent: expected the folder of a run"),
        (["."], "expected a run folder, but there is no config.json"),
        (["classification", "--limit", "0"], "--limit: expected a whole number of at least 1, got 0"),
        (["classification", "--batch-size", "-1"], "--batch-size: expected a whole number of at least 1, got -1"),
        (["classification", "--limit", "x"], "report --help explains all flags"),
        (["classification", "--file", "absent.jsonl"], "absent.jsonl"),
        (["classification", "--file", "notes.txt"], "notes.txt"),
        (["classification", "--output", "absent/page.html"], "expected its folder absent to exist"),
        (["classification", "--output", "notes.txt"], "notes.txt: expected a name that is not taken"),
        (["classification", "--output", "classification"], "expected a name that is not taken"),
        (["classification", "more"], "report --help explains all flags"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    monkeypatch.chdir(folder)
    (folder / "notes.txt").write_text("precious", encoding="utf-8")
    before = sorted(folder.rglob("*"))
    assert words in error_line(capsys, "report", *arguments)
    assert sorted(folder.rglob("*")) == before


def test_an_export_has_no_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Run.load(folder / "classification").export(tmp_path / "export")
    assert "expected a run, got an export" in error_line(capsys, "report", tmp_path / "export")


# Parts


def test_wall_time_adds_up_over_the_clocks_of_a_run_that_was_resumed(copied: Path):
    rows = [(1, 2.0, 0.5), (2, 5.0, 0.9), (3, 1.0, 0.9), (4, 4.5, 0.2)]
    lines = [json.dumps({"step": n, "epoch": n, "seconds": s, "validation/accuracy": a}) for n, s, a in rows]
    (copied / "metrics.jsonl").write_text("\n".join([*lines[:2], "{broken", *lines[2:], "[1]", ""]), encoding="utf-8")
    (copied / "results.json").write_text('{"step": 2, "test": {"accuracy": 0.5}}', encoding="utf-8")
    facts = read_facts(Run.load(copied))
    assert facts.seconds == 9.5
    assert facts.best == (2, {"accuracy": 0.9}), "of equals, the one that the test was taken with"
    (copied / "results.json").write_text("{", encoding="utf-8")
    assert read_facts(Run.load(copied)).best == (3, {"accuracy": 0.9}), "otherwise the later one"


@pytest.mark.slow
def test_the_command_reproduces_the_run(copied: Path, capsys: pytest.CaptureFixture[str]):
    command = reproduce(read_facts(Run.load(copied))).split()
    assert run_command(*command[1:]) == 0
    again = Path(f"{copied}-again")
    first, second = (json.loads((run / "results.json").read_text(encoding="utf-8")) for run in (copied, again))
    assert first == second
    capsys.readouterr()


def test_smoothed_lines_keep_straight_lines_and_leave_out_what_is_not_finite():
    line = np.arange(500.0)
    np.testing.assert_allclose(smoothed(line.tolist()), line)
    noise = np.random.default_rng(0).normal(size=500)
    assert np.std(smoothed(noise.tolist())[10:-10]) < 0.5
    assert smoothed([1.0, float("nan"), 3.0]) == [1.0, 2.0, 3.0]
    assert np.isnan(smoothed([float("nan")])).all()


@pytest.mark.parametrize(
    ("spoil", "exact"),
    [
        (lambda target: target, True),
        (lambda target: target.replace('"unit":"KGM"', '"unit":"LBR"'), None),
        (lambda target: target.replace('"items":[{', '"items":[{},{'), False),
        (lambda target: target[:-3], False),
    ],
)
def test_fields_of_any_json_are_those_that_manifests_are_scored_by(spoil: Callable[[str], str], exact: bool | None):
    data = ManifestsData(train_size=1, validation_size=1, test_size=40)
    references = list(load_manifests(data, 0).test.targets)
    predictions = [spoil(target) for target in references]
    found = field_outcomes(predictions, references)
    assert found is not None
    scores = score_manifests(predictions, references)
    expected = {name.removeprefix("field/"): value for name, value in scores.items() if name.startswith("field/")}
    assert {name: np.mean(outcomes) for name, outcomes in found.items()} == pytest.approx(expected)
    if exact is not None:
        assert all(map(all, found.values())) == exact


def test_fields_that_no_schema_names():
    references = ['{"a": 1, "b": {"c": {"d": 1}}, "e": [], "f": ["x", "y"], "g": {}}']
    found = field_outcomes(['{"a": 1, "b": {"c": {"d": 2}}, "f": ["x", "y"]}'], references)
    assert found == {"a": [True], "b.c": [False], "e": [False], "f": [True]}
    assert field_outcomes(["[1]"], references) == {"a": [False], "b.c": [False], "e": [False], "f": [False]}
    assert field_outcomes(["{}", "{}"], [*references, "no JSON"]) is None


def test_differences_hold_both_texts_as_they_are():
    expected, predicted = '{"a":"x <b> y","n":12}', '{"a":"x <i> y y","n":1}'
    first, second = differences(expected, predicted)
    for marked, text, tag in ((first, expected, "del"), (second, predicted, "ins")):
        assert check_page(f"<!doctype html><p>{marked}</p>").replace(" ", "") == text.replace(" ", "")
        assert f"<{tag}>" in marked
    assert differences("same", "same") == ("same", "same")
    assert "<del>12</del>" in first


def test_attention_of_a_row_is_that_of_the_token_written_next():
    """No row sees its own token or a later one, each but the first sees the one before it, and the source matters."""
    config = ModelConfig(d_model=16, num_heads=2, d_ff=16, num_encoder_layers=1, num_decoder_layers=2)
    model = create_model(config, 0)
    assert isinstance(model, Seq2Seq)
    source, outputs = [5, 6, 7, 8, 9], [10, 11, 12, 13]
    weights = attention.cross_attention(model, source, outputs)
    assert weights.shape == (2, 4, 5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    moved = [
        np.abs(attention.cross_attention(model, source, [*outputs[:i], 20, *outputs[i + 1 :]]) - weights).max((0, 2))
        > 1e-6
        for i in range(4)
    ]
    assert [row.tolist() for row in moved] == [[j > i for j in range(4)] for i in range(4)]
    assert np.abs(attention.cross_attention(model, source[::-1], outputs) - weights).max() > 1e-3


def test_predictions_are_those_of_an_evaluation(folder: Path):
    """The values and scores of ``evaluate``; the probabilities of all classes sum to 1, the best one first."""
    from flax_transformer.data.tasks import load_splits, outcomes

    run = Run.load(folder / "classification")
    examples = load_splits(run.config.data, run.config.seed, run.classes).test
    evaluator = Evaluator(examples, run.tokenizer, run.config)
    model = run.best_model()
    predictions, scores = evaluator.predict(model, top=2)
    assert ([prediction.value for prediction in predictions], scores) == evaluator.evaluate(model)
    each = np.array([[one.score, *(other.score for other in one.alternatives)] for one in predictions])
    np.testing.assert_allclose(each.sum(axis=1), 1, rtol=1e-5)
    assert (each[:, 0] >= each[:, 1]).all()
    right = outcomes(run.config.data, [prediction.value for prediction in predictions], evaluator.examples)
    assert np.mean(right) == scores["accuracy"]
