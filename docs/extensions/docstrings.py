"""A Griffe extension, so that the API page shows what the source says in this project's own ways."""

import re
from typing import Any

import griffe

# Sphinx roles and literal blocks -> Markdown; the section of examples -> its name in Griffe.
_REWRITES = (
    (re.compile(r":(?:attr|class|func|meth|mod):`~?([^`]+)`"), r"`\1`"),
    (re.compile(r"::$", re.MULTILINE), ":"),
    (re.compile(r"^Example:$", re.MULTILINE), "Examples:"),
)


class ProjectDocstrings(griffe.Extension):
    """Documents the fields of a config by the comments above them, and rewrites what Griffe does not know."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        comments = {
            name: comment
            for name, field in cls.attributes.items()
            if "dataclass" in cls.labels and not field.docstring and (comment := _comment_above(field))
        }
        if cls.docstring is not None and comments:
            arguments = "\n".join(f"    {name}: {comment}" for name, comment in comments.items())
            cls.docstring.value += f"\n\nArgs:\n{arguments}"

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            for pattern, replacement in _REWRITES:
                obj.docstring.value = pattern.sub(replacement, obj.docstring.value)


def _comment_above(field: griffe.Attribute) -> str:
    """The comment lines right above a field, as one paragraph."""
    block: list[str] = []
    for line in reversed(field.lines_collection[field.filepath][: (field.lineno or 1) - 1]):
        if not line.strip().startswith("#"):
            break
        block.insert(0, line.strip().removeprefix("#").strip())
    return " ".join(block)
