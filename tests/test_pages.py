"""Pages and their pictures: whatever the text, they are well-formed, ask for nothing from elsewhere and run nothing."""

import dataclasses
import math
import re

import pytest
from checked_pages import NASTY, check_page

from flax_transformer.pages.charts import Axis, Bars, Line, chart, number, percent
from flax_transformer.pages.heat_map import Cell, heat_map, shorten
from flax_transformer.pages.html import Html, element, join, table, to_html
from flax_transformer.pages.page import to_page


def everything(text: str) -> Html:
    """All that pages are made of, with ``text`` wherever there can be any."""
    line = Line(text, [0, 1, 2], [1, math.nan, 3], labels=[text] * 3)
    bars = Bars(text, [0, 1, 2], [1, 2], [text] * 2)
    drawn = chart(text, [bars, line], Axis(text), Axis(text), verticals=[1])
    matrix = heat_map([[Cell(0.5, text, text), Cell(0, is_framed=True)]], text, rows=[text], columns=[text, "b"])
    return join([element("p", text, title=text), table([text, text], [[text, 1]]), drawn, matrix], text)


def test_whatever_the_text_nothing_of_it_is_html():
    page = to_page(NASTY, everything(NASTY))
    text = check_page(page)
    assert "<script>alert" in text
    assert "\x00" not in page


@pytest.mark.parametrize(
    "planted",
    ["<p>", "</p>", "<script></script>", "<p onclick='a()'></p>", "<a href='x'></a>", "<p style='a: url(x)'></p>"],
)
def test_the_check_sees_what_does_not_belong(planted: str):
    with pytest.raises(AssertionError):
        check_page(to_page("title", join([everything("plain"), Html(planted)])))


def test_only_html_is_taken_for_html():
    assert to_html(Html("<b>")) == "<b>"
    assert to_html("<b>") == "&lt;b&gt;"
    assert to_html(Html("<b>") + "</b>") == "&lt;b&gt;&lt;/b&gt;", "a sum of texts is text"
    assert element("a", "x", stroke_width=2, class_="c", id=None) == '<a stroke-width="2" class="c">x</a>'


def places(svg: str, tag: str, *names: str) -> list[tuple[float, ...]]:
    found = re.findall(rf"<{tag} [^>]*>", svg)
    return [tuple(float(re.search(rf' {name}="([^"]+)"', one)[1]) for name in names) for one in found]  # pyright: ignore


def test_points_stand_where_the_ticks_say():
    """A point at each tick: its pixels are those of the tick's line and label."""
    ticks = [0, 20, 40, 60, 80, 100]
    svg = chart("", [Line("", ticks, ticks, style="dots")], Axis("x", (0, 100)), Axis("y", (0, 100)))
    grid = [y for _, _, y in places(svg, "line", "x1", "x2", "y1")][: len(ticks)]
    labels = re.findall(r'<text x="([\d.]+)" y="224"[^>]*>(\d+)</text>', svg)
    assert [int(label) for _, label in labels] == ticks
    points = places(svg, "circle", "cx", "cy")
    assert points == [(float(x), y) for (x, _), y in zip(labels, grid, strict=True)]
    assert points != places(
        chart("", [Line("", ticks, ticks, style="dots")], Axis("x"), Axis("y")), "circle", "cx", "cy"
    )


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios():
    line = Line("", [0, 1, 2, 3], [1, 10, 100, 0], style="dots")  # 0 has no place on it
    heights = [y for (y,) in places(chart("", [line], Axis("x"), Axis("y", is_log=True)), "circle", "cy")]
    assert len(heights) == 3
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_bars_begin_at_0_and_are_as_high_as_their_values():
    bars = Bars("", [0, 1, 2, 3], [1, 2, 0], ["a", "b", "c"])
    drawn = places(chart("", [bars], Axis("x"), Axis("y")), "rect", "y", "height")
    assert drawn[1][1] == pytest.approx(2 * drawn[0][1], abs=0.11)
    assert drawn[2][1] == 0
    assert {round(y + height, 1) for y, height in drawn} == {206.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stands_at_the_top_and_warns(value: float):
    line, bars = Line("", [0, 1, 2], [1, value, 3], labels=["a", "b", ""]), Bars("", [0, 1, 2], [1, value], ["", ""])
    axes = Axis("x"), Axis("y")
    assert len(places(chart("", [line], *axes), "circle", "cy")) == 1, "left out unless capped; no label, no dot"
    for mark, tag, y in ((dataclasses.replace(line, is_capped=True), "circle", "cy"), (bars, "rect", "y")):
        svg = chart("", [mark], *axes)
        (finite,), (capped,) = places(svg, tag, y)
        assert capped == 10 < finite
        assert re.findall(rf'<{tag} [^>]*fill="([^"]+)"', svg) == ["var(--c1)", "var(--ill)"]


def test_a_wide_chart_is_as_high_as_others_and_scrolls():
    narrow, wide = (chart("", [Line("", [0, 1], [0, 1])], Axis("x"), Axis("y"), is_wide=w) for w in (False, True))
    assert places(narrow, "svg", "width", "height") == [(480, 250)]
    assert places(wide, "svg", "width", "height") == [(960, 250)]
    assert 'polyline points="54,' in wide
    assert re.search(r'points="[^"]* 936,', wide)
    assert "scroll" in wide
    assert "scroll" not in narrow


def test_an_axis_may_say_where_its_numbers_stand():
    axis = Axis("x", (0, 10), form="at {:d}".format, ticks=[1, 7])
    assert re.findall(r">(at \d+)<", chart("", [], axis, Axis("y"))) == ["at 1", "at 7"]


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [5.0, 5.0], [-3.0, -1.0], [1e-12, 1e12], [math.inf, 1.0]])
@pytest.mark.parametrize("is_log", [False, True])
def test_any_values_can_be_drawn(values: list[float], is_log: bool):
    svg = chart("", [Line("a", range(len(values)), values)], Axis("x"), Axis("y", is_log=is_log))
    assert "nan" not in svg
    assert "inf" not in svg


def test_numbers_are_short():
    assert [number(value) for value in (0, 1500, 0.25, 3e-5, 2.5e6, -0.001)] == [
        "0", "1,500", "0.25", "3e-5", "2.5e6", "-0.001",
    ]  # fmt: skip
    assert [percent(value) for value in (0, 0.025, 1)] == ["0%", "2.5%", "100%"]
    assert shorten("a  long\nname " * 9) == "a long name a long name…"


def test_squares_without_strength_are_left_out_where_there_is_no_gap():
    cells = [[Cell(0.0), Cell(0.5)], [Cell(1.0), Cell(0.0)]]
    assert heat_map(cells, "").count("<rect") == 4
    assert places(heat_map(cells, "", size=10, gap=0), "rect", "x", "y") == [(10, 0), (0, 10)]
