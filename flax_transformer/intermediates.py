"""Named intermediates: record or replace a value inside a model without changing the model. Loads neither framework.

A module calls ``x = record(self, "weights", x)``. With no recorder active, as in training, that returns ``x`` itself,
decided while tracing, so a compiled step contains nothing of it. Under a recorder the value is recorded as
``<module path>.weights``, with the same dotted path in both twins, or replaced by the recorder's value of that name.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


class Recorder:
    """What the intermediates of one forward pass saw.

    Args:
        names: ``id`` of each module -> its dotted path; ``""`` for the root.
        replacements: full intermediate name -> the value to hand on in place of the model's own.
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


# Those of all threads, and that of this one. torch.compile would end its graph at each look at a context variable.
_recorders: list[Recorder] = []
_active: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("active_recorder", default=None)


def is_recording() -> bool:
    """Whether a recorder is active: then a model runs layer by layer, since a recorder cannot look into a loop."""
    return bool(_recorders) and _active.get() is not None


def record(module: object, name: str, value: Value) -> Value:
    """Offer ``value`` to the active recorder, if there is one, and hand on what it gives back."""
    recorder = _active.get() if _recorders else None
    return value if recorder is None else recorder.visit(module, name, value)


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Make ``recorder`` the active one within the block."""
    token = _active.set(recorder)
    _recorders.append(recorder)
    try:
        yield recorder
    finally:
        _recorders.remove(recorder)
        _active.reset(token)
