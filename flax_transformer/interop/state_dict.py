"""The bridge of weights between NNX and PyTorch, each with its own names and layouts; numpy and safetensors only.

The twins have the same module tree, so a key differs in its last part alone, and a kernel is its weight transposed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from flax_transformer.errors import UserError
from flax_transformer.legacy import current_weight_name

if TYPE_CHECKING:
    import torch

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rule:
    """One kind of weight: the modules that have it, its name on each side, and whether its two axes change places."""

    modules: str
    flax_name: str
    torch_name: str
    transposed: bool = False


_LINEAR = r"(?:query|key|value|output|up_proj|gate_proj|down_proj|input_proj|recurrent_proj|hidden|head|projection)"
# Every key of either side matches exactly one rule.
RULES = (
    Rule(rf"(?:.+\.)?{_LINEAR}", "kernel", "weight", transposed=True),
    Rule(rf"(?:.+\.)?{_LINEAR}", "bias", "bias"),
    Rule(r".+\.norm", "scale", "weight"),
    Rule(r".+\.norm", "bias", "bias"),
    Rule(r"(?:source|target)_table", "embedding", "weight"),
    Rule(r"(?:source|target)_embedding\.types", "embedding", "weight"),
    Rule(r"(?:source|target)_embedding\.positions", "table", "table"),
    Rule(r"(?:encoder|decoder)\.relative_bias", "embedding", "weight"),
    Rule(r".+\.cross_attention", "smear", "smear"),
    Rule("", "logits_bias", "logits_bias"),
    Rule("", "output_bias", "output_bias"),
)


def _match(key: str, side: str) -> tuple[str, Rule]:
    module, _, name = key.rpartition(".")
    fitting = [rule for rule in RULES if getattr(rule, f"{side}_name") == name and re.fullmatch(rule.modules, module)]
    if len(fitting) != 1:
        raise UserError(f"weights: expected a key that exactly one rule knows, got {key!r}, which {len(fitting)} know")
    return module, fitting[0]


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def to_torch(weights: Mapping[str, np.ndarray]) -> Weights:
    """NNX names and layouts -> PyTorch's."""
    converted = {}
    for key, array in weights.items():
        module, rule = _match(key, "flax")
        converted[_join(module, rule.torch_name)] = np.ascontiguousarray(array.T) if rule.transposed else array
    return converted


def to_torch_state_dict(model: nnx.Module) -> "dict[str, torch.Tensor]":
    """The parameters of a model as the state dict of its PyTorch twin, in PyTorch's names and layouts.

    Args:
        model: with its layers one by one, as every model has them outside of a training step.

    Returns:
        Tensors on the CPU, ready for ``torch_model.load_state_dict``.

    Raises:
        UserError: PyTorch is not installed.

    Example:
        >>> from flax_transformer import ModelConfig, create_model
        >>> model = create_model(ModelConfig(d_model=8, num_encoder_layers=1, num_decoder_layers=1))
        >>> state = to_torch_state_dict(model)
        >>> tuple(state["source_table.weight"].shape)
        (8000, 8)
    """
    try:
        import torch  # an extra; only who asks for tensors needs it
    except ImportError as error:
        raise UserError("PyTorch tensors need the extra: pip install 'flax-transformer[torch]'") from error
    return {name: torch.tensor(weight) for name, weight in to_torch(get_weights(model)).items()}


def from_torch(weights: Mapping[str, np.ndarray]) -> Weights:
    """PyTorch's names and layouts -> NNX; the inverse of :func:`to_torch`."""
    converted = {}
    for key, array in weights.items():
        module, rule = _match(key, "torch")
        converted[_join(module, rule.flax_name)] = np.ascontiguousarray(array.T) if rule.transposed else array
    return converted


def get_weights(model: nnx.Module) -> Weights:
    """The model's parameters on the host, by dotted NNX path."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(jax.device_get(param[...])) for path, param in flat}


def to_params(like: nnx.State, weights: Mapping[str, np.ndarray]) -> nnx.State:
    """These weights as parameters with the structure and the dtypes of ``like``, which may be abstract.

    Raises:
        UserError: a key is missing, unknown, or its array has another shape than the model's.
    """
    params = {".".join(map(str, path)): (path, param) for path, param in nnx.to_flat_state(like)}
    check_weights({key: param.shape for key, (_, param) in params.items()}, weights)
    return nnx.from_flat_state(
        [(path, param.replace(jnp.asarray(weights[key], param.dtype))) for key, (path, param) in params.items()]
    )


def check_weights(expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, np.ndarray]) -> None:
    """Every expected key is there with its shape, and no other.

    Raises:
        UserError: names the first key that is not as expected.
    """
    for key in sorted(expected.keys() - weights.keys()):
        raise UserError(f"weights: expected {key!r} of shape {expected[key]}, but it is missing")
    for key in sorted(weights.keys() - expected.keys()):
        raise UserError(f"weights: {key!r} is not part of this model; is config.json the one of these weights?")
    for key, shape in expected.items():
        if weights[key].shape != shape:
            raise UserError(f"weights: expected {key!r} of shape {shape}, got {weights[key].shape}")


def read_weights(path: Path) -> Weights:
    """The tensors of a safetensors file.

    Raises:
        UserError: it is missing, or not a whole safetensors file.
    """
    try:
        return {current_weight_name(name): weight for name, weight in safetensors.numpy.load_file(path).items()}
    except OSError as error:
        raise UserError(f"{path}: expected a safetensors file, but it cannot be read ({error.strerror})") from error
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: expected a whole safetensors file, got a damaged one ({error}); export again"
        ) from error
