"""Pages taken apart: well-formed, nothing that runs, nothing asked for from elsewhere."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}
RUNS = {"script", "iframe", "object", "embed", "link", "base", "form", "img"}
NASTY = "<script>alert('&\"')</script> </title> \x00 \ud83d"


class Checker(HTMLParser):
    """Takes a page apart; ``problems`` are tags that do not match, things that run, and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.problems += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        if tag in RUNS:
            self.problems.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "href") or re.search("https?:|//|url\\(", value or ""):
                self.problems.append(f'{name}="{value}"')

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style" and re.search("https?:|url\\(|@import", data):
            self.problems.append("the style asks for something")
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def check_page(page: str) -> str:
    """The text of a page that has nothing wrong with it."""
    page.encode()  # no half characters
    checker = Checker(page)
    assert checker.problems == [], checker.problems
    assert page.startswith("<!doctype html>")
    return checker.text
