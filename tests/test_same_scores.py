"""The same run has the same scores, to the last digit, in every process that evaluates it."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from worker_processes import free_address

from flax_transformer.training.run import Run

pytestmark = [pytest.mark.slow]

ROOT = Path(__file__).parent.parent
# Equal as numbers, so that an order by value alone would leave theirs to that of a set.
LABELS = ["7", "07", "007"]
TINY = [
    *("--model.d-model", "8", "--model.num-heads", "2", "--model.d-ff", "12", "--model.num-encoder-layers", "1"),
    *("--tokenizer.vocab-size", "300", "--batch.buckets", "1", "--batch.size", "8", "--batch.max-source-length", "16"),
    *("--epochs", "1", "--optimizer.warmup-steps", "1"),
]
PRINT_SCORES = """
import sys
from flax_transformer.data.tasks import load_splits
from flax_transformer.training.evaluate import Evaluator
from flax_transformer.training.run import Run
run = Run.load(sys.argv[1])
splits = load_splits(run.config.data, run.config.seed, run.classes)
evaluator = Evaluator(splits.test, run.tokenizer, run.config, copying=run.copy_rule)
print(splits.classes, evaluator.evaluate(run.best_model()))
"""


def start(*command: str, seed: str = "0") -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: "subprocess.Popen[str]") -> str:
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, path = random.Random(0), tmp_path_factory.mktemp("runs")
    rows = [f"word{i % 3} and {' '.join(rng.choices('abcdefgh', k=5))},{LABELS[i % 3]}" for i in range(90)]
    (path / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    command = ["-m", "flax_transformer", "train", "classification", "--data.path", str(path / "rows.csv")]
    output_of(start(*command, "--run", str(path / "run"), *TINY, seed="1"))
    return path / "run"


def test_in_five_processes_with_their_own_hash_seeds(folder: Path):
    processes = [start("-c", PRINT_SCORES, str(folder), seed=seed) for seed in ("0", "1", "2", "3", "4")]
    found = [output_of(process) for process in processes]
    assert len(set(found)) == 1
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert repr(results["test"]["loss"]) in found[0]
    assert repr(results["test"]["accuracy"]) in found[0]
    assert sorted(Run.load(folder).classes) == sorted(LABELS)


def test_in_one_process_and_in_two(folder: Path):
    """Going on with a run that has come to its end scores it again."""
    command = ["-m", "flax_transformer", "train", "classification", "--run", str(folder), "--resume"]
    output_of(start(*command, seed="2"))
    alone = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    (folder / "results.json").unlink()
    together = ["--processes.coordinator-address", free_address(), "--processes.num-processes", "2"]
    processes = [start(*command, *together, "--processes.process-id", str(i), seed=str(3 + i)) for i in range(2)]
    for process in processes:
        output_of(process)
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == alone
