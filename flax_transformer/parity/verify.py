"""``flax-transformer verify``: is the PyTorch model the JAX model, in the forward pass and in training?"""

import dataclasses
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from tyro.conf import Positional

from flax_transformer.config import load_json, to_dict
from flax_transformer.errors import UserError, warn
from flax_transformer.outputs import check_report, write_whole
from flax_transformer.parity.against import THIRD_PARTIES, Name, dtypes_of
from flax_transformer.parity.checks import ENTRIES, Result
from flax_transformer.parity.measure import Arrays
from flax_transformer.parity.page import verify_page
from flax_transformer.parity.precision import USER_ERROR
from flax_transformer.parity.report import print_report
from flax_transformer.parity.targets import Target, load_target

CERTIFICATE = "parity.json"
_WIDTH_OF_A_LOG = 180
Dtype = Literal["float64", "float32", "bfloat16", "float16"]


def verify(
    path: Positional[Path | None] = None,
    preset: str | None = None,
    run: Path | None = None,
    dtype: tuple[Dtype, ...] = ("float64", "float32", "bfloat16"),
    steps: int = 10,
    json: Path | None = None,
    html: Path | None = None,
    against: Name | None = None,
) -> int:
    """Prove a PyTorch model equal to its JAX twin, from position tables over gradients and training to generated text.

    Prints a figure, a floor, a tolerance and a verdict for each check; the exit code is 1 if any failed. Beside an
    export it leaves parity.json, with the hashes of the weights: a later call also tells whether they changed since.
    With --against, both twins are compared with the code that the model is exported for, with the same weights.

    Args:
        path: a run folder or an export folder.
        preset: instead of a folder, random weights for a size (mini, tiny, small, assignment, base, large) or for the
            model of a task.
        run: the run that the export comes from; its weights must be in the export bit for bit.
        dtype: precisions to compare in, each in a process of its own.
        steps: optimizer steps that both sides train on their own.
        json: file for all figures.
        html: file for a page with all figures and pictures.
        against: a third party to compare both twins with, instead of each other: transformers (round trip of the
            weights, one pass, gradients, tokens), ctranslate2 (tokens) or onnx (logits, tokens; in ONNX Runtime).
    """
    if steps < 1:
        raise UserError(f"--steps: expected a whole number of at least 1, got {steps}")
    for file in (json, html):
        if file is not None:
            check_report(file)
    dtypes = list(dict.fromkeys(dtype)) if against is None else dtypes_of(against, dtype)
    target = load_target(path, preset, run)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_LOG)
    weights = _weights_result(target, _certified(path))
    request = {
        "path": path and str(path),
        "preset": preset,
        "run": run and str(run),
        "steps": steps,
        "against": against,
    }
    precisions = [_run_apart({**request, "dtype": name}, console) for name in dtypes]
    report = _report(target, against, weights, precisions)
    print_report(report, console)
    is_export = path is not None and not (path / "checkpoints").is_dir()
    if path is not None and is_export and report["passed"]:
        _certify(report, path / (CERTIFICATE if against is None else f"parity-{against}.json"))
    if json is not None:
        write_whole(json, _to_json(report))
    if html is not None:
        write_whole(html, verify_page(report))
    return 0 if report["passed"] else 1


def _report(target: Target, against: Name | None, weights: Result, precisions: list[dict[str, Any]]) -> dict[str, Any]:
    packages = ["flax-transformer", "jax", "flax", "optax", "torch", "numpy"]
    packages += THIRD_PARTIES[against].packages if against else ()
    return {
        "target": target.name,
        "against": against,
        "passed": weights.passed
        and all(result["passed"] for precision in precisions for result in precision["results"]),
        "weights": dataclasses.asdict(weights) | {"passed": weights.passed},
        "precisions": precisions,
        "parameters": sum(weight.size for weight in target.weights.values()),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "config": to_dict(target.model),
        "config_sha256": hashlib.sha256(json.dumps(to_dict(target.model), sort_keys=True).encode()).hexdigest(),
        "weights_sha256": _hashes(target.weights),
    }


def _hashes(weights: Arrays) -> dict[str, str]:
    return {
        name: hashlib.sha256(np.ascontiguousarray(weight).tobytes()).hexdigest() for name, weight in weights.items()
    }


def _certified(path: Path | None) -> dict[str, str] | None:
    """The hashes that an earlier verification left beside the export."""
    file = None if path is None else path / CERTIFICATE
    if file is None or not file.is_file():
        return None
    expected = "what verify wrote; delete it to verify anew"
    record = load_json(file, expected)
    try:
        return dict(record["weights_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: expected {expected}") from error


def _weights_result(target: Target, certified: dict[str, str] | None) -> Result:
    """Whether the weights are those that were trained, and those that were verified before."""
    differing = dict.fromkeys(target.weights, 0.0)
    if target.trained is not None:
        differing = {name: float((weight != target.trained[name]).sum()) for name, weight in target.weights.items()}
    if certified is not None:
        changed = {name for name, digest in _hashes(target.weights).items() if certified.get(name) != digest}
        differing |= {name: max(differing[name], 1.0) for name in changed}
    compared = [
        source for source, known in (("the run", target.trained), ("parity.json", certified)) if known is not None
    ]
    note = f"against {' and '.join(compared)}" if compared else "both sides read the same file"
    worst = max(differing, key=lambda name: differing[name])
    return Result("weights", "local", differing[worst], 0, ENTRIES, worst, note=note)


def _run_apart(request: dict[str, Any], console: Console) -> dict[str, Any]:
    """One precision in a fresh process; shows the check that it is on."""
    dtype = request["dtype"]
    environment = os.environ | {"JAX_ENABLE_X64": "1" if dtype == "float64" else "0"}
    # An accelerator left to itself multiplies float32 in TF32 or in passes of bfloat16.
    environment["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    if cache := jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
    with tempfile.TemporaryDirectory() as folder, console.status(f"{dtype}: starting") as status:
        request_file, result_file = Path(folder, "request.json"), Path(folder, "result.json")
        request_file.write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "flax_transformer.parity.precision", str(request_file), str(result_file)]
        with (
            Path(folder, "errors").open("w+", encoding="utf-8") as errors,
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            assert process.stdout is not None
            for check in process.stdout:
                status.update(f"{dtype}: {check.strip()}")
            process.wait()
            errors.seek(0)
            problem = errors.read()
        if process.returncode == USER_ERROR:
            raise UserError(problem.strip().splitlines()[-1].removeprefix("error: "))
        if process.returncode == -signal.SIGKILL:
            raise UserError(
                f"the {dtype} precision was killed, most likely for want of memory; free some, or take a smaller model"
            )
        if process.returncode != 0:
            raise RuntimeError(f"the {dtype} precision ended with exit code {process.returncode}:\n{problem}")
        return json.loads(result_file.read_text(encoding="utf-8"))


def _certify(report: dict[str, Any], file: Path) -> None:
    """Leave the report beside an export. One that may not be written to is equal all the same."""
    try:
        write_whole(file, _to_json(report))
    except UserError as error:
        warn(f"{error}; the export is left without it")


def _to_json(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1) + "\n"
