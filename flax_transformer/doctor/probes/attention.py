"""Inside: the mask, the scale and the weights of every softmax that is an attention."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

import flax_transformer.doctor.limits as limits
from flax_transformer.doctor.examination import PADDED_ROWS, PADS, ROWS, Examination
from flax_transformer.doctor.graph import Attention
from flax_transformer.doctor.probes.padding import at_pads
from flax_transformer.doctor.result import Result, healthy, not_applicable
from flax_transformer.doctor.wiring import Wiring, mixes_positions

_NONE_FOUND = "no attention was seen: a softmax between two products of activations"
_SIDES = {"source": "source on source", "target": "target on target", "cross": "target on source"}


def blocked(attention: Attention) -> np.ndarray:
    """Which keys a query cannot attend to, in all heads and rows: (query, key)."""
    return np.asarray(_blocked_maps(attention).all(axis=0))


def _blocked_maps(attention: Attention) -> np.ndarray:
    offsets = attention.offsets()
    masked = np.isneginf(attention.scores) | (offsets < limits.BLOCKED)
    # A row that is masked everywhere by a finite number attends to all of it.
    everywhere = masked.all(axis=-1, keepdims=True) & np.isfinite(attention.scores).all(axis=-1, keepdims=True)
    return masked & ~everywhere


def probe_masks(exam: Examination) -> list[Result]:
    """Each mask as it really is, against what its place wants."""
    if not exam.attentions:
        return [not_applicable("masks", _NONE_FOUND)]
    results = []
    for attention in exam.attentions:
        judge = {"source": _judge_source, "target": _judge_target, "cross": _judge_cross}[attention.side]
        results += judge(attention, exam)
    results += _finite_masks(exam.attentions)
    results += _padding_masks(exam)
    return _merged(results) or [
        healthy("masks", float(len(exam.attentions)), detail="attentions, masked as they should")
    ]


def place_of(attention: Attention, exam: Examination) -> str:
    """Its module, or its number where modules have no names."""
    if attention.place:
        return attention.place
    same = [a for a in exam.attentions if a.side == attention.side]
    number = next((i for i, a in enumerate(same) if a is attention), None)
    words = _SIDES[attention.side]
    return words if number is None else f"attention {number + 1} of {len(same)}, {words}"


def _judge_source(attention: Attention, exam: Examination) -> list[Result]:
    """An encoder sees all of the source; a local window is symmetric."""
    mask = blocked(attention)
    if mask.shape[0] != mask.shape[1]:
        return []
    upper, lower = mask[np.triu_indices_from(mask, 1)], mask[np.tril_indices_from(mask, -1)]
    if bool(upper.all()) != bool(lower.all()) and mask.size > 1:
        return [_finding("causal-encoder", attention, exam, float(mask.mean()), 0.0)]
    return []


def _judge_target(attention: Attention, exam: Examination) -> list[Result]:
    if not exam.is_causal or attention.queries != attention.keys or attention.queries < 3:
        return []
    mask = blocked(attention)
    size = len(mask)
    upper, lower = mask[np.triu_indices(size, 1)], mask[np.tril_indices(size, -1)]
    offsets = attention.offsets()
    # With a mask turned round, the last query has no key: a finite minimum leaves it all of them.
    if mask[:-1][np.tril_indices(size - 1, -1)].all() and not upper.any():
        return [_finding("mask-transposed", attention, exam, 1.0, 0.0)]
    if lower.all() and upper.all():
        return [_finding("no-history", attention, exam, 1.0, 0.0)]
    if upper.all() or mask[1:][np.triu_indices(size - 1, 1)].all():
        if np.diagonal(mask)[1:].all():
            return [_finding("strict-mask", attention, exam, 1.0, 0.0)]
        if upper.all():
            return []
    if mask[np.triu_indices(size, 2)].all() and not np.diagonal(mask, 1).any():
        return [_finding("mask-offset", attention, exam, 1.0, 0.0)]
    if _masks_after_softmax(attention):
        return [_finding("mask-after-softmax", attention, exam, None, None)]
    future = attention.scores[:, *np.triu_indices(size, 1)]
    past = attention.scores[:, *np.tril_indices(size, -1)]
    if np.ptp(future) < 1e-3 and np.ptp(past) > 1e-2:
        detail = f"masked scores are {future.mean():.3g}"
        cause = "mask-weak" if future.mean() < limits.WEAK_MASK else "mask-as-zero"
        return [_finding(cause, attention, exam, float(future.mean()), limits.BLOCKED, detail)]
    weak = float(np.median(offsets[:, *np.triu_indices(size, 1)]))
    spread = float(np.ptp(offsets[:, *np.triu_indices(size, 1)]))
    if (
        weak < limits.WEAK_MASK
        and spread < 0.1 * abs(weak)
        and np.abs(offsets[:, *np.tril_indices(size, -1)]).max() < 0.1 * -weak
    ):
        detail = f"the mask adds {weak:.3g} to a score"
        return [_finding("mask-weak", attention, exam, weak, limits.BLOCKED, detail)]
    if not upper.any() and attention.softmax_axis_is_keys:
        return [_finding("no-causal-mask", attention, exam, 0.0, 1.0)]
    return []


def _masks_after_softmax(attention: Attention) -> bool:
    """Weights that the softmax made, and that something has set to zero since."""
    return attention.used is not None and bool(np.any((attention.weights > 1e-12) & (attention.used == 0)))


def _judge_cross(attention: Attention, exam: Examination) -> list[Result]:
    """All of the source, for every query."""
    mask = blocked(attention)
    if not mask.any() or mask.all():
        return []
    queries, keys = mask.shape
    is_causal = (mask == (np.arange(keys)[None] > np.arange(queries)[:, None])).mean() > 0.99
    cause = "causal-cross" if is_causal else "memory-mask"
    return [_finding(cause, attention, exam, float(mask.mean()), 0.0, f"{mask.mean():.0%} of the memory is hidden")]


def _finite_masks(attentions: Sequence[Attention]) -> Iterable[Result]:
    for attention in attentions:
        offsets = attention.offsets()
        masked = offsets[np.isfinite(offsets) & (offsets < limits.BLOCKED)]
        low, high = limits.FINITE_MASK
        if masked.size and low < np.median(masked) < high:
            figure = float(np.median(masked))
            yield Result("finite masks", "advice", figure, low, "finite-mask", attention.place)
            return


def _padding_masks(exam: Examination) -> list[Result]:
    """Where pads are blocked, real tokens must not be."""
    if exam.facts.pad_id is None and not exam.takes_masks:
        return []
    results = []
    for attention in exam.padded_attentions:
        if attention.keys <= PADS or attention.side == "target":
            continue
        maps = at_pads(np.where(_blocked_maps(attention), 1.0, 0.0))
        real = _blocked_maps(attention)[..., :-PADS].reshape(ROWS, -1)[PADDED_ROWS]
        if maps is not None and real.all() and not maps.any():
            results.append(_finding("padding-inverted", attention, exam, 1.0, 0.0))
    return results


def _finding(
    cause: str,
    attention: Attention,
    exam: Examination,
    figure: float | None,
    limit: float | None,
    detail: str = "",
) -> Result:
    return Result("masks", "ill", figure, limit, cause, place_of(attention, exam), detail)


def _merged(results: Iterable[Result]) -> list[Result]:
    """One finding a cause, with the first places that show it."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.cause, []).append(result)
    merged = []
    for group in grouped.values():
        places = list(dict.fromkeys(result.place for result in group))
        more = f" and {len(places) - 2} more" if len(places) > 2 else ""
        merged.append(replace(group[0], place=", ".join(places[:2]) + more))
    return merged


def probe_sums(exam: Examination) -> list[Result]:
    """The weights that values are multiplied with sum to 1 for every query."""
    results = []
    worst = 0.0
    for attention in exam.attentions:
        if attention.used_sums is None or not np.isfinite(attention.used_sums).all():
            continue
        sums = attention.used_sums[attention.used_sums != 0]
        off = float(np.abs(sums - 1).max()) if sums.size else 0.0
        worst = max(worst, off)
        if off <= 1e-3:
            continue
        if _masks_after_softmax(attention):
            cause = "mask-after-softmax"
        elif np.allclose(attention.weights.sum(axis=-1), 1, atol=1e-3) and attention.softmax_axis_is_keys:
            cause = "weights-not-normalized"
        else:
            cause = "softmax-axis"
        detail = f"weights of a query sum to between {sums.min():.3g} and {sums.max():.3g}"
        results.append(Result("weights", "ill", off, 1e-3, cause, place_of(attention, exam), detail))
    if not exam.attentions:
        return [not_applicable("weights", _NONE_FOUND)]
    return _merged(results) or [healthy("weights", worst, 1e-3)]


def probe_scale(exam: Examination) -> list[Result]:
    """The factor between queries times keys and the scores, times sqrt(head_dim)."""
    known = [a for a in exam.attentions if a.scale is not None and a.head_dim > 1]
    if not known:
        return [
            not_applicable("scale", "no attention with a scale that is a number" if exam.attentions else _NONE_FOUND)
        ]
    low, high = limits.SCALE
    results, ratio = [], 1.0
    for attention in known:
        ratio = abs(float(attention.scale or 0)) * attention.head_dim**0.5
        if low <= ratio <= high:
            continue
        spread = float(np.std(attention.scores[np.abs(attention.scores) < -limits.BLOCKED]))
        unscaled = abs(float(attention.scale or 0) - 1) < 1e-6
        cause = "scale-missing" if unscaled else "scale-wrong"
        is_ill = ratio > high and spread > limits.SHARP_SCORES and exam.facts.fresh
        detail = f"scores have a standard deviation of {spread:.2g}"
        if unscaled and not is_ill:
            detail += "; T5 and GPT-Neo leave the scale out on purpose, with an initialization that makes up for it"
        verdict = "ill" if is_ill else "warning"
        limit = high if ratio > high else low
        results.append(Result("scale", verdict, ratio, limit, cause, place_of(attention, exam), detail))
    return [*_merged(results), *_entropy(exam)] or [healthy("scale", ratio, high)]


def _entropy(exam: Examination) -> list[Result]:
    """Of the weights, over that of an equal share."""
    if not exam.facts.fresh:
        return []
    for attention in exam.attentions:
        weights = attention.weights[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.sum(np.where(weights > 0, weights * np.log(weights), 0), axis=-1)
        figure = float(entropy.mean() / np.log(max(weights.shape[-1], 2)))
        seen = np.mean(weights > 1e-9)
        if figure < limits.ENTROPY and seen > 0.99:
            return [Result("entropy", "advice", figure, limits.ENTROPY, "entropy", place_of(attention, exam))]
    return []


def probe_wiring(exam: Examination) -> list[Result]:
    """Heads are split and joined by position, and each attention is added to its input."""
    wiring = Wiring(exam.trace.nodes)
    results = []
    for number, nodes in enumerate(exam.attention_nodes):
        place = nodes.softmax.place or f"attention {number + 1} of {len(exam.attention_nodes)}"
        for apart, together in wiring.joins(nodes):
            lengths = {size for size in (exam.facts.source_length, exam.facts.target_length) if size in apart.shape}
            measured = exam.subject.numpy, ROWS
            if any(mixes_positions(apart, together, *measured, n, exam.inner_epsilon) for n in sorted(lengths)):
                results.append(Result("wiring", "ill", cause="heads-mixed", place=place))
        if wiring.has_residual(nodes) is False:
            results.append(Result("wiring", "ill", cause="no-residual", place=place))
    if not exam.attention_nodes:
        return [not_applicable("wiring", _NONE_FOUND)]
    return _merged(results) or [healthy("wiring", float(len(exam.attention_nodes)))]
