"""Charts as inline SVG: lines, dots and bars over one pair of axes, with a title and a legend."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flax_transformer.pages.html import Html, element, join

_WIDTH, _WIDE, _HEIGHT = 480, 960, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 24, 10, 206  # of the drawing within; _RIGHT from the right edge
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Line:
    """Points in the order in which they are joined.

    Args:
        name: of the legend; empty keeps it out.
        color: 1 to 4, of the page's colors; 0 is that of the text, soft.
        style: ``faint`` and ``dashed`` lines are for what stands behind others.
        labels: what is said of each point under the pointer, which needs a dot; an empty one leaves it out.
        is_capped: whether values that are not finite stand at the top; they are left out otherwise.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 1
    style: str = "line"  # or faint, dashed, dots
    labels: Sequence[str] = ()
    is_capped: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar from 0 to each height, between two neighbours of the ``edges``, of which there is one more.

    A height that is not finite reaches to the top.
    """

    name: str
    edges: Sequence[float]
    heights: Sequence[float]
    labels: Sequence[str]
    color: int = 1


@dataclass(frozen=True)
class Axis:
    """``form`` writes the numbers beside it, which are round where no ``ticks`` are given.

    The limits are those of what is drawn where none are given.
    """

    label: str
    limits: tuple[float, float] | None = None
    is_log: bool = False
    form: Callable[[float], str] = lambda value: number(value)
    ticks: Sequence[float] = ()


def number(value: float) -> str:
    """A figure beside an axis: ``1,500``, ``0.25``, ``3e-5``."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def percent(value: float) -> str:
    """A share beside an axis: ``2.5%``."""
    return f"{100 * value:.3g}%"


def chart(
    title: str,
    marks: Sequence[Line | Bars],
    x: Axis,
    y: Axis,
    *,
    verticals: Sequence[float] = (),
    is_wide: bool = False,
) -> Html:
    """A figure with everything in it, the first at the back.

    Args:
        verticals: where to draw dashed lines from top to bottom.
        is_wide: whether it is as wide as a page, and scrolls on narrower screens.
    """
    width = _WIDE if is_wide else _WIDTH
    xs, ys = _Scale(x, marks, "x", _LEFT, width - _RIGHT), _Scale(y, marks, "y", _BOTTOM, _TOP)
    drawn = [*_axes(xs, ys)]
    drawn += [_vertical(xs(value)) for value in verticals if xs.low <= value <= xs.high]
    for mark in marks:
        drawn += _bars(mark, xs, ys) if isinstance(mark, Bars) else _line(mark, xs, ys)
    box = {"width": width, "height": _HEIGHT, "viewBox": f"0 0 {width} {_HEIGHT}"}
    svg = element("svg", *drawn, **box, role="img", aria_label=f"{title}: {y.label} against {x.label}")
    keys = [_key(mark) for mark in marks if mark.name]
    legend = element("figcaption", *keys, class_="legend") if len(keys) > 1 else ""
    return element("figure", element("h3", title), element("div", svg, class_="scroll") if is_wide else svg, legend)


# Of figures that hold charts; belongs to the style of a page that has some.
CHART_STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem 2rem;
          margin-bottom: 1.25rem; }
.charts h3 { font-weight: 600; font-size: .95rem; }
.legend { color: var(--soft); display: flex; flex-wrap: wrap; gap: 0 1rem; }
.legend span::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .35em;
                       border-radius: 2px; vertical-align: -.05em; background: var(--key); opacity: var(--strength); }
svg text { font-family: system-ui, sans-serif; }
"""


class _Scale:
    """From values to pixels; what is not finite stands at the end."""

    def __init__(self, axis: Axis, marks: Sequence[Line | Bars], side: str, start: float, end: float) -> None:
        self.axis, self.start, self.end = axis, start, end
        self.low, self.high = axis.limits or _limits(_values(marks, side), axis.is_log, side == "y")

    def __call__(self, value: float) -> float:
        if not math.isfinite(value):
            return self.end
        low, high, value = map(self._linear, (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _linear(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.axis.is_log else value

    def ticks(self) -> Sequence[float]:
        if self.axis.ticks:
            return self.axis.ticks
        return _log_ticks(self.low, self.high) if self.axis.is_log else _ticks(self.low, self.high)


def _values(marks: Sequence[Line | Bars], side: str) -> Iterator[float]:
    for mark in marks:
        if isinstance(mark, Line):
            yield from filter(math.isfinite, mark.x if side == "x" else mark.y)
        else:
            yield from mark.edges if side == "x" else filter(math.isfinite, (0, *mark.heights))


def _limits(values: Iterator[float], is_log: bool, is_padded: bool) -> tuple[float, float]:
    """Of the values, a little apart and with some air above and below."""
    found = [value for value in values if not is_log or value > 0] or [1.0 if is_log else 0.0]
    low, high = min(found), max(found)
    if is_log:
        return (low / 1.2, high * 1.2)
    if low == high:
        return (low - 0.5 * abs(low), high + 0.5 * (abs(high) or 1))
    air = 0.04 * (high - low) * is_padded
    return (min(0.0, low) if 0 <= low < 0.5 * high else low - air, high + air)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in _STEPS), key=lambda step: abs(step - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    ratio = high / low
    factors = (1,) if ratio > 1e4 else (1, 3) if ratio > 100 else (1, 2, 5) if ratio > 4 else (1, 1.5, 2, 3, 4, 6, 8)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def _axes(xs: _Scale, ys: _Scale) -> Iterator[Html]:
    style = {"font_size": 13, "fill": "var(--soft)"}
    for value in ys.ticks():
        at = _px(ys(value))
        yield element("line", x1=xs.start, x2=xs.end, y1=at, y2=at, stroke="var(--grid)")
        yield element("text", ys.axis.form(value), x=_LEFT - 6, y=_px(ys(value) + 4), text_anchor="end", **style)
    for value in xs.ticks():
        yield element("text", xs.axis.form(value), x=_px(xs(value)), y=_BOTTOM + 18, text_anchor="middle", **style)
    yield element("line", x1=xs.start, x2=xs.end, y1=_BOTTOM, y2=_BOTTOM, stroke="var(--soft)")
    middle = (xs.start + xs.end) / 2
    yield element("text", xs.axis.label, x=middle, y=_HEIGHT - 6, text_anchor="middle", **style)


def _vertical(x: float) -> Html:
    return element(
        "line", x1=_px(x), x2=_px(x), y1=_TOP, y2=_BOTTOM, stroke="var(--soft)", stroke_dasharray="3 3"
    )  # fmt: skip


def _line(line: Line, xs: _Scale, ys: _Scale) -> Iterator[Html]:
    labels = line.labels or [""] * len(line.x)
    points = [
        (_px(xs(a)), _px(ys(b)), label, _color(line.color, b))
        for a, b, label in zip(line.x, line.y, labels, strict=True)
        if (b > 0 or not ys.axis.is_log if math.isfinite(b) else line.is_capped)
    ]
    opacity = 0.35 if line.style == "faint" else None
    if line.style != "dots" and len(points) > 1:
        path = " ".join(f"{x},{y}" for x, y, *_ in points)
        dashes = "5 4" if line.style == "dashed" else None
        width = 1 if line.style == "faint" else 2
        yield element(
            "polyline", points=path, fill="none", stroke=_color(line.color), stroke_width=width,
            stroke_dasharray=dashes, stroke_opacity=opacity, stroke_linejoin="round",
        )  # fmt: skip
    for x, y, label, color in points:
        if line.style == "dots" or label or len(points) == 1:
            yield element("circle", element("title", label), cx=x, cy=y, r=3, fill=color, fill_opacity=opacity)


def _bars(bars: Bars, xs: _Scale, ys: _Scale) -> Iterator[Html]:
    for left, right, height, label in zip(bars.edges, bars.edges[1:], bars.heights, bars.labels, strict=False):
        top, width = ys(height), xs(right) - xs(left)
        yield element(
            "rect", element("title", label), x=_px(xs(left) + 0.5), y=_px(top), width=_px(max(width - 1, 0.5)),
            height=_px(max(ys(0) - top, 0)), fill=_color(bars.color, height), fill_opacity=0.65,
        )  # fmt: skip


def _key(mark: Line | Bars) -> Html:
    strength = 0.35 if isinstance(mark, Line) and mark.style == "faint" else 1
    return element("span", mark.name, style=f"--key: {_color(mark.color)}; --strength: {strength}")


def _color(number: int, value: float = 0) -> str:
    """Of a mark, or of its part with a value, which warns where that is not finite."""
    if not math.isfinite(value):
        return "var(--ill)"
    return f"var(--c{number})" if number else "var(--soft)"


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def charts(*figures: Html) -> Html:
    """Figures beside one another where there is room."""
    return element("div", join(figures), class_="charts")
