"""The influence matrices of an examination, each beside the mask that it should show."""

import numpy as np

from flax_transformer.doctor.examination import Examination
from flax_transformer.doctor.report import HeatMap

_LOGITS = "change of the logits, relative to their spread"


def heat_maps(exam: Examination) -> list[HeatMap]:
    maps = []
    kind, limit = exam.facts.kind, exam.limit()
    if kind != "encoder":
        measured = exam.influence("target")
        expected = np.tril(np.ones(measured.shape, bool), -1 if exam.shifts_inside else 0)
        maps.append(HeatMap("target on target", measured, expected, limit, _LOGITS))
    if kind != "decoder":
        measured = exam.influence("source")
        title = "target on source" if kind == "seq2seq" else "source on source"
        if not exam.is_token_level:
            title = "source on class"
        maps.append(HeatMap(title, measured, np.ones(measured.shape, bool), limit, _LOGITS))
    weights = _encoder_weights(exam)
    if weights is not None and not (kind == "encoder" and exam.is_token_level):
        what = "largest attention weight, first encoder layer"
        maps.append(HeatMap("source on source", weights, np.ones(weights.shape, bool), 1e-12, what))
    return maps


def _encoder_weights(exam: Examination) -> np.ndarray | None:
    """The logits do not show who hears whom within the source; the first attention does."""
    try:
        first = next((a for a in exam.attentions if a.side == "source"), None)
    except Exception:
        return None
    return None if first is None or first.queries != first.keys else first.weights.max(axis=0)
