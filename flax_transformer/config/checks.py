"""Checks of a field's value: what was expected and what came, in one line."""

import math
import os
import typing
from typing import Any, Literal

from flax_transformer.errors import UserError

_LARGEST = 2**31 - 1  # of int32, in which shapes and indices are counted on the devices


def check(owner: object, name: str, expected: str, holds: bool) -> None:
    if not holds:
        raise UserError(f"{type(owner).__name__}.{name}: expected {expected}, got {getattr(owner, name)!r}")


def make_tuples(owner: Any, *names: str) -> None:
    """A name or path alone is a tuple of one; lists and None, of config files, become tuples."""
    for name in names:
        value = getattr(owner, name)
        values = (value,) if isinstance(value, str | os.PathLike) else tuple(value or ())
        object.__setattr__(owner, name, tuple(map(_as_text, values)))


def make_texts(owner: Any, *names: str) -> None:
    """A path becomes the text that a config file holds."""
    for name in names:
        object.__setattr__(owner, name, _as_text(getattr(owner, name)))


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def check_choices(owner: Any) -> None:
    """Every ``Literal`` field holds one of its choices: the command line checks this itself, a config file does not."""
    for name, annotation in typing.get_type_hints(type(owner)).items():
        parts = (annotation, *typing.get_args(annotation))  # the latter of Literal[...] | None
        choices = [choice for part in parts if typing.get_origin(part) is Literal for choice in typing.get_args(part)]
        if choices and (getattr(owner, name) is not None or type(None) not in parts):
            check(owner, name, "one of " + ", ".join(map(str, choices)), getattr(owner, name) in choices)


def check_whole(owner: object, *names: str, at_least: int = 1, at_most: int = _LARGEST) -> None:
    for name in names:
        value = getattr(owner, name)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        check(owner, name, f"a whole number of at least {at_least}", is_number and value >= at_least)
        check(owner, name, f"a whole number of at most {at_most:,}", value <= at_most)


def check_rate(owner: object, *names: str) -> None:
    for name in names:
        check(owner, name, "a number in [0, 1)", 0 <= getattr(owner, name) < 1)


def check_finite(owner: object, *names: str, at_least: float = 0.0) -> None:
    for name in names:
        value = getattr(owner, name)
        check(owner, name, f"a finite number of at least {at_least:g}", math.isfinite(value) and value >= at_least)
