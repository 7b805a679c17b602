"""Matrices as inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from flax_transformer.pages.html import Html, element, join

_CHARACTER = 6.6  # pixels of one in the labels, on average
_LONGEST = 24  # characters of a label


@dataclass(frozen=True)
class Cell:
    """One entry of a matrix.

    Args:
        strength: how dark it is, from 0 to 1.
        title: what is said of it under the pointer.
        text: written into it.
        fill: its color in CSS.
        is_framed: draw a red frame around it.
    """

    strength: float
    title: str = ""
    text: str = ""
    fill: str = "var(--seen)"
    is_framed: bool = False


def heat_map(
    cells: Sequence[Sequence[Cell]],
    label: str,
    *,
    size: float = 18,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    gap: float = 2,
) -> Html:
    """A matrix of squares, row by row.

    Args:
        label: what it shows, for readers that do not see it.
        size: of a square, in pixels.
        rows: names to the left of it, and
        columns: above it, upright.
        gap: pixels between the squares; without any, squares of no strength are left out.
    """
    left, top = _room(rows), _room(columns)
    drawn = [
        _square(cell, left + j * size, top + i * size, size, gap)
        for i, row in enumerate(cells)
        for j, cell in enumerate(row)
        if gap or cell.strength > 0
    ]
    width, height = left + size * max(map(len, cells), default=0), top + size * len(cells)
    drawn += [
        element("text", shorten(name), x=left - 5, y=_px(top + (i + 0.5) * size + 4), text_anchor="end", font_size=12)
        for i, name in enumerate(rows)
    ]
    for j, name in enumerate(columns):
        x, y = _px(left + (j + 0.5) * size + 4), top - 5
        turned = f"rotate(-90 {x} {y})"
        drawn.append(element("text", shorten(name), x=x, y=y, transform=turned, font_size=12))
    return element(
        "svg",
        *drawn,
        width=_px(width),
        height=_px(height),
        viewBox=f"0 0 {_px(width)} {_px(height)}",
        role="img",
        aria_label=label,
        fill="currentColor",
    )


def shorten(name: str) -> str:
    """A name on one line, cut where it is long."""
    line = " ".join(name.split()) or name
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _room(names: Sequence[str]) -> float:
    longest = max((len(shorten(name)) for name in names), default=0)
    return round(longest * _CHARACTER + 10) if longest else 0


def _square(cell: Cell, x: float, y: float, size: float, gap: float) -> Html:
    frame = {"stroke": "var(--wrong)", "stroke_width": 2} if cell.is_framed else {}
    if not frame and gap:
        frame = {"stroke": "var(--line)", "stroke_width": 0.5}
    title = element("title", cell.title) if cell.title else ""
    side = _px(size - gap)
    square = element(
        "rect", title, x=_px(x + gap / 2), y=_px(y + gap / 2), width=side, height=side, fill=cell.fill,
        fill_opacity=f"{cell.strength:.2f}", **frame,
    )  # fmt: skip
    if not cell.text:
        return square
    at = {"x": _px(x + size / 2), "y": _px(y + size / 2 + 4.5)}
    return join([square, element("text", cell.text, title, text_anchor="middle", font_size=13, **at)])


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
