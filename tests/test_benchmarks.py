"""Benchmarks: the arithmetic of their figures, their processes, and what they do with what goes wrong."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from benchmarks import docs
from flax_transformer.bench import measure, mixers, plot, throughput
from flax_transformer.bench.agreement import compare
from flax_transformer.bench.attention import fit_exponent
from flax_transformer.bench.e2e import parts_of
from flax_transformer.bench.measure import Measured, pair_ratios, spread, take_turns
from flax_transformer.bench.mixers_side import PAIRS, draw_recall
from flax_transformer.bench.records import Record, load_record
from flax_transformer.bench.torch_side import Torch
from flax_transformer.bench.worker import Candidate, Refused, Turn, Worker
from flax_transformer.bench.workload import make_batches, make_config
from flax_transformer.cli import main as cli
from flax_transformer.cli.bench import BENCHMARKS, bench
from flax_transformer.errors import UserError
from flax_transformer.planning.flops import forward_flops, tokens_per_step, train_flops
from flax_transformer.training.step import TrainStep

pytestmark = pytest.mark.optimized


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed here is not the point."""
    monkeypatch.setattr(measure, "TURN_SECONDS", 0.05)


SMALL = ["--batch", "2", "--length", "16", "--rounds", "2"]

# --- the arithmetic ---


@pytest.mark.parametrize("preset", ["tiny", pytest.param("assignment", marks=pytest.mark.slow), "base"])
def test_flops_are_those_that_xla_counts(preset: Any) -> None:
    config = make_config(preset, dropout=0.0, batch=4)
    if preset == "base":  # fewer layers are traced faster, and no layer is unlike the others
        config = replace(config, model=replace(config.model, num_encoder_layers=1, num_decoder_layers=2))
    step = TrainStep(config, total_steps=10)
    [batch] = make_batches(config, 1)
    lowered = jax.jit(lambda state, batch: step(state, batch)).lower(jax.eval_shape(step.init), batch)
    costs: Any = lowered.cost_analysis()
    counted = costs["flops"]
    assert train_flops(config) == pytest.approx(counted, rel=0.05)
    longer = replace(config, batch=replace(config.batch, max_source_length=2 * config.batch.max_source_length))
    assert train_flops(longer) > 1.05 * counted


def test_a_training_step_is_three_forward_passes() -> None:
    config = make_config("base")
    assert train_flops(config) == 3 * forward_flops(config)


def test_pairs_are_compared_within_their_round() -> None:
    ours, theirs = [1.0, 2.0, 4.0], [2.0, 3.0, 4.0]
    assert pair_ratios(ours, theirs) == [2.0, 1.5, 1.0]
    with pytest.raises(ValueError, match=r"longer|shorter"):
        pair_ratios(ours, theirs[:2])


def test_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert spread([10.0]) == 0
    assert spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.1)
    assert spread([8.0, 9.0, 10.0, 11.0, 1200.0]) == pytest.approx(0.1)  # one bad turn does not widen it


@pytest.mark.parametrize("power", [1, 2])
def test_the_fitted_exponent_is_the_power_of_the_length(power: int) -> None:
    lengths = [2.0**i for i in range(7, 14)]
    points = [(length, 3 * length**power) for length in lengths]
    assert fit_exponent(points) == pytest.approx(power)
    floor = [(length, max(value, 3 * 512.0**power)) for length, value in points]  # short lengths cost a constant
    assert fit_exponent(floor) == pytest.approx(power)
    assert fit_exponent(points[:1]) is None


def test_tokens_of_a_step() -> None:
    assert tokens_per_step(make_config("tiny", batch=3, length=5)) == 15
    config = make_config("base", batch=3, length=5)
    [batch] = make_batches(config, 1)
    assert tokens_per_step(config) == 30
    assert batch.source.shape == (3, 5)
    assert batch.target.shape == (3, 6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("steps", "rounds", "fraction", "parts"),
    [(469, 5, 0.03, [2, 3, 3, 3, 3]), (10, 2, 1.0, [5, 5]), (100, 4, 0.01, [1] * 4), (2, 3, 1.0, [0, 1, 1])],
)
def test_a_fraction_of_an_epoch_is_cut_into_equal_parts(
    steps: int, rounds: int, fraction: float, parts: list[int]
) -> None:
    assert parts_of(steps, rounds, fraction) == parts


# --- turns ---


class Clock:
    """A candidate that says how long its steps take, and stands in for its own process."""

    def __init__(
        self,
        seconds: float,
        log: list[str],
        name: str,
        fails_after: float = math.inf,
        loads: Sequence[float] = (),
    ) -> None:
        self.seconds, self.log, self.name, self.left = seconds, log, name, fails_after
        self.loads = iter(loads)

    def call(self, method: str, *arguments: int) -> Any:
        if method == "memory":
            return {"rss": 1}
        self.left -= 1
        if self.left < 0:
            raise Refused("no memory left")
        self.log.append(self.name)
        background_load = next(self.loads, 0.0)
        seconds = (1 + background_load) * self.seconds * arguments[0]
        return Turn(0.1 * seconds, seconds, background_load)


def test_candidates_take_turns() -> None:
    log: list[str] = []
    workers: Any = {"a": Clock(0.5, log, "a"), "b": Clock(5.0, log, "b")}
    measured = take_turns(workers, rounds=3)
    assert "".join(log) == "ab" * 6  # a first step, two rounds to warm up, three that count
    assert measured["a"].seconds == pytest.approx([0.5] * 3)
    assert measured["a"].dispatch == pytest.approx([0.05] * 3)
    assert measured["a"].first == pytest.approx(0.5)


def test_a_candidate_that_fails_leaves_the_others_running() -> None:
    workers: Any = {"a": Clock(1.0, [], "a"), "b": Clock(1.0, [], "b", fails_after=4)}
    measured = take_turns(workers, rounds=3)
    assert measured["b"] == Measured(refused="no memory left", first=1.0)
    assert len(measured["a"].seconds) == 3


def test_rounds_that_others_disturb_are_repeated() -> None:
    workers: Any = {"a": Clock(1.0, [], "a", loads=[0, 0, 0, 0.5, 0, 0.2]), "b": Clock(2.0, [], "b")}
    measured = take_turns(workers, rounds=3)
    assert measured["a"].seconds == [1.0] * 3
    assert measured["a"].background_load == [0.0] * 3
    never_calm: Any = {"a": Clock(1.0, [], "a", loads=[0] * 3 + [0.5, 0.4, 0.3, 0.2, 0.6, 0.7, 0.8, 0.9])}
    measured = take_turns(never_calm, rounds=2)
    assert measured["a"].background_load == [0.3, 0.2]  # the calmest, in their order


# --- processes ---


class Trouble(Candidate):
    """A candidate for each thing that can go wrong."""

    def user_error(self) -> None:
        raise UserError("take another config")

    def too_large(self) -> int:
        return np.ones(2**50, np.int8).sum()

    def missing(self) -> None:
        import a_package_that_is_not_there  # noqa: F401  # pyright: ignore[reportMissingImports]

    def crash(self) -> None:
        raise KeyError("a mistake of the program")

    def abort(self) -> None:
        import os

        os.abort()


@pytest.fixture(scope="module")
def trouble() -> Any:
    worker = Worker("test_benchmarks:Trouble")
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("user_error", r"^take another config$"),
        ("too_large", r"^too large for the memory \(.*\); take a smaller --batch"),
        ("missing", r"^needs a_package_that_is_not_there, which is not installed$"),
        ("crash", r"^KeyError in .*test_benchmarks.py:\d+: 'a mistake of the program'$"),
    ],
)
def test_what_goes_wrong_in_a_candidate_is_one_line(trouble: Worker, method: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        trouble.call(method)
    assert trouble.call("memory")["rss"] > 2**20  # it lives on


def test_the_end_of_a_process_is_a_refusal() -> None:
    worker = Worker("test_benchmarks:Trouble")
    with pytest.raises(Refused, match=r"ended by SIGABRT; most likely the memory"):
        worker.call("abort")
    worker.close()


# --- whole benchmarks ---


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


# --- RNN, full attention, linear attention ---


def mixers_record(**recall: float) -> Record:
    """Figures as guides claim them; the accuracies at the longest distance may be given."""
    accuracies = {"lstm": 0.3, "attention": 1.0, "linear": 0.4} | recall
    powers = {"lstm": 1.0, "attention": 2.0, "linear": 1.0}

    def passes(grows: bool) -> dict[str, Any]:
        results = {}
        for name, power in powers.items():
            sizes = {"rows": 1, "processor": 1.0}
            points = [
                sizes | {"length": n, "seconds": 1e-6 * n**power, "memory": 8 * n**power} for n in (128, 512, 2048)
            ]
            if not grows:
                points = [p | {"seconds": p["length"] * 1e-3 if name == "lstm" else 0.1} for p in points]
            exponents = {key: fit_exponent([(p["length"], p[key]) for p in points]) for key in ("seconds", "memory")}
            results[name] = {"points": points, "refused": None, "exponents": exponents}
        return results

    new_token = {
        name: [{"place": n, "seconds": 1e-6 * n ** (power - 1), "bytes": n} for n in (128, 2048)]
        for name, power in powers.items()
    }
    learned = {
        name: [{"distance": 16, "accuracy": accuracy, "steps": 9, "accuracy_after_steps": None}]
        for name, accuracy in accuracies.items()
    }
    results = {"length": passes(True), "equal_tokens": passes(False), "new_token": new_token, "recall": learned}
    settings = {"layers": 1, "width": 8, "dtype": "float32", "tokens": 2048, "recall_steps": 9, "recall_seconds": 1.0}
    machine = {"device": "Some CPU", "threads": 2, "versions": {"jax": "1"}, "commit": "abc", "launch": {}}
    return Record("mixers", "float32", settings, results, machine, command="", date="2026-01-02 03:04")


def test_figures_as_claimed_bear_every_claim_out() -> None:
    verdicts = {(claim.mixer, claim.claim): claim.verdict for claim in mixers.claims(mixers_record())}
    assert verdicts.pop(("full attention", "parallel")) == "its work grows, too"
    assert set(verdicts.values()) == {"holds"}
    assert len(verdicts) == 14


def test_figures_that_contradict_a_claim_say_so() -> None:
    record = mixers_record(linear=0.95, lstm=0.7, attention=0.5)
    for own in record.results["length"].values():
        own["exponents"] = {"seconds": 1.5, "memory": None}
    for points in record.results["equal_tokens"].values():
        points["points"][-1]["seconds"] = 3 * points["points"][0]["seconds"]
    verdicts = {(claim.mixer, claim.claim): claim.verdict for claim in mixers.claims(record)}
    assert verdicts["linear attention", "recall suffers"] == "does not hold"
    assert verdicts["RNN (LSTM)", "forgets with the distance"] == "attention did not learn it either"
    assert verdicts["full attention", "recalls at any distance"] == "not learned in the time"
    assert verdicts["full attention", "time O(n²)"] == "grows less"
    assert verdicts["linear attention", "time O(n)"] == "grows more"
    assert verdicts["linear attention", "memory O(n)"] == "not measured"
    assert verdicts["linear attention", "parallel"] == "does not hold"
    in_part = next(claim for claim in mixers.claims(mixers_record(lstm=0.7)) if claim.claim.startswith("forgets"))
    assert in_part.verdict == "in part"


def test_the_tables_of_mixers_go_into_the_performance_page(tmp_path: Path) -> None:
    page = tmp_path / "PERFORMANCE.md"
    page.write_text("<!-- records: mixers -->\nold\n<!-- end -->\n")
    mixers_record().save(tmp_path)
    docs.write(page, tmp_path)
    written = page.read_text()
    assert "| RNN (LSTM) | time O(n) | n^1.00 | holds |" in written
    assert "| 2,048 | 1.0 µs, 0.0 MiB | 2,048.0 µs, 32.0 MiB | 1.0 µs, 0.0 MiB |" in written
    assert "| 16 | 30% in 9 steps (not reached) | 100% in 9 steps (not reached) |" in written


def test_a_record_of_mixers_is_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = mixers_record()
    record.results["length"]["attention"]["refused"] = "from 1 x 8192 on: a pass would take more than 20 s"
    mixers.print_tables(record, Console(width=160))
    shown = capsys.readouterr().out
    assert "recall after 1 s of training (after 9 steps)" in shown
    assert "attention took no part from 1 x 8192 on: a pass would take more than 20 s" in shown
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib")
    plot.mixers(record, tmp_path / "mixers.png")
    assert (tmp_path / "mixers.png").stat().st_size > 1000


def test_a_length_that_would_take_too_long_is_left_out() -> None:
    grown = [{"seconds": 1.0}, {"seconds": 6.0}]
    with pytest.raises(Refused, match="a pass would take more than 20 s"):
        mixers._start(None, 1, 64, grown)  # pyright: ignore[reportArgumentType]
    with pytest.raises(AttributeError):  # not refused, but asked for
        mixers._start(None, 1, 64, [{"seconds": 1.0}, {"seconds": 4.0}])  # pyright: ignore[reportArgumentType]


def test_a_row_to_recall_holds_the_pair_that_is_asked_for() -> None:
    keys, values, answers = draw_recall(np.random.default_rng(0), 50, distance=5)
    assert keys.shape == values.shape == (50, PAIRS + 5)
    for row in range(50):
        (place,) = np.flatnonzero(keys[row, :-1] == keys[row, -1])
        assert place < PAIRS
        assert values[row, place] == answers[row] + 1
        assert (values[row, PAIRS:-1] == 0).all()
        assert len(set(keys[row, :PAIRS])) == PAIRS


@pytest.mark.slow
def test_mixers_have_equally_many_parameters_and_learn(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    sizes = ["--lengths", "32", "64", "--tokens", "64", "--distances", "4", "--width", "16", "--heads", "2"]
    assert bench(["mixers", *sizes, "--recall-steps", "2", "--recall-seconds", "3", "--json", str(file)]) == 0
    results = load_record(file).results
    sizes_of = results["parameters"].values()
    assert max(sizes_of) <= 1.01 * min(sizes_of)
    assert results["recall"]["attention"][0]["accuracy"] > 0.2
    cached = {name: [point["bytes"] for point in points] for name, points in results["new_token"].items()}
    assert cached["attention"][0] < cached["attention"][1]
    assert cached["linear"][0] == cached["linear"][1]
    assert cached["lstm"][0] == cached["lstm"][1]


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
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench(arguments)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU can serve it")
def test_the_large_preset_is_for_a_gpu() -> None:
    with pytest.raises(UserError, match=r"--preset large: needs a GPU"):
        bench(["train", "--preset", "large"])


def test_a_file_that_is_no_record(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps({"what": "train"}))
    with pytest.raises(UserError, match="expected what a benchmark wrote"):
        load_record(file)


def test_a_record_in_a_folder_is_named_by_date_device_and_benchmark(tmp_path: Path) -> None:
    machine: dict[str, Any] = {"device": "Some CPU, 2 cores", "launch": {}}
    record = Record("train", "tiny-float32", {}, {}, machine, command="", date="2026-01-02 03:04")
    assert record.save(tmp_path).name == "2026-01-02-some-cpu-2-cores-train-tiny-float32.json"
    assert load_record(tmp_path / "2026-01-02-some-cpu-2-cores-train-tiny-float32.json") == record
    launched = replace(record, machine=machine | {"launch": {"LD_PRELOAD": "/lib/libtcmalloc_minimal.so.4"}})
    assert launched.save(tmp_path).name == "2026-01-02-some-cpu-2-cores-train-tiny-float32-tcmalloc.json"


def test_the_performance_page_is_written_from_the_newest_records(tmp_path: Path) -> None:
    machine = {"device": "Some CPU", "threads": 2, "versions": {"jax": "1"}, "commit": "abc", "launch": {}}
    page = tmp_path / "PERFORMANCE.md"
    page.write_text("before\n<!-- records: startup -->\nold\n<!-- end -->\nafter\n")
    for day, second in (("01", 5.0), ("02", 2.5)):
        seconds = {"help": [0.1], "first_start": [10.0], "second_start": [second]}
        Record("startup", "tiny", {}, seconds, machine, command="", date=f"2026-01-{day} 00:00").save(tmp_path)
    docs.write(page, tmp_path)
    written = page.read_text()
    assert "| tiny | 0.10 s | 10.0 s | 2.5 s | **4.00** |" in written
    assert "2026-01-01" not in written
    assert written.startswith("before\n<!-- records: startup -->\nSome CPU, 2 threads; jax 1; 2026-01-02, commit abc:")
    docs.write(page, tmp_path)
    assert page.read_text() == written


def test_generators_of_one_record_stand_beside_flax(tmp_path: Path) -> None:
    def candidate(speed: float, load: float, refused: str | None = None) -> dict[str, Any]:
        return {"tokens_per_second": speed, "ratios": [1000 / speed], "background_load": [load], "refused": refused}

    candidates = {"flax": candidate(1000, 0.25), "ct2": candidate(2000, 0.5), "onnx": candidate(1, 0, "needs onnx")}
    machine = {"device": "Some CPU", "threads": 1, "versions": {"jax": "1"}, "commit": "abc", "launch": {}}
    results = {"shapes": [{"batch": 8, "candidates": candidates}]}
    Record("generate", "throughput-small", {}, results, machine, command="").save(tmp_path)
    page = tmp_path / "PERFORMANCE.md"
    page.write_text("<!-- records: generate -->\n<!-- end -->\n")
    docs.write(page, tmp_path)
    assert "| small | 8 | 1,000 (1.00) |  |  |  | 2,000 (2.00) |  |" in page.read_text()
    assert "Other processes took 0% to 50% of the cores in a turn." in page.read_text()


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
