"""The page of ``verify --html``: the tables of the terminal, and pictures of what they sum up."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from flax_transformer.pages.charts import CHART_STYLE, Axis, Bars, Line, chart
from flax_transformer.pages.html import Html, element, join, section
from flax_transformer.pages.page import to_page
from flax_transformer.parity.report import cells, compared, number, title, versions, where

_STYLE = (
    CHART_STYLE
    + """
.pass { color: var(--healthy); } .fail { color: var(--ill); font-weight: 600; }
.verdict { font-size: 1.1rem; } h3 { margin-top: 1.5rem; }
"""
)
_COLUMNS = ("check", "view", "figure", "floor", "tolerance", "unit", "", "where")


def verify_page(report: dict[str, Any]) -> str:
    """The whole page."""
    verdict, color = ("equal", "pass") if report["passed"] else ("not equal", "fail")
    name = f"Parity of {title(report)}"
    config = ", ".join(f"{field} = {value}" for field, value in report["config"].items())
    body = [
        element("h1", name),
        element("p", f"{report['parameters']:,} parameters. {versions(report)}", class_="soft"),
        element("p", compared(report), " are ", element("span", verdict, class_=color), ".", class_="verdict"),
        *(_precision(report, precision) for precision in report["precisions"]),
        section("Config", element("p", config), element("p", f"sha256 {report['config_sha256']}", class_="soft")),
    ]
    return to_page(name, join(body, Html("\n")), _STYLE)


def _precision(report: dict[str, Any], precision: dict[str, Any]) -> Html:
    divergence = precision["divergence"]
    return section(
        f"{precision['dtype']} on {precision['platform']}",
        element("p", divergence, class_="fail") if divergence else "",
        _table([report["weights"], *precision["results"]]),
        *(() if report["against"] else _pictures(precision)),
    )


def _table(rows: Sequence[dict[str, Any]]) -> Html:
    head = element("tr", *(element("th", name) for name in _COLUMNS))
    return element("div", element("table", head, *map(_row, rows)), class_="scroll")


def _row(row: dict[str, Any]) -> Html:
    figures = (element("td", cell, class_="number" if 2 <= i <= 4 else None) for i, cell in enumerate(cells(row)))
    verdict, color = ("pass", "pass") if row["passed"] else ("FAIL", "fail")
    return element("tr", *figures, element("td", verdict, class_=color), element("td", where(row), class_="soft"))


def _pictures(precision: dict[str, Any]) -> Iterator[Html]:
    yield _operations(precision["intermediates"])
    if precision["gradients"]:
        yield from _gradients(precision["gradients"], precision["null_tensors"])
    yield _histogram(precision["histogram"])
    if precision["losses"]:
        yield _losses(precision["losses"]["flax"], precision["losses"]["torch"])


def _operations(intermediates: Sequence[dict[str, Any]]) -> Html:
    names = [one["name"] for one in intermediates]
    floor, cumulative, local = ([one[view] for one in intermediates] for view in ("floor", "cumulative", "local"))
    lines = [
        _line("floor: how far one side is from itself", floor, names, 0, "faint"),
        _line("cumulative: with all errors before it", cumulative, names, 1),
        _line("local: fed with the other side's inputs", local, names, 2, "dashed"),
    ]
    title = "Each operation, in order of execution, in scaled ULP"
    return chart(title, lines, Axis("operation", _limits(names)), Axis("scaled ULP"), is_wide=True)


def _gradients(gradients: dict[str, float], null_tensors: Sequence[str]) -> Iterator[Html]:
    bars, x = _bars(list(gradients.values()), list(gradients)), Axis("parameter", _limits(gradients))
    yield chart("Each parameter's gradient, in scaled ULP", [bars], x, Axis("scaled ULP"), is_wide=True)
    if null_tensors:
        names = ", ".join(null_tensors)
        yield element("p", f"The loss does not depend on these, so they are left out: {names}", class_="soft")


def _histogram(counts: Sequence[int]) -> Html:
    bins = ["0", *(f"≤ {2**i}" if i < 10 else f"≤ 2^{i}" for i in range(len(counts) - 1))]
    ticks = range(1, len(bins) + 1, 1 + len(bins) // 16)  # more would overlap
    x = Axis("ULP", _limits(bins), form=lambda at: bins[int(at) - 1], ticks=ticks)
    title = "Logits, by how many of their own ULP they differ (number of elements)"
    return chart(title, [_bars(counts, bins)], x, Axis("elements"), is_wide=True)


def _losses(flax: list[float], torch: list[float]) -> Html:
    gaps = [abs(a - b) for a, b in zip(flax, torch, strict=True)]
    apart = max(gaps, key=lambda gap: (math.isnan(gap), gap), default=0.0)
    title = f"Loss of both sides, each training on its own: at most {number(apart)} apart"
    names = [f"step {i + 1}" for i in range(len(flax))]
    lines = [_line("JAX", flax, names, 1), _line("PyTorch", torch, names, 2, "dashed")]
    return chart(title, lines, Axis("step", _limits(names)), Axis("loss"), is_wide=True)


def _limits(names: Collection[str]) -> tuple[float, float]:
    """Of an axis on which things are numbered from 1."""
    return (0.5, len(names) + 0.5)


def _line(name: str, values: Sequence[float], names: Sequence[str], color: int, style: str = "line") -> Line:
    labels = _labels(names, values)
    if len(labels) > 100:  # so many dots would hide the lines
        labels = ["" if math.isfinite(value) else label for label, value in zip(labels, values, strict=True)]
    return Line(name, range(1, len(values) + 1), values, color, style, labels, is_capped=True)


def _bars(values: Sequence[float], names: Sequence[str]) -> Bars:
    return Bars("", [i + 0.5 for i in range(len(values) + 1)], values, _labels(names, values))


def _labels(names: Sequence[str], values: Sequence[float]) -> list[str]:
    return [f"{name}: {number(value)}" for name, value in zip(names, values, strict=True)]
