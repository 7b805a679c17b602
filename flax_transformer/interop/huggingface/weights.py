"""Weights of a checkpoint and ours, by the table of a family; nothing is left over on either side without a word."""

from collections.abc import Mapping

import numpy as np

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.family import Computed, Family, Weights
from flax_transformer.interop.huggingface.keys import Keys
from flax_transformer.interop.huggingface.shapes import weight_shapes

# Sinusoids that were stored in bfloat16 are off by up to this.
_STORED_IN_HALF = 5e-3


def to_ours(family: Family, config: ModelConfig, weights: Mapping[str, np.ndarray]) -> tuple[Weights, list[str]]:
    """The weights of a checkpoint under our names, and the keys that were ignored.

    Args:
        config: of the model, as :meth:`Family.read` makes it.
        weights: by the keys of the checkpoint, in PyTorch's layouts.

    Raises:
        UserError: a weight is missing, has another shape, is there twice with two values, or is none of the family's.
    """
    keys = family.keys_of(config)
    found: Weights = {}
    key_of: dict[str, str] = {}
    ignored = []
    for key in sorted(weights):
        matches = keys.read(key)
        computed = next((one for one in family.computed if one.theirs in keys.forms(key)), None)
        if computed is not None:
            _check_computed(key, weights[key], computed, config)
        elif len(matches) == 1:
            rule, name = matches[0]
            value = _from_row(key, weights[key]) if rule.is_row else weights[key]
            if name in found and not np.array_equal(found[name], value):
                raise UserError(f"{key}: expected the values of {key_of[name]}, with which it is one table, got others")
            found[name], key_of[name] = value, key
        elif keys.is_ignored(key):
            ignored.append(key)
        else:
            raise UserError(f"{key}: this tensor is not part of a {family.model_type} as it is known here")
    if config.logits_bias:
        found.setdefault("logits_bias", np.zeros(config.target_vocab_size, np.float32))
    _check_shapes(found, key_of, config, keys, family.has_head(config))
    return found, ignored


def to_theirs(family: Family, config: ModelConfig, weights: Mapping[str, np.ndarray]) -> Weights:
    """Our weights under the keys of a checkpoint; the inverse of :func:`to_ours`.

    Raises:
        UserError: the family has no place for a weight.
    """
    keys = family.keys_of(config)
    with_prefix = family.has_head(config)
    converted: Weights = {}
    for name, value in weights.items():
        matches = keys.write(name, with_prefix=with_prefix)
        if len(matches) != 1:
            raise UserError(f"{name}: expected a weight that a {family.model_type} has, but it has none like it")
        rule, key = matches[0]
        converted[key] = np.ascontiguousarray(value[None] if rule.is_row else value)
    for computed in family.computed:
        converted[keys.spelled(computed.theirs, with_prefix=with_prefix)] = computed.value(config)
    return converted


def _from_row(key: str, value: np.ndarray) -> np.ndarray:
    if value.ndim != 2 or len(value) != 1:
        raise UserError(f"{key}: expected one row, got shape {value.shape}")
    return value[0]


def _check_computed(key: str, value: np.ndarray, computed: Computed, config: ModelConfig) -> None:
    expected = computed.value(config)
    if value.shape != expected.shape or not np.allclose(value, expected, rtol=0, atol=_STORED_IN_HALF):
        raise UserError(f"{key}: expected {computed.expected}, got another table of shape {value.shape}")


def _check_shapes(
    found: Weights, key_of: Mapping[str, str], config: ModelConfig, keys: Keys, with_prefix: bool
) -> None:
    shapes = weight_shapes(config)
    for name in sorted(shapes.keys() - found.keys()):
        theirs = [key for _, key in keys.write(name, with_prefix=with_prefix)]
        raise UserError(f"expected the tensor {(theirs or [name])[0]} of shape {shapes[name]}, but it is missing")
    for name in sorted(found.keys() - shapes.keys()):
        raise UserError(f"{key_of[name]}: this tensor is not part of the model that config.json describes")
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise UserError(f"{key_of[name]}: expected shape {shape} by config.json, got {found[name].shape}")
