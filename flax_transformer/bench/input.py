"""``bench input``: does a training step ever wait for its batch?

With a small model, whose steps are short, on generated manifests: where that does not wait, no larger model will.
"""

from pathlib import Path
from typing import Any

from rich.console import Console

from flax_transformer.bench.checks import check_counts, check_files
from flax_transformer.bench.records import Record, describe_machine
from flax_transformer.bench.worker import Refused, Worker
from flax_transformer.config import to_dict
from flax_transformer.errors import UserError
from flax_transformer.presets import PRESETS


def wait(steps: int = 60, json: Path | None = None) -> int:
    """The share of its time that training spends waiting for input.

    Args:
        steps: to be timed, after one of each shape.
        json: file for the record, or a folder that it is to be named in.
    """
    check_counts(steps=steps)
    check_files(json)
    console = Console(width=None if Console().is_terminal else 160)
    config = PRESETS["manifests"]["default"]
    worker = Worker("flax_transformer.bench.input_side:Input", config)
    try:
        with console.status("training"):
            results: dict[str, Any] = worker.call("measure", steps)
    except Refused as refusal:
        raise UserError(f"flax cannot take part: {refusal}") from refusal
    finally:
        worker.close()
    record = Record("input", "manifests-default", to_dict(config), results, describe_machine())
    waited, longest, making = (results[f"{name}_seconds"] * 1e3 for name in ("wait", "longest_wait", "making"))
    console.print(f"{steps} steps of {results['step_seconds'] * 1e3:.1f} ms")
    console.print(f"waiting for its batch: {waited:.3f} ms of each ({results['share']:.2%}), at most {longest:.2f} ms")
    console.print(f"making a batch, in a thread of its own: {making:.2f} ms")
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    return 0
