"""The page of ``verify --html``: the tables of the terminal, and pictures of what they sum up."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from flax_transformer.pages.html import Html, element, join, section
from flax_transformer.pages.page import to_page
from flax_transformer.parity.report import cells, compared, number, title, versions, where

_STYLE = """
.pass { color: var(--healthy); } .fail { color: var(--ill); font-weight: 600; }
.verdict { font-size: 1.1rem; } h3 { margin-top: 1.5rem; }
.key { display: inline; vertical-align: -.1em; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
"""
FLAX_COLOR, TORCH_COLOR, _FLOOR = "#2563c9", "#d9622b", "#b8c1cc"
_COLUMNS = ("check", "view", "figure", "floor", "tolerance", "unit", "", "where")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000, 240, 60, 20


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
    yield from _operations(precision["intermediates"])
    if precision["gradients"]:
        yield from _gradients(precision["gradients"], precision["null_tensors"])
    yield element("h3", "Logits, by how many of their own ULP they differ")
    labels = ["0", *(f"≤ {2**i}" if i < 10 else f"≤ 2^{i}" for i in range(len(precision["histogram"]) - 1))]
    yield _bars(precision["histogram"], labels, "elements")
    if precision["losses"]:
        yield from _losses(precision["losses"]["flax"], precision["losses"]["torch"])


def _operations(intermediates: Sequence[dict[str, Any]]) -> Iterator[Html]:
    colors = {"floor": _FLOOR, "cumulative": FLAX_COLOR, "local": TORCH_COLOR}
    floor, cumulative, local = map(_key, colors.values())
    yield element("h3", "Each operation, in order of execution")
    yield element(
        "p", "Scaled ULP, with all errors before it (", cumulative, " cumulative), fed with the other side's inputs (",
        local, " local), and what one side differs by from itself (", floor, " floor).",
    )  # fmt: skip
    series = [(color, [one[view] for one in intermediates]) for view, color in colors.items()]
    yield line_chart(series, "scaled ULP", [one["name"] for one in intermediates])


def _gradients(gradients: dict[str, float], null_tensors: Sequence[str]) -> Iterator[Html]:
    yield element("h3", "Each parameter's gradient")
    yield _bars(list(gradients.values()), list(gradients), "scaled ULP")
    if null_tensors:
        names = ", ".join(null_tensors)
        yield element("p", f"The loss does not depend on these, so they are left out: {names}", class_="soft")


def _losses(flax: list[float], torch: list[float]) -> Iterator[Html]:
    apart = max((abs(a - b) for a, b in zip(flax, torch, strict=True)), default=0.0)
    yield element("h3", "Loss of both sides, each training on its own")
    said = f" PyTorch; at most {number(apart)} apart."
    yield element("p", _key(FLAX_COLOR), " JAX, ", _key(TORCH_COLOR), said)
    steps = [f"step {i + 1}" for i in range(len(flax))]
    yield line_chart([(FLAX_COLOR, flax), (TORCH_COLOR, torch)], "loss", steps, from_zero=False)


def _key(color: str) -> Html:
    square = element("rect", width=12, height=12, rx=2, fill=color)
    return element("svg", square, width=12, height=12, class_="key")


def line_chart(
    series: Sequence[tuple[str, list[float]]], label: str, names: Sequence[str], *, from_zero: bool = True
) -> Html:
    """Lines over the same steps, the last one dashed; whatever is not finite stands at the top.

    Args:
        series: the color and the values of each line.
        names: of the steps, told under the pointer.
    """
    finite = [value for _, values in series for value in values if math.isfinite(value)] or [0.0]
    low, high = (0.0 if from_zero else min(finite)), max(finite)
    high = high if high > low else low + 1
    xs = [_LEFT + (_WIDTH - _LEFT) * (i + 0.5) / len(names) for i in range(len(names))]
    drawn = [*_axis(low, high, label)]
    for index, (color, values) in enumerate(series):
        ys = _scale(values, low, high)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        dashes = "5 4" if index == len(series) - 1 else None
        drawn.append(
            element("polyline", points=points, fill="none", stroke=color, stroke_width=2, stroke_dasharray=dashes)
        )
        if len(names) <= 100:  # more dots would hide the lines
            drawn += map(_dot, xs, ys, names, values, [color] * len(names))
    return _svg(drawn, label)


def _dot(x: float, y: float, name: str, value: float, color: str) -> Html:
    tip = element("title", f"{name}: {number(value)}")
    return element("circle", tip, cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.5, fill=color)


def _bars(values: Sequence[float], names: Sequence[str], label: str) -> Html:
    high = max((value for value in values if math.isfinite(value)), default=1.0) or 1.0
    width = (_WIDTH - _LEFT) / max(len(values), 1)
    drawn = [*_axis(0.0, high, label)]
    for i, (y, name, value) in enumerate(zip(_scale(values, 0.0, high), names, values, strict=True)):
        drawn.append(
            element(
                "rect", element("title", f"{name}: {number(value)}"), x=f"{_LEFT + i * width + 1:.1f}", y=f"{y:.1f}",
                width=f"{max(width - 2, 1):.1f}", height=f"{_HEIGHT - _BOTTOM + 5 - y:.1f}", fill=FLAX_COLOR,
            )
        )  # fmt: skip
        if len(values) <= 24 and i % (1 + len(values) // 16) == 0:  # more would overlap
            drawn.append(
                element("text", name, x=f"{_LEFT + (i + 0.5) * width:.1f}", y=_HEIGHT + 2, text_anchor="middle")
            )
    return _svg(drawn, label)


def _axis(low: float, high: float, label: str) -> Iterator[Html]:
    for i in range(5):
        y = (_HEIGHT - _BOTTOM) * (1 - i / 4) + 5
        yield element("line", x1=_LEFT, x2=_WIDTH, y1=f"{y:.1f}", y2=f"{y:.1f}", stroke="#8883")
        yield element("text", number(low + (high - low) * i / 4), x=_LEFT - 6, y=f"{y + 4:.1f}", text_anchor="end")
    yield element("text", label, x=_LEFT + 4, y=1)


def _scale(values: Sequence[float], low: float, high: float) -> list[float]:
    """From values to pixels; what is not finite stands at the top."""
    bounded = (min(value, high) if math.isfinite(value) else high for value in values)
    return [5 + (_HEIGHT - _BOTTOM) * (1 - (value - low) / (high - low)) for value in bounded]


def _svg(content: Sequence[Html], label: str) -> Html:
    box = f"0 -12 {_WIDTH} {_HEIGHT + 22}"
    return element("svg", *content, viewBox=box, width="100%", role="img", aria_label=label)
