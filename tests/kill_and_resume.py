"""Kill a training run with SIGKILL at random moments, go on, and compare with a run that was left alone, bit for bit.

    python tests/kill_and_resume.py --kills 30 --seed 0

A moment is a random time within the run, or the sight of a checkpoint that is being written. Exits with 1 and names the
first array that differs.
"""

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from flax_transformer.training.run import Run
from flax_transformer.training.step import TrainStep

FLAGS = [
    *("--model.d-model", "16", "--model.num-heads", "2", "--model.d-ff", "24", "--model.dropout", "0.1"),
    *("--model.num-encoder-layers", "1", "--model.num-decoder-layers", "1", "--tokenizer.vocab-size", "300"),
    *("--data.train-size", "160", "--data.validation-size", "2", "--data.test-size", "2", "--data.max-items", "1"),
    *("--batch.size", "8", "--batch.buckets", "1", "--batch.word-dropout", "0.1"),
    *("--batch.max-source-length", "512", "--batch.max-target-length", "512"),
    *("--epochs", "2", "--checkpoint-every", "3", "--log-every", "5"),
]


@dataclass
class Tally:
    kills: int = 0
    in_a_save: int = 0
    finished: int = 0


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flax_transformer", "train", "manifests", *FLAGS]
    return subprocess.Popen(
        [*command, "--run", str(folder), "--resume", "auto"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def is_saving(folder: Path) -> bool:
    """Whether orbax is writing: a step has another name until it is complete."""
    checkpoints = folder / "checkpoints"
    return checkpoints.is_dir() and any("tmp" in path.name for path in checkpoints.iterdir())


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}: {errors.decode()}")


def run_with_kills(folder: Path, kills: int, run_seconds: float, rng: random.Random, tally: Tally) -> None:
    """One run from start to end, killed ``kills`` times on the way; less often where it ends before its time."""
    for _ in range(kills):
        process = start(folder)
        waits_for_save, moment = rng.random() < 0.5, time.monotonic() + rng.uniform(0.3, 1.0) * run_seconds
        while process.poll() is None and time.monotonic() < moment and not (waits_for_save and is_saving(folder)):
            time.sleep(0.001)
        if process.poll() is not None:
            finish(process)
            tally.finished += 1
            return
        tally.in_a_save += is_saving(folder)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        tally.kills += 1
    finish(start(folder))


def final_state(folder: Path) -> dict[str, np.ndarray]:
    run = Run.load(folder)
    with run.checkpoints() as checkpoints:
        like = TrainStep(run.config, total_steps=40).abstract_state
        step, state = checkpoints.restore_newest(like, print)
    assert step == 40, f"expected the run to end with step 40, got {step}"
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax's notes
    rng, tally = random.Random(arguments.seed), Tally()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{scratch}/cache")
        alone, killed = Path(scratch, "alone"), Path(scratch, "killed")
        finish(start(alone))  # fills the cache of compiled programs
        shutil.rmtree(alone)
        begin = time.monotonic()
        finish(start(alone))
        run_seconds = time.monotonic() - begin
        expected = final_state(alone)
        while tally.kills < arguments.kills:
            run_with_kills(killed, min(5, arguments.kills - tally.kills), run_seconds, rng, tally)
            found = final_state(killed)
            different = [name for name in expected if found[name].tobytes() != expected[name].tobytes()]
            if different or found.keys() != expected.keys():
                raise SystemExit(
                    f"after {tally.kills} kills, other bits than in the run that was left alone: {different}"
                )
            assert json.loads((killed / "results.json").read_text()) == json.loads((alone / "results.json").read_text())
            shutil.rmtree(killed)
    print(f"{tally.kills} kills, {tally.in_a_save} of them within a save: the same {len(expected)} arrays bit for bit")


if __name__ == "__main__":
    main()
