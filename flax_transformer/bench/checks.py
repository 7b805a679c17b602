"""What a benchmark is asked for, looked at before it takes its minutes."""

from collections.abc import Sequence
from pathlib import Path

from flax_transformer.errors import UserError
from flax_transformer.outputs import check_report


def check_counts(**given: int | Sequence[int]) -> None:
    """Raises :class:`UserError` where a flag has a number below 1, or none at all."""
    for name, value in given.items():
        numbers = (value,) if isinstance(value, int) else value
        if min(numbers, default=0) < 1:
            flag, many = f"--{name.replace('_', '-')}", "" if isinstance(value, int) else "s"
            what = f"{'a ' if not many else ''}whole number{many} of at least 1"
            raise UserError(f"{flag}: expected {what}, got {' '.join(map(str, numbers)) or 'none'}")


def check_files(json: Path | None, picture: Path | None = None) -> None:
    """Raises :class:`UserError` where something else than an older record or picture has the name, or none can be made.

    Args:
        json: of the record; a folder, in which it is to be named, is as good.
    """
    if json is not None and not json.is_dir():
        check_report(json)
    if picture is not None:
        check_report(picture)
