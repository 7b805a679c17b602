"""HTML as a type of its own: any other text is escaped on its way into a page."""

import re
from collections.abc import Iterable, Sequence
from html import escape

_TALL = 24  # rows of a table, from which on it scrolls
# What XML cannot hold, and browsers show as nothing or as a replacement character.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Html(str):
    """Text that is HTML already and is written as it is."""

    __slots__ = ()


def to_html(value: object) -> Html:
    """``value`` as it is where it is :class:`Html`, escaped where it is anything else.

    Example:
        >>> to_html("a < b")
        'a &lt; b'
        >>> to_html(Html("<b>"))
        '<b>'
    """
    return value if isinstance(value, Html) else Html(escape(_CONTROL.sub("\ufffd", str(value))))


def join(parts: Iterable[object], between: object = "") -> Html:
    return Html(to_html(between).join(map(to_html, parts)))


def element(name: str, *content: object, **attributes: object) -> Html:
    """An element with its end tag. Underscores in attributes stand for hyphens; None leaves an attribute out.

    Example:
        >>> element("text", "a < b", class_="soft", font_size=12)
        '<text class="soft" font-size="12">a &lt; b</text>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{to_html(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """One that scrolls within its own box where it is too wide or too long. After the first column come figures."""
    rows = list(rows)
    header = join(element("th", name, class_="number" if i else None) for i, name in enumerate(head))
    body = join(
        element("tr", *(element("td", cell, class_="number" if i else None) for i, cell in enumerate(row)))
        for row in rows
    )
    written = element("table", element("thead", element("tr", header)), element("tbody", body))
    return element("div", written, class_="scroll tall" if len(rows) > _TALL else "scroll")


def section(title: str, *parts: object) -> Html:
    return element("section", element("h2", title), *parts)
