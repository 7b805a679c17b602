"""Names of weights: which key of a checkpoint is which weight of ours, in both directions.

A name is a template: ``{n}`` stands for the number of a layer and ``{p}`` for ``weight`` or ``bias``, so that one rule
names the weights of all layers. A ``/`` before the name of a checkpoint's key says that it belongs to the head, outside
of the prefix (such as ``bert.``) that the weights of the body have.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

_SLOTS = {"{n}": r"(\d+)", "{p}": r"(weight|bias)"}
# As TensorFlow calls the weight and the bias of a norm; checkpoints converted from it still do.
_OLD_PARTS = {".gamma": ".weight", ".beta": ".bias"}


@dataclass(frozen=True)
class Rule:
    """One kind of weight.

    Attributes:
        theirs: template of its key in the checkpoint.
        ours: template of its name in PyTorch's form of our weights.
        copies: templates of keys that hold the same weight again where a checkpoint has them.
        is_row: the checkpoint has a vector as a matrix of one row.
    """

    theirs: str
    ours: str
    copies: tuple[str, ...] = ()
    is_row: bool = False

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(map(_pattern, (self.theirs, *self.copies)))

    def read(self, key: str) -> str | None:
        """Our name of a checkpoint's key, or None where the key is of another kind."""
        found = next(filter(None, (pattern.fullmatch(key) for pattern in self.patterns)), None)
        return found and _fill(self.ours, found.groups())

    def write(self, name: str) -> str | None:
        """The checkpoint's key of our name, or None where the name is of another kind."""
        found = _pattern(self.ours).fullmatch(name)
        return found and _fill(self.theirs, found.groups())


@dataclass(frozen=True)
class Keys:
    """All names of one family.

    Attributes:
        prefix: of the body's keys in a model with a head, such as ``bert.``.
        rules: each key and each name fits exactly one.
        ignored: patterns of keys that say nothing about the model, or belong to another head.
    """

    prefix: str
    rules: Sequence[Rule]
    ignored: Sequence[str] = ()

    def read(self, key: str) -> list[tuple[Rule, str]]:
        """The rules that a checkpoint's key fits, each with our name: exactly one of a key that is known."""
        return [(rule, name) for rule in self.rules for form in self.forms(key) if (name := rule.read(form))]

    def is_ignored(self, key: str) -> bool:
        return any(re.fullmatch(pattern, form) for pattern in self.ignored for form in self.forms(key))

    def write(self, name: str, *, with_prefix: bool) -> list[tuple[Rule, str]]:
        """The rules that our name fits, each with the checkpoint's key; ``with_prefix`` in a model with a head."""
        found = [(rule, key) for rule in self.rules if (key := rule.write(name))]
        return [(rule, self.spelled(key, with_prefix=with_prefix)) for rule, key in found]

    def forms(self, key: str) -> list[str]:
        """What a key may be called in a rule: without the prefix; or as it is, of a bare body or of a head."""
        for old, new in _OLD_PARTS.items():
            key = f"{key.removesuffix(old)}{new}" if key.endswith(old) else key
        if self.prefix and key.startswith(self.prefix):
            return [key.removeprefix(self.prefix)]
        return [key, f"/{key}"]

    def spelled(self, key: str, *, with_prefix: bool) -> str:
        """A rule's key as it stands in a checkpoint."""
        if key.startswith("/"):
            return key[1:]
        return f"{self.prefix}{key}" if with_prefix else key


def linear_rules(pairs: Iterable[tuple[str, str]]) -> tuple[Rule, ...]:
    """Rules of modules that have a weight and a bias, from pairs of their name there and here."""
    return tuple(Rule(f"{theirs}.{{p}}", f"{ours}.{{p}}") for theirs, ours in pairs)


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template)
    for slot, expression in _SLOTS.items():
        escaped = escaped.replace(re.escape(slot), expression)
    return re.compile(escaped)


def _fill(template: str, values: Sequence[str]) -> str:
    """The template with its slots filled in order; both templates of a rule have the same slots in the same order."""
    left = iter(values)
    return re.sub(r"\{[np]\}", lambda _: next(left), template)
