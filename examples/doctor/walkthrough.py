"""Make a broken model healthy by doing what the doctor says, one fault after the other.

    python examples/doctor/walkthrough.py torch --steps 400 --json torch.json
    python examples/doctor/walkthrough.py flax --steps 400 --json flax.json

The task is to write a text of 8 words again, forwards or backwards, whichever the model likes. At each step the doctor
examines the model, the model is trained from scratch, and then it generates: the loss alone does not tell an ill model
from a healthy one.
"""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from flax_transformer import doctor

# What the first line of the diagnosis names, and what to fix then.
FIXES = {
    "length-tied": "memory mask",
    "constant-input": "teacher forcing",
    "no-causal-mask": "causal mask",
    "no-target-positions": "positions",
}
LENGTH = 8


def draw(random: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources, and targets behind a begin token: the same words, in half of the rows backwards."""
    source = random.integers(2, 6, (rows, LENGTH))
    target = np.where(random.random((rows, 1)) < 0.5, source, source[:, ::-1])
    return source, np.concatenate([np.ones((rows, 1), source.dtype), target], axis=1)


def texts_right(predicted: np.ndarray, source: np.ndarray) -> float:
    """The share of rows that are the source, in one direction or the other."""
    forwards, backwards = (predicted == source).all(axis=1), (predicted == source[:, ::-1]).all(axis=1)
    return float((forwards | backwards).mean())


def walk(framework: str, steps: int) -> list[dict[str, Any]]:
    """What was said, the losses and how much was generated right, before each fix and after the last."""
    models = importlib.import_module(f"seq2seq_{framework}")
    fixed: frozenset[str] = frozenset()
    path = []
    for _ in range(len(FIXES) + 1):
        report = doctor.examine(models.make(fixed), kind="seq2seq", bos_id=1)
        ill = [d for d in report.diagnoses if d.result.verdict == "ill"]
        random = np.random.default_rng(0)
        model = models.make(fixed)
        losses = models.train(model, [draw(random, 32) for _ in range(steps)])
        source, _ = draw(np.random.default_rng(1), 200)
        right = texts_right(np.asarray(models.predict(model, source)), source)
        said = ill[0].cause.title if ill else "healthy"
        print(f"{said:60} loss {losses[-1]:.3f}, texts generated right {right:.0%}", flush=True)
        path.append({"said": said, "cause": ill[0].cause.key if ill else "", "losses": losses, "right": right})
        if not ill:
            break
        fixed |= {FIXES[ill[0].cause.key]}
        print(f"  fix: {ill[0].cause.fix}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=["torch", "flax"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--json", type=Path, help="write the losses to this file")
    flags = parser.parse_args()
    path = walk(flags.framework, flags.steps)
    if flags.json is not None:
        flags.json.write_text(json.dumps(path), encoding="utf-8")


if __name__ == "__main__":
    main()
