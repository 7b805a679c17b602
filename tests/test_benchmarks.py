"""Benchmarks from the command line, and what they do with what goes wrong."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flax_transformer.bench import throughput
from flax_transformer.bench.agreement import compare
from flax_transformer.bench.checks import check_files
from flax_transformer.bench.measure import pair_ratios
from flax_transformer.bench.records import Record, load_record
from flax_transformer.bench.torch_side import Torch
from flax_transformer.bench.workload import make_config
from flax_transformer.cli import main as cli
from flax_transformer.cli.bench import BENCHMARKS, bench
from flax_transformer.errors import UserError

pytestmark = [pytest.mark.optimized, pytest.mark.usefixtures("short_turns")]

SMALL = ["--batch", "2", "--length", "16", "--rounds", "2"]


class Mistaken(Torch):
    """The PyTorch twin with another epsilon in its norms."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for module in self.model.modules():
            if hasattr(module, "eps"):
                module.eps = 1e-4


@pytest.mark.slow
def test_a_benchmark_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "record.json", tmp_path / "record.png"
    arguments = ["bench", "train", *SMALL, "--against", "torch", "--json", str(file), "--plot", str(picture)]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "flax is" in shown
    assert picture.read_bytes()[1:4] == b"PNG"
    record = load_record(file)
    assert {"device", "processor", "threads", "memory_gib", "versions", "commit", "launch"} <= record.machine.keys()
    assert {"jax", "torch", "python"} <= record.machine["versions"].keys()
    assert record.settings["model"]["d_model"] == 256
    assert record.settings["model"]["attention_dropout"] == 0.1
    for own in record.results["candidates"].values():
        assert len(own["seconds"]) == 2
        assert own["tokens_per_second"] == pytest.approx(32 / own["step_seconds"])
        assert own["memory"]["rss"] > 2**27
        assert 0 < own["flops_utilisation"] < 1
    ours, theirs = (record.results["candidates"][name] for name in ("flax", "torch"))
    assert theirs["ratios"] == pair_ratios(ours["seconds"], theirs["seconds"])
    assert record.results["agreement"]["torch"]["logits"] <= 16


@pytest.mark.slow
def test_candidates_that_differ_are_not_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(throughput.MAKERS, "torch", "test_benchmarks:Mistaken")
    file = tmp_path / "record.json"
    assert bench(["forward", *SMALL, "--against", "torch", "--json", str(file)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"torch does not compute what flax computes: logits [\d.e+]+ scaled ULP apart", shown)
    assert "faster" not in shown
    assert not file.exists()


@pytest.mark.slow
def test_an_absent_candidate_is_a_line_and_the_others_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(throughput.MAKERS, "hf", "a_package_that_is_not_there:Anything")
    assert bench(["forward", *SMALL, "--against", "hf", "torch-nn"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "hf took no part: needs a_package_that_is_not_there, which is not installed" in shown
    assert "the best of PyTorch" in shown


def test_agreement_sees_float32_rounding_as_such(tmp_path: Path) -> None:
    """compare() against outputs that are the same but for one unit, or for a thousand."""

    class Fixed:
        def __init__(self, logits: np.ndarray) -> None:
            self.logits = logits

        def call(self, method: str, *arguments: Any) -> float:
            # A twin that rounds nothing, whatever the candidate gives.
            np.save(arguments[-1], self.logits if method == "outputs" else np.ones(8))
            return 1.0

    logits = np.linspace(1, 2, 8, dtype=np.float32)
    model = make_config("tiny").model
    fixed: Any = [Fixed(logits), Fixed(logits * (1 + 2**-22)), Fixed(logits * (1 + 2**-13))]
    agreements, refused = compare(model, fixed[0], {"near": fixed[1], "far": fixed[2]})
    assert agreements["near"].holds
    assert not agreements["far"].holds
    assert not refused


@pytest.mark.slow
def test_an_epoch_from_the_file_to_its_metrics(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["split,label,text"]
    for row in range(160):
        words = rng.choice(["film", "plot", "good", "poor", "long", "loud", "dull"], size=rng.integers(3, 40))
        lines.append(f"{'train' if row < 80 else 'test'},{row % 2},{' '.join(words)} {row}")
    reviews, file = tmp_path / "reviews.csv", tmp_path / "record.json"
    reviews.write_text("\n".join(lines) + "\n")
    flags = ["--data.path", str(reviews), "--data.split", "official", "--fraction", "1", "--rounds", "1"]
    assert bench(["e2e", *flags, "--json", str(file)]) == 0
    results = load_record(file).results
    candidates = results["candidates"]
    assert candidates.keys() == {"flax", "torch-longest", "torch-buckets"}
    for own in candidates.values():
        assert sum(tokens for _, tokens in own["turns"]) == results["train_tokens"]  # every example once
        assert own["ratio"] > 0 if "ratio" in own else own is candidates["flax"]
        assert own["epoch_seconds"] > results["seconds"]["tokenizer"]
    assert 0 < results["waste"]["buckets"] < results["waste"]["longest"] < 1


# --- wrong input ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "expected a benchmark, one of train"),
        (["train", "--rounds", "0"], "--rounds: expected a whole number of at least 1, got 0"),
        (["train", "--dropout", "1.5"], r"ModelConfig.dropout: expected a number in \[0, 1\)"),
        (["train", "--batch", "-1"], "BatchConfig.size: expected a whole number of at least 1"),
        (["attention", "--backends", "magic"], "--backends: expected some of xla"),
        (["attention", "--lengths", "0"], "--lengths: expected whole numbers of at least 1, got 0"),
        (["mixers", "--lengths", "0"], "--lengths: expected whole numbers of at least 1, got 0"),
        (["mixers", "--distances", "8", "-1"], "--distances: expected whole numbers of at least 1, got 8 -1"),
        (["e2e", "--fraction", "2"], r"--fraction: expected a number in \(0, 1\], got 2"),
        (["input", "--steps", "0"], "--steps: expected a whole number of at least 1, got 0"),
        (["attention", "--backends"], "--backends: expected some of xla, .*, got none"),
        (["attention", "--heads", "0"], "--heads: expected a whole number of at least 1, got 0"),
        (["mixers", "--width", "127"], "not all mixers can take part: .*num_heads: expected a divisor of d_model=127"),
        (["mixers", "--layers", "0"], "--layers: expected a whole number of at least 1, got 0"),
        (["startup", "--repeats", "0"], "--repeats: expected a whole number of at least 1, got 0"),
        (["generate", "throughput", "--batches", "8", "0"], "--batches: expected whole numbers of at least 1, got 8 0"),
        (["plans", "--topologies", "v9:1x1"], "--topologies: expected some of v5e:2x4, .*, got v9:1x1"),
        (["forward", "--plot", __file__], "expected a name that is not taken, but it exists"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench(arguments)


def test_a_record_takes_the_place_of_an_older_one_alone(tmp_path: Path) -> None:
    file, precious = tmp_path / "record.json", tmp_path / "precious.json"
    Record("train", "tiny", {}, {}).save(file)
    check_files(file)
    check_files(tmp_path)
    precious.write_text('{"settings": {}}')
    with pytest.raises(UserError, match=r"precious\.json: expected a name that is not taken"):
        check_files(precious)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU can serve it")
def test_the_large_preset_is_for_a_gpu() -> None:
    with pytest.raises(UserError, match=r"--preset large: needs a GPU"):
        bench(["train", "--preset", "large"])


def test_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in BENCHMARKS)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
def test_attention_memory_is_linear_on_a_gpu(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    lengths = ["1024", "2048", "4096", "8192"]
    assert (
        bench(["attention", "--dtype", "bfloat16", "--backends", "cudnn", "--lengths", *lengths, "--json", str(file)])
        == 0
    )
    assert load_record(file).results["backends"]["cudnn"]["exponents"]["memory"] < 1.2
