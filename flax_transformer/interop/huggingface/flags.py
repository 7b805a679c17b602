"""Fields of configs as they are written on the command line, for messages that say what to type."""

from typing import Any


def spelled(name: str, value: Any, group: str = "") -> str:
    """The flag of a field.

    Args:
        group: of the flag, such as ``model.``.

    Example:
        >>> spelled("norm_first", False, "model.")
        '--model.no-norm-first'
        >>> spelled("prefix", [7, 8])
        '--prefix 7 8'
    """
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{group}{name}" if value else f"--{group}no-{name}"
    values = value if isinstance(value, list) else [value]
    return " ".join((f"--{group}{name}", *map(str, values)))
