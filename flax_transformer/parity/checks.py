"""The check suite: from position tables to generated tokens, each check with its figure, floor and tolerance."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Bool, Int

from flax_transformer.data.batches import MultilabelBatch, PaddedBatch, Seq2SeqBatch
from flax_transformer.nn import losses as flax_losses
from flax_transformer.nn import masks as flax_masks
from flax_transformer.nn import positions as flax_positions
from flax_transformer.parity import flax_side, multilabel, tolerances, torch_side
from flax_transformer.parity.cases import Case
from flax_transformer.parity.influence import influence
from flax_transformer.parity.measure import EPS, HALF, mismatches, scaled_ulp, scaled_ulps
from flax_transformer.parity.pair import Pair, cast, with_dropout
from flax_transformer.parity.torch_side import Outcome
from flax_transformer.parity.training import FreeRun, free_steps, locked_step, optimizer_alone
from torch_reference.nn import losses as torch_losses
from torch_reference.nn import masks as torch_masks
from torch_reference.nn import positions as torch_positions

ULP, ENTRIES = "scaled ULP", "entries that differ"
Tokens = Int[np.ndarray, "batch new"]


@dataclass(frozen=True)
class Result:
    """What one check measured.

    Args:
        view: ``cumulative`` with all errors before it, ``local`` when fed with the other side's inputs.
        figure: the largest over all that the check compares, in ``unit``.
        worst: where it was found.
        floor: what one side differs by from itself; None where equality is asked for, or a bound is given.
        note: what was left out, and why.
    """

    check: str
    view: str
    figure: float
    tolerance: float
    unit: str = ULP
    worst: str = ""
    floor: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.figure <= self.tolerance  # False for NaN


def _exact(check: str, differing: Mapping[str, float]) -> list[Result]:
    worst = max(differing, key=lambda name: differing[name])
    return [Result(check, "local", differing[worst], 0, ENTRIES, worst)]


def measured(
    check: str,
    view: str,
    figures: Mapping[str, float],
    floor: float | Mapping[str, float],
    ceiling: tolerances.Ceiling,
    pair: Pair,
    note: str = "",
) -> Result:
    """The figure that uses up most of its tolerance.

    Args:
        floor: of all figures together or of each: one whose sums cancel then lifts its own ceiling and no other's.
    """
    floors = floor if isinstance(floor, Mapping) else dict.fromkeys(figures, floor)
    highest, noisiest = ceiling.of(pair.case.model), max(floors[name] for name in figures if name in floors)
    limits = {name: tolerances.tolerance(noisiest, highest, floors.get(name, 0.0), pair.dtype) for name in figures}
    notes = [note] if note else []
    if above := sum(highest < figure <= limits[name] for name, figure in figures.items()):
        notes.append(f"{above} of {len(limits)} above the ceiling of {highest:g}, as their own floors allow")
    worst = max(figures, key=lambda name: figures[name] / limits[name])
    return Result(check, view, figures[worst], limits[worst], ULP, worst, floors.get(worst, 0.0), "; ".join(notes))


def positions(pair: Pair) -> list[Result]:
    """The tables, in float64, odd widths too; and the buckets of distances."""
    length, width = pair.case.model.max_length, pair.case.model.d_model
    differing = {}
    for name, size in (("sinusoidal_table", width), ("sinusoidal_table", width + 1), ("rotary_table", 2 * width)):
        tables = [getattr(side, name)(length, size) for side in (flax_positions, torch_positions)]
        differing[f"{name}({length}, {size})"] = mismatches(*tables)
        if name == "sinusoidal_table":
            halves = (
                side.in_halves(table) for side, table in zip((flax_positions, torch_positions), tables, strict=True)
            )
            differing[f"in_halves({name}({length}, {size}))"] = mismatches(*halves)
    for count, distance in ((32, 128), (pair.case.model.relative_buckets or 8, pair.case.model.relative_max_distance)):
        for two_sided in (True, False):
            buckets = (side.relative_buckets(count, distance, two_sided) for side in (flax_positions, torch_positions))
            differing[f"relative_buckets({count}, {distance}, {two_sided})"] = mismatches(*buckets)
    return _exact("positions", differing)


def masks(pair: Pair) -> list[Result]:
    """Every kind of mask, written out."""
    queries, keys = 5, 7
    lengths = np.array([keys, 3, 1, 0], np.int32)
    dense = np.random.default_rng(0).random((4, 1, queries, keys)) < 0.5
    differing = {}
    for with_lengths in (False, True):
        for causal in (False, True):
            for offset in (0, 2):
                for with_dense in (False, True):
                    written = [
                        module.AttentionMask(
                            array(lengths) if with_lengths else None,
                            causal,
                            offset,
                            array(dense) if with_dense else None,
                        ).materialize(queries, keys)
                        for module, array in ((flax_masks, jnp.asarray), (torch_masks, torch.as_tensor))
                    ]
                    name = f"lengths={with_lengths} causal={causal} offset={offset} dense={with_dense}"
                    differing[name] = mismatches(*(np.asarray(True if mask is None else mask) for mask in written))
    return _exact("masks", differing)


def reachability(pair: Pair) -> list[Result]:
    """Which keys the queries of each layer really attend to, against what they should.

    Leaks of either side count. So do keys that are missing on both sides, in float64, where no weight underflows. Where
    a mixer has no weights to look at, tokens are changed, and what follows from it is counted.
    """
    if not pair.case.model.mixes_by_attention:
        return _exact("reachability", influence(pair.case))
    differing = {}
    for name in pair.torch.intermediates:
        if name.endswith(".weights"):
            flax, torch_ = (side.intermediates[name] > 0 for side in (pair.flax, pair.torch))
            allowed = _allowed(name, pair.case.batch, *flax.shape[2:])
            missing = allowed & ~(flax & torch_) & (pair.dtype == "float64")
            differing[name] = float((((flax | torch_) & ~allowed) | missing | (flax != torch_)).sum())
    return _exact("reachability", differing)


def _allowed(intermediate: str, batch: PaddedBatch, queries: int, keys: int) -> np.ndarray:
    """What the layer of a intermediate may attend to, said once more in numpy: (batch, 1, queries, keys)."""
    is_decoder = intermediate.startswith("decoder") and "self_attention" in intermediate
    lengths = batch.source_lengths
    if is_decoder and isinstance(batch, Seq2SeqBatch):
        lengths = np.maximum(batch.target_lengths - 1, 0)
    real = np.arange(keys) < lengths[:, None, None, None]
    return (
        real & np.tri(queries, keys, dtype=bool)
        if is_decoder
        else np.broadcast_to(real, (len(lengths), 1, queries, keys))
    )


def _intermediates(check: str, belongs: Callable[[str], bool]) -> Callable[[Pair], list[Result]]:
    """A check over some of the intermediates, local and cumulative."""

    def measure(pair: Pair) -> list[Result]:
        names = [name for name in {**pair.cumulative, **pair.local} if belongs(name)]
        floors = {name: pair.intermediate_floor.get(name, 0.0) for name in names}
        results = []
        for view, figures, ceiling in (
            ("local", pair.local, tolerances.OPERATION),
            ("cumulative", pair.cumulative, tolerances.STACK),
        ):
            results.append(measured(check, view, {name: figures[name] for name in names}, floors, ceiling, pair))
        return results

    measure.__doc__ = f"The intermediates of {check}."
    return measure


def norms(pair: Pair) -> list[Result]:
    """A norm alone, of rows of mean 0, of mean 1000 (where a one-pass variance cancels) and of size 1e-3 (epsilon).

    Rounding its input moves a norm's output by mean / scale as much, so the figure is taken as a share of that.
    """
    rng = np.random.default_rng(pair.case.seed)
    param_dtype = pair.case.model.param_dtype

    def normed(side: Any, dtype: str) -> np.ndarray:
        return side.norm(dataclasses.replace(pair.case.model, param_dtype=dtype), x.astype(dtype))

    results = []
    for mean, scale in ((0.0, 1.0), (1000.0, 1.0), (0.0, 1e-3)):
        x = (mean + scale * rng.standard_normal((8, pair.case.model.d_model))).astype(np.float32)
        condition = max(1.0, mean / scale)
        ulp = scaled_ulp(normed(flax_side, param_dtype), normed(torch_side, param_dtype), param_dtype) / condition
        floor = scaled_ulp(normed(torch_side, "float32"), normed(torch_side, "float64"), "float32") / condition
        figures = {f"mean {mean:g}, scale {scale:g}": ulp}
        results.append(measured("norms", "local", figures, floor, tolerances.OPERATION, pair))
    return results


def _is_attention(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in ("query", "key", "value", "weights", "heads", "states")


def _is_sublayer(name: str) -> bool:
    return name.endswith((".hidden", "_residual.output"))


def loss(pair: Pair) -> list[Result]:
    """The mean loss; and of the same logits, cross entropy alone and the divergence of two passes."""
    if pair.flax.count != pair.torch.count:
        return [Result("loss", "cumulative", abs(pair.flax.count - pair.torch.count), 0, ENTRIES, "count")]
    floor = scaled_ulp(pair.rounded.loss, pair.exact.loss, "float32")
    figures = {"loss": scaled_ulp(pair.flax.loss, pair.torch.loss, pair.dtype)}
    cumulative = measured("loss", "cumulative", figures, floor, tolerances.LOSS, pair)
    if isinstance(pair.case.batch, MultilabelBatch):
        alone = multilabel.binary_cross_entropies(pair)
    else:
        alone = {f"label_smoothing={smoothing}": _cross_entropy(pair, smoothing) for smoothing in (0.0, 0.1)}
    if pair.dtype not in HALF:  # in which losses are of float32 all the same
        alone["divergence"] = _divergence(pair)
    return [measured("loss", "local", alone, floor, tolerances.LOSS, pair), cumulative]


def _cross_entropy(pair: Pair, smoothing: float) -> float:
    logits = pair.torch.intermediates["logits"]
    vocabulary = logits.shape[-1]
    rng = np.random.default_rng(pair.case.seed)
    labels = rng.integers(vocabulary, size=logits.shape[:-1])
    real = rng.random(labels.shape) < 0.7
    of_flax, flax_count = jax.jit(flax_losses.cross_entropy, static_argnums=3)(logits, labels, real, smoothing)
    logits, labels, real = (torch.as_tensor(array) for array in (logits, labels, real))
    of_torch, torch_count = torch_losses.cross_entropy(logits, labels, real, smoothing)
    if int(flax_count) != int(torch_count):
        return np.inf
    return scaled_ulp(np.asarray(of_flax), of_torch.numpy(), "float32" if pair.dtype in HALF else pair.dtype)


def _divergence(pair: Pair) -> float:
    is_multilabel = isinstance(pair.case.batch, MultilabelBatch)
    by_flax = flax_losses.binary_divergence if is_multilabel else flax_losses.divergence
    by_torch = torch_losses.binary_divergence if is_multilabel else torch_losses.divergence
    rng = np.random.default_rng(pair.case.seed)
    logits = pair.torch.intermediates["logits"]
    # The terms of sure predictions are small and carry the rounding of large logits, as those of trained models are.
    logits = np.repeat(3 * logits / np.abs(logits).max(), 2, axis=0)
    logits = logits + rng.standard_normal(logits.shape).astype(logits.dtype)
    real = np.repeat(rng.random(logits[::2].shape[:-1]) < 0.7, 2, axis=0)
    of_flax, of_torch = jax.jit(by_flax)(logits, real), by_torch(torch.as_tensor(logits), torch.as_tensor(real))
    return scaled_ulp(np.asarray(of_flax), of_torch.numpy(), pair.dtype)


def labels(pair: Pair) -> list[Result]:
    """The probability of each label, and from which one on a text has it."""
    figure, floor = multilabel.probabilities(pair)
    return [
        *_exact("labels", multilabel.differing_decisions()),
        measured("labels", "cumulative", {"probabilities": figure}, floor, tolerances.STACK, pair),
    ]


def gradients(pair: Pair) -> list[Result]:
    """Each parameter's gradient. One that is null is measured against the model's largest."""
    ceiling = tolerances.GRADIENT[pair.dtype]
    return [compare_gradients("gradients", pair, pair.flax, pair.torch, pair.gradient_floor, ceiling)]


def compare_gradients(
    check: str,
    pair: Pair,
    flax: Outcome,
    torch_: Outcome,
    floors: Mapping[str, float],
    ceiling: tolerances.Ceiling,
) -> Result:
    figures = scaled_ulps(pair.without_null(flax.gradients), pair.without_null(torch_.gradients), pair.dtype)
    largest = max(np.abs(gradient).max() for gradient in torch_.gradients.values())
    for name in sorted(pair.null_tensors & flax.gradients.keys() & torch_.gradients.keys()):
        noise = np.abs(flax.gradients[name] - torch_.gradients[name]).max()
        figures[name] = float(noise / (EPS[pair.dtype] * largest))
    # Where sums cancel, so that PyTorch alone is far from float64, JAX's own rounding error is measured too. It takes a
    # compilation, so it is asked for only where the verdict hangs on it.
    highest = ceiling.of(pair.case.model)
    doubtful = [name for name, floor in floors.items() if figures[name] > 4 * floor > highest]
    floors = {**floors, **{name: (floors[name] + pair.flax_rounding[name]) / 2 for name in doubtful}}
    note = f"{len(pair.null_tensors)} null tensors against the largest gradient" if pair.null_tensors else ""
    return measured(check, "cumulative", figures, floors, ceiling, pair, note)


def clipping(pair: Pair) -> list[Result]:
    """The same gradients clipped by both, to half their norm and to twice their norm."""
    given, in_float32 = pair.torch.gradients, pair.rounded.gradients
    in_float64 = {name: gradient.astype(np.float64) for name, gradient in in_float32.items()}
    norm = float(np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in given.values())))
    figures, floor = {}, 0.0
    for factor in (0.5, 2.0):
        flax, torch_ = (side.clip(given, factor * norm) for side in (flax_side, torch_side))
        figures |= {
            f"{name}, max_norm={factor} norm": ulp for name, ulp in scaled_ulps(flax, torch_, pair.dtype).items()
        }
        rounded, exact = (torch_side.clip(gradients, factor * norm) for gradients in (in_float32, in_float64))
        floor = max(floor, *scaled_ulps(rounded, exact, "float32").values())
    return [measured("clipping", "local", figures, floor, tolerances.OPERATION, pair)]


def schedule(pair: Pair) -> list[Result]:
    """The learning rate that each side really uses, for 50 steps."""
    rates = (side.learning_rates(pair.case.config, 50) for side in (flax_side, torch_side))
    return _exact("schedule", {pair.case.config.optimizer.schedule: mismatches(*rates)})


def optimizer(pair: Pair) -> list[Result]:
    """The update rule alone: one update from the same gradients and moments."""
    figures, floor = optimizer_alone(pair)
    return [measured("optimizer", "local", figures, floor, tolerances.OPERATION, pair)]


def step(pair: Pair) -> list[Result]:
    """One whole training step from the other side's parameters and Adam state, at three places of a trajectory."""
    ratios = locked_step(pair, steps=3)
    worst = max(ratios, key=lambda name: ratios[name])
    note = f"without {len(pair.null_tensors)} null tensors" if pair.null_tensors else ""
    return [Result("step", "local", ratios[worst], 1.0, "of the bound", worst, note=note)]


def free_running(pair: Pair, run: FreeRun) -> Result:
    """The parameters of both sides after training on their own, from the same weights.

    In float64 each element is held to the sum of its steps' bounds. In float32 the 99.9th percentile is judged and the
    largest difference reported: that one belongs to an element whose gradient is all but zero, where Adam divides noise
    by noise. The check ``step`` judges each element.
    """
    steps = len(run.flax_losses)
    check, largest = f"{steps} steps", f"largest {run.drift.largest:.1e}, of itself {run.floor.largest:.1e}"
    if pair.dtype == "float64":
        worst = max(run.shares, key=lambda name: run.shares[name])
        return Result(check, "cumulative", run.shares[worst], 1.0, "of the bounds", worst, note=largest)
    worst = max(run.drift.by_tensor, key=lambda name: run.drift.by_tensor[name])
    limit, note = float("inf"), "reported, not judged: "
    if steps > tolerances.LONGEST_FREE_RUN:
        note += "the trajectory is chaotic"
    elif pair.case.model.activation == "relu":
        note += "a ReLU may open on one side alone"
    else:
        limit, note = tolerances.lifted(tolerances.FREE_STEPS, run.floor.p999, pair.dtype), largest
    return Result(check, "cumulative", run.drift.p999, limit, "absolute, 99.9%", worst, run.floor.p999, note)


def dropout(pair: Pair) -> list[Result]:
    """Forward and backward with dropout, PyTorch using the masks that JAX drew."""
    case = with_dropout(pair.case, 0.1)
    flax = flax_side.run(case.config, case.weights, case.batch, dropout_step=0, gradients=True)
    keep = {name: mask for name, mask in flax.intermediates.items() if name.endswith("keep")}

    def masked(case: Case) -> Outcome:
        return torch_side.run(case.config, case.weights, case.batch, feed=keep, dropout_step=0, gradients=True)

    torch_, rounded, exact = (masked(c) for c in (case, cast(case, "float32"), cast(cast(case, "float32"), "float64")))
    # PyTorch's own draws have the right shapes; JAX's must not be shared among rows or heads.
    own = {name: value.shape for name, value in torch_.intermediates.items() if name.endswith("keep")}
    shapes = {name: float(own.get(name) != keep[name].shape) for name in keep}
    logits = scaled_ulps(
        {"logits": flax.intermediates["logits"]}, {"logits": torch_.intermediates["logits"]}, pair.dtype
    )
    floor = scaled_ulp(rounded.intermediates["logits"], exact.intermediates["logits"], "float32")
    rounding = scaled_ulps(pair.without_null(rounded.gradients), pair.without_null(exact.gradients), "float32")
    floors = {name: max(ulp, pair.softmax_floor) for name, ulp in rounding.items()}
    return [
        *_exact("dropout masks", shapes),
        measured("dropout", "cumulative", logits, floor, tolerances.STACK, pair),
        compare_gradients("dropout gradients", pair, flax, torch_, floors, tolerances.DROPOUT_GRADIENT),
    ]


def cached_decoding(pair: Pair) -> list[Result]:
    """One token at a time over the cache: against the other side, and each side against its own teacher forcing."""
    arguments = (pair.case.model, pair.case.weights, pair.case.batch)
    cached = {"flax": flax_side.decode_cached(*arguments), "torch": torch_side.decode_cached(*arguments)}
    figures = {"flax and torch": scaled_ulp(cached["flax"], cached["torch"], pair.dtype)}
    lengths = pair.case.batch.target_lengths - 1
    real = np.arange(cached["flax"].shape[1]) < lengths[:, None]
    for name, outcome in (("flax", pair.flax), ("torch", pair.torch)):
        teacher_forced = outcome.intermediates["logits"]
        figures[f"{name}, cached and teacher-forced"] = scaled_ulp(cached[name][real], teacher_forced[real], pair.dtype)
    return [
        measured("cached decoding", "cumulative", figures, pair.intermediate_floor["logits"], tolerances.STACK, pair)
    ]


def generation(pair: Pair) -> list[Result]:
    """Greedy tokens of both sides."""
    tokens, expected, decided = decided_tokens(pair, 12)
    if tokens.shape != expected.shape:
        return [Result("generated ids", "cumulative", np.inf, 0, ENTRIES, "shape")]
    differing = float(((tokens != expected) & decided).sum())
    note = "" if decided.all() else f"{int((~decided).sum())} of {decided.size} tokens follow a near tie"
    return [Result("generated ids", "cumulative", differing, 0, ENTRIES, "tokens", note=note)]


def decided_tokens(pair: Pair, longest: int) -> tuple[Tokens, Tokens, Bool[np.ndarray, "batch new"]]:
    """Greedy tokens of JAX and of PyTorch, and where they must be the same.

    That is up to where the best two logits lie within the logits' own tolerance: there either of them is right.
    """
    new_tokens = min(longest, pair.case.model.max_length)
    arguments = (pair.case.model, pair.case.weights, pair.case.batch, new_tokens)
    tokens, (expected, leads) = flax_side.generate(*arguments), torch_side.generate(*arguments)
    limit = tolerances.lifted(tolerances.STACK.of(pair.case.model), pair.intermediate_floor["logits"], pair.dtype)
    return tokens, expected, np.logical_and.accumulate(leads > 2 * limit, axis=1)


Check = Callable[[Pair], list[Result]]
FORWARD: dict[str, Check] = {
    "positions": positions,
    "masks": masks,
    "reachability": reachability,
    "embeddings": _intermediates("embeddings", lambda name: name.endswith("_embedding.output")),
    "attention": _intermediates("attention", _is_attention),
    "norms": norms,
    "sublayers": _intermediates("sublayers", _is_sublayer),
    "stack": _intermediates("stack", lambda name: name in ("memory", "pooled")),
    "logits": _intermediates("logits", lambda name: name == "logits"),
    "loss": loss,
}
TRAINING: dict[str, Check] = {
    "gradients": gradients,
    "clipping": clipping,
    "schedule": schedule,
    "optimizer": optimizer,
    "step": step,
    "10 steps": lambda pair: [free_running(pair, free_steps(pair, 10))],
    "dropout": dropout,
}
DECODING: dict[str, Check] = {"cached decoding": cached_decoding, "generated ids": generation}


def check_suite(pair: Pair) -> dict[str, Check]:
    """The checks that apply to a pair: half precision has no training checks, a classifier does not decode."""
    checks = dict(FORWARD)
    if pair.differentiates:
        checks |= TRAINING
    if isinstance(pair.case.batch, Seq2SeqBatch):
        checks |= DECODING
    if isinstance(pair.case.batch, MultilabelBatch):
        checks["labels"] = labels
    return checks


def run_checks(pair: Pair, checks: Iterable[str] | None = None) -> list[Result]:
    """The results of all checks, or of those named, in order."""
    known = check_suite(pair)
    return [result for name in (known if checks is None else checks) for result in known[name](pair)]
