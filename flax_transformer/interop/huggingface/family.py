"""What a model type of ``transformers`` is: a table of its settings and its weights, read in both directions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.keys import Keys, Rule

Settings = dict[str, Any]
Weights = dict[str, np.ndarray]

# The problem type in ``config.json`` of a classifier that decides each label by itself.
MULTILABEL = "multi_label_classification"
# What decides how a model is made, trained or computed, and not which function it is.
_NOT_OF_THE_FUNCTION = {
    *("initialization", "attention_backend", "remat", "scan_layers", "dtype", "param_dtype"),
    *("dropout", "attention_dropout", "feed_forward_dropout", "head_dropout"),
}
_NOT_OF_ENCODERS = {"num_decoder_layers", "target_vocab_size", "tie_embeddings", "bos_id", "eos_id"}
# Without a head no one reads these, or a key for them is missing.
_NOT_OF_BARE_ENCODERS = {"pooling", "head_hidden"}


@dataclass(frozen=True)
class Field:
    """A field of ModelConfig, and what ``config.json`` says of it.

    Attributes:
        ours: name of the field.
        read: its value, from the settings of ``config.json`` with all defaults filled in.
        write: the settings that say the same.
    """

    ours: str
    read: Callable[[Settings], Any]
    write: Callable[[ModelConfig], Settings] = lambda config: {}


def same(theirs: str, ours: str) -> Field:
    """A field that ``config.json`` holds as it is."""
    return Field(ours, lambda settings: settings[theirs], lambda config: {theirs: getattr(config, ours)})


def named(theirs: str, ours: str, names: Mapping[str, str]) -> Field:
    """A field whose values have other names; of several names of a value the first is written."""

    def read(settings: Settings) -> str:
        if settings[theirs] not in names:
            raise UserError(f"{theirs}: expected one of {', '.join(names)}, got {settings[theirs]!r}")
        return names[settings[theirs]]

    def write(config: ModelConfig) -> Settings:
        return {theirs: next((name for name, value in names.items() if value == getattr(config, ours)), None)}

    return Field(ours, read, write)


def fixed(**values: Any) -> tuple[Field, ...]:
    """Fields that have one value in all models of a family."""
    return tuple(Field(name, lambda _, value=value: value) for name, value in values.items())


def as_given(settings: Settings, weights: Weights) -> Settings:
    return settings


@dataclass(frozen=True)
class Computed:
    """A key that holds no weight: what it holds follows from the config.

    Attributes:
        theirs: the key, as in a :class:`~flax_transformer.interop.huggingface.keys.Rule`.
        value: what it holds.
        expected: what that is, for people.
    """

    theirs: str
    value: Callable[[ModelConfig], Float[np.ndarray, "rows width"]]
    expected: str


@dataclass(frozen=True)
class Family:
    """A model type.

    Attributes:
        model_type: its name in ``config.json``.
        model_class: of the model with its head, as imported and exported.
        bare_class: of the model without a head; empty where a model always has one.
        defaults: settings that older files leave out because they are the defaults of ``transformers``.
        fields: of ModelConfig; a field that is not listed has its default.
        keys: names of weights that every model of the family has.
        other_classes: that hold the same model.
        conditional: further rules, which follow from the config.
        computed: keys that hold no weight.
        demanded: settings that have one value in every model that can be imported, if they are there at all.
        noted: settings that transformers itself does not read, but others do.
        equal: pairs of settings that are one field of ours, and so must be equal.
        clarify: settings which the weights decide, put right.
        reads_types: the model is also given the type of each token.
    """

    model_type: str
    model_class: str
    bare_class: str
    defaults: Settings
    fields: Sequence[Field]
    keys: Keys
    other_classes: tuple[str, ...] = ()
    conditional: Callable[[ModelConfig], Sequence[Rule]] = lambda config: ()
    computed: Sequence[Computed] = ()
    demanded: Settings = field(default_factory=dict)
    noted: Settings = field(default_factory=dict)
    equal: Sequence[tuple[str, str]] = ()
    clarify: Callable[[Settings, Weights], Settings] = as_given
    reads_types: bool = False

    @property
    def is_encoder(self) -> bool:
        return bool(self.bare_class)

    def has_head(self, config: ModelConfig) -> bool:
        return not self.is_encoder or config.num_classes > 0

    def keys_of(self, config: ModelConfig) -> Keys:
        """All names of the weights of one model."""
        rules = (*self.keys.rules, *self.conditional(config))
        if not self.has_head(config):
            rules = tuple(rule for rule in rules if not rule.theirs.startswith("/"))
        return Keys(self.keys.prefix, rules, self.keys.ignored)

    def read(self, settings: Settings, **decided: Any) -> ModelConfig:
        """The config of ours that a ``config.json`` describes.

        Args:
            settings: of ``config.json``.
            decided: fields that stand somewhere else, such as the number of classes.

        Raises:
            UserError: it asks for what these models do not have.
        """
        settings = {**self.defaults, **settings}
        for name, value in self.demanded.items():
            if settings.get(name, value) != value:
                raise UserError(f"{name}: expected {value!r} of a {self.model_type}, got {settings[name]!r}")
        for first, second in self.equal:
            if settings[first] != settings[second]:
                raise UserError(
                    f"expected {first} and {second} to be equal, since both are one field here, "
                    f"got {settings[first]!r} and {settings[second]!r}"
                )
        return ModelConfig(**{entry.ours: entry.read(settings) for entry in self.fields} | decided)

    def write(self, config: ModelConfig) -> Settings:
        """The settings of ``config.json`` that describe a model of ours, if the family has it at all."""
        settings = dict(self.defaults)
        for entry in self.fields:
            settings |= entry.write(config)
        for first, second in self.equal:
            settings[second] = settings[first]
        return settings | self.demanded | self.noted | {"model_type": self.model_type}

    def differences(self, config: ModelConfig) -> dict[str, Any]:
        """Fields of a config of the family's architecture that its models have otherwise, each with the value there.

        These are the fields that do not come back when the config is written and read again.
        """
        settings = {**self.defaults, **self.write(config)}
        ignored = _NOT_OF_THE_FUNCTION | (_NOT_OF_ENCODERS if self.is_encoder else set())
        ignored |= _NOT_OF_BARE_ENCODERS if config.num_classes == 0 else set()
        back = {entry.name: entry.default for entry in fields(ModelConfig)}
        back |= {entry.ours: entry.read(settings) for entry in self.fields if entry.ours not in ignored}
        back |= {"num_classes": config.num_classes}
        return {name: value for name, value in back.items() if name not in ignored and getattr(config, name) != value}
