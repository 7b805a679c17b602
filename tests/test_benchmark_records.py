"""Records of the benchmarks, and the pages that are written from them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import docs
from flax_transformer.bench.records import Record, load_record
from flax_transformer.errors import UserError


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
