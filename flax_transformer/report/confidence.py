"""Does the model know when it is right? Calibration, and what can be accepted at a given risk."""

import numpy as np

from flax_transformer.data.calibration import (
    BINS,
    RISKS,
    RiskCoverage,
    accepted_at,
    area_under_risk_coverage,
    brier_score,
    calibration_error,
    reliability,
    risk_coverage,
)
from flax_transformer.pages.charts import Axis, Bars, Line, chart, charts, percent
from flax_transformer.pages.html import Html, element, section, table
from flax_transformer.report.answers import Answers

_EDGES = np.arange(BINS + 1) / BINS
_SHARE = (0.0, 1.0)


def confidence(answers: Answers) -> Html:
    """A section: reliability diagram, risk-coverage curve, and a table of their figures."""
    what = "its class" if answers.run.classes else "the whole output (the product of its tokens' probabilities)"
    note = (
        f"Confidence is the probability that the model gives {what}. It is calibrated where a confidence of 80% is "
        "right in 80 of 100 cases: the bars then reach the dashed line. Risk is the share of wrong predictions among "
        "those that are accepted, which are the most confident ones."
    )
    figures = charts(*_reliability(answers), _risk_coverage(answers))
    return section("Confidence", element("p", note, class_="soft"), figures, _table(answers))


def _reliability(answers: Answers) -> tuple[Html, Html]:
    bins = reliability(answers.confidence, answers.right)
    pairs = list(zip(bins.counts, bins.confidence, bins.accuracy, strict=True))
    labels = [f"{count:,} predictions, confidence {c:.1%}, right {a:.1%}" for count, c, a in pairs]
    marks = [
        Bars("share that is right", _EDGES.tolist(), bins.accuracy.tolist(), labels),
        Line("calibrated", _SHARE, _SHARE, color=0, style="dashed"),
    ]
    x, y = Axis("confidence", _SHARE, form=percent), Axis("share that is right", _SHARE, form=percent)
    diagram = chart("Reliability", marks, x, y)
    shares = bins.counts / bins.counts.sum()
    spread = Bars("", _EDGES.tolist(), shares.tolist(), labels, color=4)
    return diagram, chart("How confident it is", [spread], x, Axis("share of predictions", form=percent))


def _risk_coverage(answers: Answers) -> Html:
    lines = []
    for color, group in enumerate(answers.groups, start=1):
        curve = curve_of(answers, group)
        name = answers.group_name(group)
        lines.append(Line(name, *_steps(curve), color=color))
        rate = float(curve.risk[-1])
        lines.append(Line("", _SHARE, (rate, rate), color=color, style="dashed"))
    top = max(max(line.y) for line in lines) * 1.05 or 1.0
    x, y = Axis("share that is accepted", _SHARE, form=percent), Axis("risk", (0.0, min(top, 1.0)), form=percent)
    return chart("Risk against coverage; dashed: accepting at random", lines, x, y)


def _steps(curve: RiskCoverage) -> tuple[list[float], list[float]]:
    """At most some hundred of its points."""
    kept = np.unique(np.linspace(0, len(curve.risk) - 1, min(len(curve.risk), 400)).round().astype(int))
    return curve.coverage[kept].tolist(), curve.risk[kept].tolist()


def curve_of(answers: Answers, group: str) -> RiskCoverage:
    """Of one group, by the log-probability of each prediction: of many tokens, the probability may be 0 in a float."""
    chosen = answers.indices(group)
    return risk_coverage(answers.log_probabilities[chosen], answers.right[chosen])


def _table(answers: Answers) -> Html:
    """A column for each group."""
    columns = [_figures(answers, group) for group in answers.groups]
    head = ["", *(answers.group_name(group) or "figure" for group in answers.groups)]
    return table(head, [[name, *(column[name] for column in columns)] for name in columns[0]])


def _figures(answers: Answers, group: str) -> dict[str, str]:
    chosen, curve = answers.indices(group), curve_of(answers, group)
    bins = reliability(answers.confidence[chosen], answers.right[chosen])
    figures = {
        "predictions": f"{len(chosen):,}",
        "right": f"{answers.right[chosen].mean():.1%}",
        "mean confidence": f"{answers.confidence[chosen].mean():.1%}",
        f"expected calibration error (ECE, {BINS} bins)": f"{calibration_error(bins):.1%}",
        "area under the risk-coverage curve (AURC)": f"{area_under_risk_coverage(curve):.1%}",
    }
    for risk in RISKS:
        share, threshold = accepted_at(curve, risk)
        text = f"{share:.1%}, from a confidence of {np.exp(threshold):.3g} on" if share else "none"
        figures[f"can be accepted at a risk of {risk:.0%}"] = text
    if answers.run.classes:
        figures["negative log-likelihood (NLL)"] = f"{answers.scores['loss']:.4f}"
    if answers.has_all_classes:
        labels = np.array(answers.examples.targets)[chosen]
        figures["Brier score (0 best, 2 worst)"] = f"{brier_score(answers.probabilities[chosen], labels):.4f}"
    return figures
