"""The check suite in one precision: ``python -m flax_transformer.parity.precision REQUEST RESULT``, both JSON files.

float64 needs a flag that changes what JAX computes in float32 too, so no process serves two precisions.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_transformer.data.batches import Seq2SeqBatch
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError
from flax_transformer.parity import checks
from flax_transformer.parity.against import run_against
from flax_transformer.parity.checks import ENTRIES, Result
from flax_transformer.parity.localize import first_divergence
from flax_transformer.parity.measure import element_ulps, scaled_ulps
from flax_transformer.parity.pair import Pair, is_small
from flax_transformer.parity.targets import Target, load_target
from flax_transformer.parity.training import FreeRun, free_steps

USER_ERROR = 2


def run_precision(target: Target, dtype: str, steps: int, on_check: Callable[[str], None]) -> dict[str, Any]:
    """All checks of one precision, and what its report shows beside them, as JSON values."""
    pair = Pair(target.case(dtype), uncompiled=is_small(target.weights))
    results: list[Result] = []
    run: FreeRun | None = None
    for name, check in checks.check_suite(pair).items():
        on_check(name)
        if name == "10 steps":
            run = free_steps(pair, steps)
            results.append(checks.free_running(pair, run))
        else:
            results += check(pair)
    if target.tokenizer is not None and isinstance(pair.case.batch, Seq2SeqBatch):
        results.append(_decoded_text(pair, target.tokenizer))
    divergence = first_divergence(pair)
    return {
        "dtype": dtype,
        "platform": jax.default_backend(),
        "results": [dataclasses.asdict(result) | {"passed": result.passed} for result in results],
        "divergence": None if divergence is None else str(divergence),
        "intermediates": [
            {"name": name, "local": pair.local[name], "cumulative": ulp, "floor": pair.intermediate_floor[name]}
            for name, ulp in pair.cumulative.items()
        ],
        "gradients": _gradient_figures(pair),
        "null_tensors": sorted(pair.null_tensors) if pair.differentiates else [],
        "histogram": _histogram(pair),
        "losses": None if run is None else {"flax": run.flax_losses, "torch": run.torch_losses},
    }


def _gradient_figures(pair: Pair) -> dict[str, float]:
    if not pair.differentiates:
        return {}
    return scaled_ulps(pair.without_null(pair.flax.gradients), pair.without_null(pair.torch.gradients), pair.dtype)


def _histogram(pair: Pair) -> list[int]:
    """Logits by their own ULP apart: equal, then (0, 1], (1, 2], (2, 4], ... each twice as wide."""
    ulps = element_ulps(pair.flax.intermediates["logits"], pair.torch.intermediates["logits"], pair.dtype)
    bins = np.where(ulps == 0, 0, 1 + np.ceil(np.log2(np.maximum(ulps, 1)))).astype(int)
    return np.bincount(bins).tolist()


def _decoded_text(pair: Pair, tokenizer: Tokenizer) -> Result:
    """What a reader sees of the generated ids, up to the first near tie."""
    *sides, decided = checks.decided_tokens(pair, 32)
    texts = (
        tokenizer.decode([row[:end].tolist() for row, end in zip(ids, decided.sum(axis=1), strict=True)])
        for ids in sides
    )
    differing = sum(a != b for a, b in zip(*texts, strict=True))
    return Result("decoded text", "cumulative", float(differing), 0, ENTRIES, "texts")


def _run(
    request: dict[str, Any], path: Path | None, run: Path | None, on_check: Callable[[str], None]
) -> dict[str, Any]:
    against, dtype = request["against"], request["dtype"]
    if against is None:
        return run_precision(load_target(path, request["preset"], run), dtype, request["steps"], on_check)
    # A bare encoder of transformers has no head either; an ONNX graph is the same with one.
    target = load_target(path, request["preset"], run, headed=against != "transformers")
    return run_against(against, target, dtype, on_check)


def main(request_file: str, result_file: str) -> int:
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    path, run = (Path(request[name]) if request[name] else None for name in ("path", "run"))
    try:
        if request["dtype"] == "float64" and jax.default_backend() == "tpu":
            raise UserError("--dtype float64: a TPU has no float64; verify it on CPU with JAX_PLATFORMS=cpu")
        precision = _run(request, path, run, lambda name: print(name, flush=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    Path(result_file).write_text(json.dumps(precision), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
