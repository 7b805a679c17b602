"""Named taps: look at, or replace, an intermediate of a model without changing the model. Loads neither framework.

A module calls ``x = tap(self, "weights", x)``. With no tape active, as in all training, that is ``x`` itself, decided
while tracing, so a compiled step holds nothing of it. Under a tape the value is recorded as ``<module path>.weights``,
with the same dotted path in both twins, or replaced by the value that the tape holds under that name.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


class Tape:
    """What the taps of one forward pass saw.

    Args:
        names: ``id`` of each module -> its dotted path; ``""`` for the root.
        replacements: full tap name -> the value to hand on in place of the model's own.
    """

    def __init__(self, names: Mapping[int, str], replacements: Mapping[str, Any] | None = None) -> None:
        self.names = names
        self.replacements = replacements or {}
        self.values: dict[str, Any] = {}

    def visit(self, module: object, name: str, value: Value) -> Value:
        path = self.names[id(module)]
        full_name = f"{path}.{name}" if path else name
        self.values[full_name] = value
        return self.replacements.get(full_name, value)


_active: contextvars.ContextVar[Tape | None] = contextvars.ContextVar("active_tape", default=None)


def is_recording() -> bool:
    """Whether a tape is active: then a model runs layer by layer, since a tape cannot look into a loop."""
    return _active.get() is not None


def tap(module: object, name: str, value: Value) -> Value:
    """Offer ``value`` to the active tape, if there is one, and hand on what it gives back."""
    tape = _active.get()
    return value if tape is None else tape.visit(module, name, value)


@contextlib.contextmanager
def recording(tape: Tape) -> Iterator[Tape]:
    """Make ``tape`` the active one within the block."""
    token = _active.set(tape)
    try:
        yield tape
    finally:
        _active.reset(token)
