"""The benchmark of an RNN, full attention and linear attention: its claims, tables and task."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import docs
from flax_transformer.bench import mixers, plot
from flax_transformer.bench.attention import fit_exponent
from flax_transformer.bench.mixers_side import PAIRS, draw_recall
from flax_transformer.bench.records import Record, load_record
from flax_transformer.bench.worker import Refused
from flax_transformer.cli.bench import bench

pytestmark = [pytest.mark.optimized, pytest.mark.usefixtures("short_turns")]


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
        name: [{"distance": 16, "accuracy": accuracy, "steps": 9, "seconds": 2.0}]
        for name, accuracy in accuracies.items()
    }
    results = {"length": passes(True), "equal_tokens": passes(False), "new_token": new_token, "recall": learned}
    settings = {"layers": 1, "width": 8, "dtype": "float32", "tokens": 2048, "recall_seconds": 1.0}
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
    assert "| 16 | 30% after 9 steps, 2 s | 100% after 9 steps, 2 s |" in written


def test_a_record_of_mixers_is_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = mixers_record()
    record.results["length"]["attention"]["refused"] = "from 1 x 8192 on: a pass would take more than 20 s"
    mixers.print_tables(record, Console(width=160))
    shown = capsys.readouterr().out
    assert "recall after at most 1 s of training" in shown
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


def test_a_row_to_recall_holds_the_pairs_that_are_asked_for() -> None:
    keys, values, answers = draw_recall(np.random.default_rng(0), 50, distance=5)
    assert keys.shape == values.shape == (50, PAIRS + 4 + PAIRS)
    for row in range(50):
        known = dict(zip(keys[row, :PAIRS].tolist(), values[row, :PAIRS].tolist(), strict=True))
        assert len(known) == PAIRS
        assert [known[key] for key in keys[row, -PAIRS:].tolist()] == (answers[row] + 1).tolist()
        assert not known.keys() & {*keys[row, PAIRS:-PAIRS].tolist()}
        assert (values[row, PAIRS:-PAIRS] == 0).all()


@pytest.mark.slow
def test_mixers_have_equally_many_parameters_and_learn(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    sizes = ["--lengths", "32", "64", "--tokens", "64", "--distances", "4", "--width", "16", "--heads", "2"]
    assert bench(["mixers", *sizes, "--recall-seconds", "3", "--json", str(file)]) == 0
    results = load_record(file).results
    sizes_of = results["parameters"].values()
    assert max(sizes_of) <= 1.01 * min(sizes_of)
    assert results["recall"]["attention"][0]["accuracy"] > 0.2
    cached = {name: [point["bytes"] for point in points] for name, points in results["new_token"].items()}
    assert cached["attention"][0] < cached["attention"][1]
    assert cached["linear"][0] == cached["linear"][1]
    assert cached["lstm"][0] == cached["lstm"][1]
