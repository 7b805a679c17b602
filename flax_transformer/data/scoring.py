"""What the scores of several tasks share."""

import json
from collections.abc import Iterable, Sequence
from typing import Any


def parse_json(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` spells, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # the latter from "[[[[..."
        return None
    return value if isinstance(value, dict) else None


def mean(outcomes: Iterable[bool]) -> float:
    """The share of outcomes that are true."""
    values = list(outcomes)
    return sum(values) / len(values)


def score_classes(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float | str]:
    """The share of class ids that are right."""
    return {"accuracy": mean(one == other for one, other in zip(predictions, references, strict=True))}


def score_masked(predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> dict[str, float | str]:
    """The share of masked tokens that are right, each text with as many as are masked in it."""
    pairs = ((one, other) for row in zip(predictions, references, strict=True) for one, other in zip(*row, strict=True))
    return {"accuracy": mean(one == other for one, other in pairs)}


def score_texts(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """The share of texts that are right as a whole, and how close the others come."""
    exact = mean(one == other for one, other in zip(predictions, references, strict=True))
    return {"exact_match": exact, **score_translations(predictions, references)}


def score_translations(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """sacreBLEU (Post, 2018), with its signature; also of lower-cased text, which older papers report, and chrF."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, lowercase, chrf = BLEU(), BLEU(lowercase=True), CHRF()
    return {
        "bleu": bleu.corpus_score(predictions, [references]).score,
        "bleu_lowercase": lowercase.corpus_score(predictions, [references]).score,
        "chrf": chrf.corpus_score(predictions, [references]).score,
        "bleu_signature": str(bleu.get_signature()),
    }
