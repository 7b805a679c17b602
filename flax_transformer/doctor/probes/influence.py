"""Which input moves which output: exchange a token, see which logits change."""

import numpy as np

from flax_transformer.doctor.examination import Examination
from flax_transformer.doctor.result import Result, healthy, not_applicable


def probe_causality(exam: Examination) -> list[Result]:
    """No logits of a decoder may depend on later tokens; those of an encoder should."""
    if not exam.is_token_level:
        return [not_applicable("causality", "the model returns one vector a row")]
    influence = exam.influence("target" if exam.is_causal else "source")
    limit = exam.limit()
    future = np.triu(influence, 1)
    worst = float(future.max())
    if exam.is_causal:
        if worst > limit:
            i, j = np.unravel_index(future.argmax(), future.shape)
            detail = f"exchanging token {j} moves the logits at position {i}"
            return [Result("causality", "ill", worst, limit, "sees-future", detail=detail)]
        return [healthy("causality", worst, limit)]
    if worst <= limit:
        detail = "no position depends on later tokens; if this is a decoder, say --kind decoder"
        return [Result("both directions", "ill", worst, limit, "causal-encoder", detail=detail)]
    return [healthy("both directions", worst, limit)]


def probe_history(exam: Examination) -> list[Result]:
    """A decoder's logits depend on its own token and on earlier ones."""
    if not exam.is_causal:
        return [not_applicable("history", "an encoder has no order of time")]
    influence, limit = exam.influence("target"), exam.limit()
    length = len(influence)
    diagonal = np.diagonal(influence)
    before = influence[np.tril_indices(length, -1)]
    if influence.max() <= limit:
        return [Result("own token", "ill", float(influence.max()), limit, "constant-input")]
    results = []
    shifted = bool((diagonal <= limit).all() and before.size and before.max() > limit)
    if shifted:
        previous = np.diagonal(influence, -1)
        if (previous <= limit).all():
            detail = "logits depend neither on the token at their position nor on the one before"
            return [Result("own token", "ill", float(previous.max()), limit, "double-shift", detail=detail)]
        detail = "logits at a position depend on tokens before it only: the model shifts its input"
        results.append(Result("own token", "advice", float(diagonal.max()), limit, "shifts-inside", detail=detail))
    elif (diagonal <= limit).all():
        results.append(Result("own token", "ill", float(diagonal.max()), limit, "constant-input"))
    else:
        results.append(healthy("own token", float(diagonal.min()), limit))
    if before.max() <= limit:
        results.append(Result("history", "ill", float(before.max()), limit, "no-history"))
        return results
    ignored = [j for j in range(length - 1 - shifted) if influence[j:, j].max() <= limit]
    if ignored:
        results.append(Result("history", "ill", 0.0, limit, "token-ignored", place=f"target token {ignored[0]}"))
    else:
        results.append(healthy("history", float(np.median(before)), limit))
    return results


def probe_source(exam: Examination) -> list[Result]:
    """Every token of the source matters."""
    if exam.facts.kind == "decoder":
        return [not_applicable("source", "a decoder-only model has none")]
    influence, limit = exam.influence("source"), exam.limit()
    strongest = influence.max(axis=0)
    if strongest.max() <= limit:
        cause = "no-source" if exam.facts.kind == "seq2seq" else "constant-logits"
        return [Result("source", "ill", float(strongest.max()), limit, cause)]
    ignored = np.flatnonzero(strongest <= limit)
    if len(ignored):
        place = f"source token{'s' if len(ignored) > 1 else ''} {', '.join(map(str, ignored))}"
        return [Result("source", "ill", float(strongest.min()), limit, "token-ignored", place=place)]
    return [healthy("source", float(strongest.min()), limit)]
