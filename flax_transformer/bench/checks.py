"""What a benchmark is asked for, looked at before it takes its minutes."""

from collections.abc import Collection, Sequence
from pathlib import Path

from flax_transformer.errors import UserError
from flax_transformer.outputs import check_report


def check_counts(**given: int | Sequence[int]) -> None:
    """Raises :class:`UserError` where a flag has a number below 1, or none at all."""
    for name, value in given.items():
        is_one = isinstance(value, int)
        numbers = (value,) if is_one else value
        if min(numbers, default=0) < 1:
            what = "a whole number" if is_one else "whole numbers"
            given_ones = " ".join(map(str, numbers)) or "none"
            raise UserError(f"--{name.replace('_', '-')}: expected {what} of at least 1, got {given_ones}")


def check_names(flag: str, given: Sequence[str], known: Collection[str]) -> None:
    """Raises :class:`UserError` where a flag has a name that is not known, or none at all."""
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise UserError(f"{flag}: expected some of {', '.join(known)}, got {', '.join(unknown) or 'none'}")


def check_files(json: Path | None, picture: Path | None = None) -> None:
    """Raises :class:`UserError` where something else than an older record or picture has the name, or none can be made.

    Args:
        json: of the record; a folder, in which it is to be named, is as good.
    """
    if json is not None and not json.is_dir():
        check_report(json)
    if picture is not None:
        check_report(picture)
