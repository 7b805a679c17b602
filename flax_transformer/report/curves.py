"""Learning curves: what metrics.jsonl holds, against the steps."""

import math
from collections.abc import Sequence

import numpy as np

from flax_transformer.pages.charts import Axis, Line, chart, charts, number, percent
from flax_transformer.pages.html import Html, element, section
from flax_transformer.report.facts import Facts

_POINTS = 400  # of a line: more cannot be told apart
_WIDE = 20  # largest over smallest value, from which on an axis is logarithmic
_SHOWN = 4  # validation scores in one chart


def curves(facts: Facts) -> Html:
    """A section with all of them; of a run that has logged nothing yet, a line that says so."""
    if not facts.rows:
        return section("Learning curves", element("p", "The run has not logged anything yet.", class_="soft"))
    figures = [
        _loss(facts),
        _scores(facts),
        _over_steps(facts, "Learning rate", "rate", _raw(facts, "learning_rate"), is_log=False),
    ]
    figures += [
        _of_steps(facts, "grad_norm", "Gradient norm, before clipping"),
        _of_steps(facts, "tokens_per_second", "Tokens per second, source and target"),
    ]
    best = facts.best
    note = f"The dashed line marks the best checkpoint, step {best[0]:,}. " if best else ""
    note += "Each point is the mean of the steps since the one before; strong lines are smoothed."
    return section("Learning curves", element("p", note, class_="soft"), charts(*filter(None, figures)))


def _loss(facts: Facts) -> Html | None:
    raw, smooth = _lines(facts, "loss", "training")
    steps, losses = facts.points("validation/loss")
    labels = [f"step {step:,}: validation loss {loss:.4f}" for step, loss in zip(steps, losses, strict=True)]
    marks = [raw, smooth, Line("validation", steps, losses, color=2, labels=labels)]
    return _over_steps(facts, "Loss", "loss", [mark for mark in marks if mark.x])


def _scores(facts: Facts) -> Html | None:
    """The one that the best checkpoint is kept by first; those of parts, such as ``field/date``, are left out."""
    names = [name for name in (facts.best or (0, {}))[1] if name != "loss" and "/" not in name]
    chosen = [
        name for name in sorted(names, key=lambda name: name != facts.metric) if facts.points(f"validation/{name}")
    ]
    marks = []
    is_share = not facts.metric.startswith(("bleu", "chrf"))
    for color, name in enumerate(chosen[:_SHOWN], start=1):
        steps, values = facts.points(f"validation/{name}")
        if any(map(math.isfinite, values)) and name.startswith(("bleu", "chrf", "perplexity")) != is_share:
            form = percent if is_share else number
            labels = [f"step {s:,}: {name.replace('_', ' ')} {form(v)}" for s, v in zip(steps, values, strict=True)]
            marks.append(Line(name.replace("_", " "), steps, values, color, labels=labels))
    return _over_steps(facts, "Validation scores", "score", marks, is_share=is_share)


def _of_steps(facts: Facts, name: str, title: str) -> Html | None:
    return _over_steps(facts, title, title.lower(), [line for line in _lines(facts, name, "") if line.x])


def _raw(facts: Facts, name: str) -> list[Line]:
    steps, values = facts.points(name)
    return [Line("", *_thinned(steps, values))] if steps else []


def _lines(facts: Facts, name: str, what: str) -> tuple[Line, Line]:
    """As logged, and smoothed."""
    steps, values = facts.points(name)
    raw = Line(what, *_thinned(steps, values), style="faint")
    return raw, Line(f"{what}, smoothed" if what else "", *_thinned(steps, smoothed(values)))


def _over_steps(
    facts: Facts, title: str, unit: str, marks: list[Line], *, is_log: bool = True, is_share: bool = False
) -> Html | None:
    """One chart; logarithmic where the values span much and that is not ruled out."""
    if not marks:
        return None
    values = [value for mark in marks for value in mark.y if math.isfinite(value)]
    is_log = is_log and not is_share and bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)
    axis = Axis(unit, is_log=is_log, form=percent if is_share else number)
    steps = Axis("step", (0, max(row["step"] for row in facts.rows) or 1))
    best = facts.best
    return chart(f"{title} (logarithmic)" if is_log else title, marks, steps, axis, verticals=[best[0]] if best else [])


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean over a window around each value, a fiftieth of all wide and narrower at the ends; NaN counts nowhere."""
    radius = max(1, len(values) // 100)
    array = np.array(values, float)
    means = []
    for i in range(len(array)):
        near = min(radius, i, len(array) - 1 - i)  # as many before as after, or the ends would be bent
        window = array[i - near : i + near + 1]
        finite = window[np.isfinite(window)]
        means.append(float(finite.mean()) if finite.size else math.nan)
    return means


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Every n-th point, and the last one."""
    every = -(-len(steps) // _POINTS) or 1
    kept = sorted({*range(0, len(steps), every), len(steps) - 1} - {-1})
    return [steps[i] for i in kept], [values[i] for i in kept]
