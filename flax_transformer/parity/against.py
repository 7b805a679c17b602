"""The third parties that ``verify --against`` knows: other people's code that computes with our weights."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Bool

from flax_transformer.config import GenerationConfig
from flax_transformer.errors import UserError
from flax_transformer.parity import flax_side, torch_side
from flax_transformer.parity.checks import Result, Tokens, decided_tokens
from flax_transformer.parity.measure import scaled_ulp
from flax_transformer.parity.pair import Pair, cast
from flax_transformer.parity.targets import Target
from flax_transformer.parity.torch_side import Outcome

Name = Literal["transformers", "ctranslate2", "onnx"]
Rows = list[list[int]]
OUTPUTS = "outputs that differ"
NEW_TOKENS, BEAMS = 12, 4
# Passes of PyTorch alone, whose differences are rounding.
_FLOOR = ("rounded", "exact", "shuffled", "torch")


@dataclass(frozen=True)
class ThirdParty:
    """What it takes to ask it.

    Attributes:
        packages: that must be installed; the last is the one that computes.
        extra: of this project, which brings them.
        dtypes: that it computes in.
    """

    packages: tuple[str, ...]
    extra: str
    dtypes: tuple[str, ...] = ("float32",)


THIRD_PARTIES: dict[Name, ThirdParty] = {
    "transformers": ThirdParty(("transformers",), "peers", ("float64", "float32")),
    "ctranslate2": ThirdParty(("ctranslate2",), "ctranslate2"),
    "onnx": ThirdParty(("onnx", "onnxscript", "onnxruntime"), "onnx"),
}
assert set(THIRD_PARTIES) == set(get_args(Name))


def dtypes_of(name: Name, asked: Sequence[str]) -> list[str]:
    """Those of the precisions asked for that the third party computes in.

    Raises:
        UserError: it is not installed, or there are none.
    """
    party = THIRD_PARTIES[name]
    for package in party.packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--against {name} needs {package}: pip install 'flax-transformer[{party.extra}]'")
    both = [dtype for dtype in asked if dtype in party.dtypes]
    if not both:
        raise UserError(f"--dtype: expected {' or '.join(party.dtypes)} with --against {name}, got {' '.join(asked)}")
    return both


def run_against(name: Name, target: Target, dtype: str, on_check: Callable[[str], None]) -> dict[str, Any]:
    """All checks of one precision against a third party, as JSON values; the form is that of ``run_precision``."""
    checks = importlib.import_module(f"flax_transformer.parity.against_{name}").checks(target, dtype)
    results = []
    for check, measure in checks.items():
        on_check(check)
        results += measure()
    return {
        "dtype": dtype,
        "platform": jax.default_backend(),
        "results": [asdict(result) | {"passed": result.passed} for result in results],
        "divergence": None,
        "intermediates": [],
        "gradients": {},
        "null_tensors": [],
        "histogram": [],
        "losses": None,
    }


def twins(pair: Pair) -> dict[str, Outcome]:
    """One pass of each twin, by its name."""
    return {"JAX": pair.flax, "PyTorch": pair.torch}


def floor_of(pair: Pair, intermediate: str, kept: Bool[np.ndarray, "batch ..."]) -> float:
    """The noise floor where something is compared: at padding, which nothing reads, rounding may be magnified."""
    at = {name: getattr(pair, name).intermediates[intermediate][kept] for name in _FLOOR}
    return max(scaled_ulp(at["rounded"], at["exact"], "float32"), scaled_ulp(at["shuffled"], at["torch"], pair.dtype))


def with_source(pair: Pair) -> Bool[np.ndarray, " batch"]:
    """The rows that have a source: no third party generates from nothing."""
    return pair.case.batch.source_lengths > 0


def new_tokens(pair: Pair) -> int:
    return min(NEW_TOKENS, pair.case.model.max_length)


def greedy_tokens(pair: Pair, theirs: Rows) -> list[Result]:
    """What both twins write greedily against what the third party does, for the rows that have a source."""
    flax, torch, decided = decided_tokens(pair, NEW_TOKENS)
    kept = with_source(pair)
    sides = {"JAX": rows(flax[kept], pair), "PyTorch": rows(torch[kept], pair)}
    return [_compare("greedy tokens", sides, theirs, decided[kept].sum(axis=1).tolist())]


def beam_config(pair: Pair, *, early_stopping: bool) -> GenerationConfig:
    """Of a search that ranks outputs by the mean log-probability of their tokens, as all third parties can."""
    return GenerationConfig(
        new_tokens(pair),
        strategy="beam",
        beam_width=min(BEAMS, pair.case.model.target_vocab_size),
        length_penalty="mean",
        length_alpha=1.0,
        early_stopping=early_stopping,
    )


def beam_tokens(pair: Pair, theirs: Rows, config: GenerationConfig) -> list[Result]:
    """What beam search finds. A row is judged where PyTorch finds the same in float32 and in float64: else it is a tie.

    Args:
        theirs: of the rows that have a source.
    """
    kept = with_source(pair)
    sides, found = {}, {}
    for dtype in ("float32", "float64"):
        case = cast(pair.case, dtype)
        found[dtype] = rows(torch_side.beam_search(case.model, case.weights, case.batch, config)[kept], pair)
    sides["PyTorch"] = found[pair.dtype]
    case = pair.case
    sides["JAX"] = rows(flax_side.beam_search(case.model, case.weights, case.batch, config)[kept], pair)
    decided = [
        config.max_new_tokens if one == other else 0
        for one, other in zip(found["float32"], found["float64"], strict=True)
    ]
    return [_compare(f"beam tokens, {config.beam_width} beams", sides, theirs, decided)]


def rows(tokens: Tokens, pair: Pair) -> Rows:
    """Each row up to its end token, which is kept."""
    ends = tokens == pair.case.model.eos_id
    lengths = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, tokens.shape[1])
    return [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]


def _compare(check: str, sides: Mapping[str, Rows], theirs: Rows, decided: Sequence[int]) -> Result:
    """How many outputs differ within their first ``decided`` tokens, on the side where most do."""
    differing = {
        side: float(sum(row[:n] != other[:n] for row, other, n in zip(ours, theirs, decided, strict=True)))
        for side, ours in sides.items()
    }
    worst = max(differing, key=lambda side: differing[side])
    ties = sum(n < len(row) for row, n in zip(sides[worst], decided, strict=True))
    note = f"{ties} of {len(theirs)} outputs judged up to a near tie" if ties else ""
    return Result(check, "cumulative", differing[worst], 0, OUTPUTS, worst, note=note)
