"""Command-line flags from the config dataclasses: one per field, with the comment above the field as its help text."""

import dataclasses
import inspect
import re
import typing
from dataclasses import dataclass
from typing import Any

from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

# What a run takes from its task, tokenizer and data is no one's choice.
_DECIDED_BY_DATA = {
    "architecture",
    "source_vocab_size",
    "target_vocab_size",
    "pad_id",
    "bos_id",
    "eos_id",
    "num_classes",
    "num_tokens",
}
CONFIG_FLAGS = ConstructorRegistry()


@dataclass(frozen=True)
class Flags:
    """A config and the values that flags gave its fields, not yet checked together."""

    default: Any
    values: dict[str, Any]

    def build(self) -> Any:
        """The config. It checks itself here, where tyro does not turn its error into a box of its own.

        Raises:
            UserError: a value is wrong.
        """
        values = {name: value.build() if isinstance(value, Flags) else value for name, value in self.values.items()}
        return dataclasses.replace(self.default, **values)


@CONFIG_FLAGS.struct_rule
def _config_flags(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Flags for a dataclass of the config package; tyro keeps its own way with all else."""
    module = getattr(info.type, "__module__", None) or ""
    if not module.startswith("flax_transformer.config.") or not dataclasses.is_dataclass(info.type):
        return None
    hints, helps = typing.get_type_hints(info.type), field_comments(info.type)
    fields = []
    for field in dataclasses.fields(info.type):
        if field.name not in _DECIDED_BY_DATA:
            default = getattr(info.default, field.name)
            # Of a union of configs, such as the data of all tasks, the default's kind is meant.
            kind = type(default) if dataclasses.is_dataclass(default) else hints[field.name]
            fields.append(StructFieldSpec(field.name, kind, default, helps.get(field.name)))
    return StructConstructorSpec(lambda **values: Flags(info.default, values), tuple(fields))


def field_comments(kind: type) -> dict[str, str]:
    """Field name -> the comment lines right above it in the source of a dataclass, or else in that of a base."""
    bases = [base for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)]
    return {name: comment for base in bases for name, comment in _own_comments(base).items()}


def _own_comments(kind: type) -> dict[str, str]:
    comments: dict[str, str] = {}
    block: list[str] = []
    for line in map(str.strip, inspect.getsource(kind).splitlines()):
        if line.startswith("#"):
            block.append(line.removeprefix("#").strip())
            continue
        field = re.match(r"(\w+): ", line)
        if field and block:
            comments[field[1]] = " ".join(block)
        block = []
    return comments
