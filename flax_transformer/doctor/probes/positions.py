"""Does the model know where a token stands?"""

from dataclasses import replace

import numpy as np

import flax_transformer.doctor.limits as limits
from flax_transformer.doctor.examination import ROWS, Examination
from flax_transformer.doctor.graph import Attention, PositionTerm
from flax_transformer.doctor.result import Result, healthy, not_applicable
from flax_transformer.doctor.subject import Batch


def probe_positions(exam: Examination) -> list[Result]:
    results = _repeated_ids(exam)
    if exam.facts.kind != "encoder":
        results += _target_positions(exam)
    if exam.facts.kind != "decoder":
        results += _source_positions(exam)
    return results


def _repeated_ids(exam: Examination) -> list[Result]:
    """The same row of a position table for several positions: clamped, counted in pairs, started anew."""
    for term in exam.position_terms:
        if term.ids is None:
            continue
        ids = exam.subject.numpy(term.ids.value)
        rows = ids.reshape(-1, ids.shape[-1]) if ids.ndim and ids.shape[-1] > 1 else ids.reshape(1, -1)
        distinct = len(np.unique(rows[0]))
        if 1 < distinct < rows.shape[1]:
            detail = f"position ids {', '.join(f'{i:.0f}' for i in rows[0])}"
            return [
                Result("position ids", "ill", float(distinct), float(rows.shape[1]), "position-range", term.parameter,
                       detail)
            ]  # fmt: skip
    return []


def _target_positions(exam: Examination) -> list[Result]:
    """One token repeated: without positions all logits of a row are equal, at any depth, under any mask."""
    base = exam.draw(2)
    repeated = replace(base, target=np.repeat(base.require_target()[:, :1], base.require_target().shape[1], axis=1))
    logits = exam.subject.logits(repeated)
    # Where the model shifts its input, a begin token stands in front.
    change = exam.change(logits[:, 2:], logits[:, 1:-1])
    # Each position sums over another number of keys, so this is not exact to the last bit.
    figure, limit = float(change.max()), exam.least_effect
    if figure <= limit:
        if _scores_vary(exam, repeated):
            return [healthy("target positions", detail="relative: scores vary with distance")]
        if not exam.attentions:
            detail = "equal tokens get equal logits, as with relative positions too, and no softmax was seen that tells"
            return [not_applicable("target positions", detail)]
        return [_without_positions(exam, "target", figure, limit, "one token repeated")]
    stuck = np.flatnonzero(change.max(axis=0) <= limit)
    if len(stuck):
        place = f"target positions {stuck[0] + 1} and {stuck[0] + 2}"
        return [Result("target positions", "ill", 0.0, limit, "position-range", place=place)]
    return [healthy("target positions", figure, limit)]


def _scores_vary(exam: Examination, repeated: Batch) -> bool:
    """Rotary and other relative positions leave the logits of equal tokens equal, but not the scores."""
    attentions = exam.attentions_on(repeated)
    return any(_varies_along_keys(a, exam.least_effect) for a in attentions if a.side == "target")


def _varies_along_keys(attention: Attention, limit: float) -> bool:
    """Equal tokens give equal products, unless positions are turned into them or added to the scores."""
    last = attention.scores[:, -1]
    usable = np.where(last > limits.BLOCKED * 5, last, np.nan)
    if np.isnan(usable).all():
        return False
    span = np.nanmax(usable, axis=-1) - np.nanmin(usable, axis=-1)
    return bool(np.nanmax(span) > limit * max(1.0, float(np.nanmax(np.abs(usable)))))


def _without_positions(exam: Examination, side: str, figure: float, limit: float, detail: str) -> Result:
    """Nothing is added to the tokens of this side; or a table that starts at zero; or something far too small."""
    probe = f"{side} positions"
    terms = [term for term in exam.position_terms if side in term.tokens.ids]
    if any(_is_zero_table(term, exam) for term in terms):
        return Result(probe, "warning", figure, limit, "zero-positions")
    if any(_ratio(term, exam) > limits.EMBEDDING_RATIO[1] for term in terms):
        return Result(probe, "ill", figure, limit, "weak-positions", detail=detail)
    return Result(probe, "ill", figure, limit, f"no-{side}-positions", detail=detail)


def _is_zero_table(term: PositionTerm, exam: Examination) -> bool:
    """Zeros that may be learned: where no parameter is known, each constant may be one."""
    may_learn = bool(term.parameter) or not exam.gradients
    return may_learn and not np.any(exam.subject.numpy(term.positions.value))


def _ratio(term: PositionTerm, exam: Examination) -> float:
    """Of tokens over positions, root mean square; 0 where positions are."""
    tokens, positions = exam.subject.numpy(term.tokens.value), exam.subject.numpy(term.positions.value)
    return float(np.sqrt(np.mean(tokens**2) / np.mean(positions**2))) if np.any(positions) else 0.0


def _source_positions(exam: Examination) -> list[Result]:
    """Exchange two tokens of the source: attention without positions sees a bag of words."""
    if not exam.is_causal and exam.is_token_level:
        return _token_level_positions(exam)
    changes = []
    for seed in range(2):
        base = exam.draw(20 + seed)
        assert base.source is not None, "only a decoder has no source"
        source, pairs = _with_pairs_exchanged(exam, base.source[0], seed)
        target = None if base.target is None else np.repeat(base.target[:1], ROWS, axis=0)
        logits = exam.subject.logits(replace(base, source=source, target=target))
        change = exam.change(logits[1 : 1 + len(pairs)], logits[:1])
        changes.append(change.max(axis=1) if change.ndim == 2 else change)
    return _judge_exchanges(exam, np.max(changes, axis=0), pairs)


def _with_pairs_exchanged(exam: Examination, row: np.ndarray, seed: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The row in every row, neighbours j and j + 1 exchanged in row 1 + j. Neighbours are different tokens."""
    random = np.random.default_rng(seed)
    ordinary = exam.ordinary_ids(exam.facts.source_vocab)
    row = row.copy()
    for j in range(1, len(row)):
        if row[j] == row[j - 1]:
            row[j] = random.choice(ordinary[ordinary != row[j - 1]])
    rows, pairs = np.repeat(row[None], ROWS, axis=0), []
    for j in range(len(row) - 1):
        rows[1 + j, [j, j + 1]] = row[[j + 1, j]]
        pairs.append((j, j + 1))
    return rows, pairs


def _judge_exchanges(exam: Examination, change: np.ndarray, pairs: list[tuple[int, int]]) -> list[Result]:
    # Words in another order are summed in another order, so this is not exact to the last bit.
    limit = exam.least_effect
    stuck = np.flatnonzero(change <= limit)
    figure = float(np.sort(change)[-2] if len(stuck) == len(pairs) - 1 else change.max())
    if figure <= limit:  # but for a first or last token, which a classifier may take for the whole text
        return [_without_positions(exam, "source", figure, limit, "neighbouring tokens of the source exchanged")]
    if len(stuck):
        place = f"source positions {pairs[stuck[0]][0]} and {pairs[stuck[0]][1]}"
        return [Result("source positions", "ill", float(change.min()), limit, "position-range", place=place)]
    return [healthy("source positions", figure, limit)]


def _token_level_positions(exam: Examination) -> list[Result]:
    """Logits of an encoder move with their tokens if it has no positions."""
    base = exam.draw(20)
    assert base.source is not None, "only a decoder has no source"
    source, pairs = _with_pairs_exchanged(exam, base.source[0], 0)
    logits = exam.subject.logits(replace(base, source=source))
    changes = []
    for number, (i, j) in enumerate(pairs):
        moved = logits[1 + number].copy()
        moved[[i, j]] = moved[[j, i]]
        changes.append(exam.change(moved, logits[0]).max())
    return _judge_exchanges(exam, np.array(changes), pairs)


def probe_order(exam: Examination) -> list[Result]:
    """The effect of exchanging two tokens of the context, over that of replacing one of them."""
    side = "target" if exam.facts.kind == "decoder" else "source"
    base = exam.draw(30)
    ids = getattr(base, side)
    if ids is None or ids.shape[1] < 5:
        return [not_applicable("order", "texts are too short")]
    row = ids[0].copy()
    ordinary = exam.ordinary_ids(exam.facts.source_vocab if side == "source" else exam.facts.target_vocab)
    random = np.random.default_rng(30)
    row[:4] = random.choice(ordinary, 4, replace=len(ordinary) < 4)
    rows = np.repeat(row[None], ROWS, axis=0)
    orders = [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3)]
    for number, (i, j) in enumerate(orders):
        rows[1 + number, [i, j]] = row[[j, i]]
    for number in range(4):
        rows[6 + number, number] = random.choice(ordinary[ordinary != row[number]])
    others = {} if base.target is None or side == "target" else {"target": np.repeat(base.target[:1], ROWS, axis=0)}
    logits = exam.subject.logits(replace(base, **{side: rows}, **others))
    logits = logits[:, 4:] if side == "target" else logits
    moved = np.sqrt(np.mean((logits[1:10] - logits[:1]) ** 2, axis=tuple(range(1, logits.ndim))))
    ratio = float(moved[:5].mean() / max(moved[5:].mean(), 1e-300))
    if moved[5:].mean() <= exam.limit() * exam.spread:
        return [not_applicable("order", "the context has no effect to compare with")]
    if ratio < limits.ORDER:
        return [Result("order", "warning", ratio, limits.ORDER, "weak-positions")]
    return [healthy("order", ratio, limits.ORDER)]


def probe_ratio(exam: Examination) -> list[Result]:
    """Root mean square of token embeddings over that of what is added to them as positions."""
    ratios = [ratio for term in exam.position_terms if (ratio := _ratio(term, exam))]
    if not ratios:
        return [not_applicable("embedding ratio", "nothing is added to token embeddings as positions")]
    low, high = limits.EMBEDDING_RATIO
    results = []
    for ratio in ratios[:2]:
        if not low <= ratio <= high:
            side = "tokens are" if ratio < low else "positions are"
            detail = f"{side} {max(ratio, 1 / ratio):.0f} times smaller"
            limit = low if ratio < low else high
            results.append(Result("embedding ratio", "warning", ratio, limit, "embedding-ratio", detail=detail))
    return results or [healthy("embedding ratio", ratios[0], low)]
