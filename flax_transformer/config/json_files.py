"""Configs as JSON, and back."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from flax_transformer.config.data import DATA_CONFIGS, DataConfig
from flax_transformer.config.training import TrainConfig
from flax_transformer.errors import UserError
from flax_transformer.legacy import current_fields

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain JSON values; a :class:`TrainConfig` also names its task."""
    values = dataclasses.asdict(config)
    if isinstance(config, TrainConfig):
        values["data"] = {"task": config.data.task, **values["data"]}
    return values


def from_dict(kind: type[Config], values: dict[str, Any], where: str = "config") -> Config:
    """The inverse of :func:`to_dict`; unknown keys are an error, missing ones take their default."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(typing.cast(Any, kind))}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{where}: unknown key {name!r}; expected some of {', '.join(sorted(known))}")
        arguments[name] = _read_value(hints[name], value, f"{where}.{name}")
    return kind(**arguments)


def _read_value(annotation: Any, value: Any, where: str) -> Any:
    if annotation == DataConfig:
        if not isinstance(value, dict) or value.get("task") not in DATA_CONFIGS:
            raise UserError(f"{where}.task: expected one of {', '.join(DATA_CONFIGS)}, got {value!r}")
        rest = {name: entry for name, entry in value.items() if name != "task"}
        return from_dict(DATA_CONFIGS[value["task"]], rest, where)
    if dataclasses.is_dataclass(annotation):
        return from_dict(typing.cast(type, annotation), value, where)
    if any(typing.get_origin(part) is Literal for part in (annotation, *typing.get_args(annotation))):
        return value  # which its config checks
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(annotation) is tuple:
        if annotation == tuple[str, ...] and isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, got {value!r}")
        return tuple(_read_value(typing.get_args(annotation)[0], entry, where) for entry in value)
    accepted = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
        names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in accepted)
        raise UserError(f"{where}: expected {names}, got {value!r}")
    return value


def save_config(config: Any, path: Path) -> None:
    path.write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")


def load_config(kind: type[Config], path: Path) -> Config:
    """
    Raises:
        UserError: the file cannot be read, or holds no such config.
    """
    return from_dict(kind, current_fields(load_json(path, "a config in JSON")), str(path))


def load_json(path: Path, expected: str) -> Any:
    """The value of a JSON file that a user may have edited: in UTF-8, 16 or 32, also with a byte order mark.

    Raises:
        UserError: it cannot be read, is no JSON, or has a key twice, of which one would silently win; ``expected`` is
            what the message names.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_to_object)
    except OSError as error:
        raise UserError(f"{path}: expected {expected}, but it cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected {expected}, got something else ({error})") from error


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return values
