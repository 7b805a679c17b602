"""Pairs of twins with equal weights, and the ceilings that their figures are held against."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx

from flax_transformer.config import ModelConfig
from flax_transformer.interop import state_dict as bridge
from flax_transformer.parity import tolerances
from flax_transformer.parity.cases import Sizes
from flax_transformer.parity.checks import Result
from flax_transformer.parity.measure import EPS, Arrays, scaled_ulp

# In scaled ULP (flax_transformer.parity.measure): what two sound implementations of a small model stay below.
OPERATION = tolerances.OPERATION.small
STACK = tolerances.STACK.small
LOSS = tolerances.LOSS.small
BFLOAT16 = tolerances.HALF_PRECISION
GRADIENT = {dtype: ceiling.small for dtype, ceiling in tolerances.GRADIENT.items()}

# Sizes that differ from each other, most of them primes, so that no swapped axis can pass.
ROWS, SOURCE, TARGET = 5, 11, 7
# Of the cases that whole models are checked on.
SIZES = Sizes(rows=4, source=7, target=6)
SMALL = ModelConfig(
    d_model=12,
    num_heads=3,
    d_ff=29,
    num_encoder_layers=2,
    num_decoder_layers=1,
    dropout=0.0,
    max_length=17,
    source_vocab_size=37,
    target_vocab_size=37,
    num_classes=13,
    attention_backend="xla",
)
# Full, of one token, empty, and two in between.
SOURCE_LENGTHS = np.array([11, 1, 0, 4, 8], np.int32)
TARGET_LENGTHS = np.array([7, 3, 0, 1, 5], np.int32)


def small(precision: str = "float32", **changes: Any) -> ModelConfig:
    """The small config with changes; its parameters and products are of the precision's dtype."""
    return dataclasses.replace(SMALL, **{"dtype": precision, "param_dtype": precision, **changes})


def assert_passed(results: Sequence[Result]) -> None:
    assert results
    assert all(result.passed for result in results), [result for result in results if not result.passed]


def twin_modules(
    flax_module: Callable[..., nnx.Module],
    torch_module: Callable[..., torch.nn.Module],
    *arguments: Any,
    parent: str = "root",
    **named: Any,
) -> tuple[Any, Any]:
    """Both modules, made from equal arguments, with equal weights that none of them could have started with.

    The bridge knows a weight by the module it stands in: ``parent`` is the module's own place, "" if it is a model.
    """
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        torch_twin = torch_module(*arguments, **named)
        for parameter in torch_twin.parameters():
            parameter += torch.tensor(0.1 * rng.standard_normal(parameter.shape))
    abstract = nnx.eval_shape(lambda: flax_module(*arguments, **named, rngs=nnx.Rngs(0)))
    return with_weights(abstract, torch_weights(torch_twin), parent), torch_twin.eval()


def with_weights(like: nnx.Module, weights: Arrays, parent: str = "root") -> Any:
    """A module of the same structure with these weights, given in PyTorch's names and layouts."""
    converted = bridge.from_torch({_dotted(parent, name): weight for name, weight in weights.items()})
    graph, params, rest = nnx.split(like, nnx.Param, ...)
    params = bridge.to_params(params, {name.removeprefix(f"{parent}."): w for name, w in converted.items()})
    return nnx.merge(graph, params, rest)


def _dotted(parent: str, *path: Any) -> str:
    return ".".join(map(str, path if parent == "" else (parent, *path)))


def torch_weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: to_numpy(tensor) for name, tensor in module.state_dict().items()}


def torch_gradients(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: to_numpy(p.grad) for name, p in module.named_parameters() if p.grad is not None}


def flax_gradients(gradients: nnx.State, parent: str = "root") -> dict[str, np.ndarray]:
    """In PyTorch's names and layouts."""
    flat = {_dotted(parent, *path): np.asarray(gradient[...]) for path, gradient in nnx.to_flat_state(gradients)}
    return {name.removeprefix(f"{parent}."): gradient for name, gradient in bridge.to_torch(flat).items()}


def check_gradients(given: Arrays, expected: Arrays, dtype: str, floors: Mapping[str, float] | None = None) -> None:
    """Each parameter's gradient, in scaled ULP.

    ``floors`` say by how many scaled ULP PyTorch's own float32 gradients lie from its float64 ones: where a sum
    cancels, so that all rounding is magnified, the ceiling is lifted as the check suite lifts it.

    That of a key bias is a sum that cancels, without rope to exactly zero, since attention does not depend on it then:
    its rounding is that of the terms, and so on the scale of the key's weight.
    """
    assert given.keys() == expected.keys()
    for name, gradient in given.items():
        scale = np.abs(expected[name.replace("key.bias", "key.weight")]).max()
        allowed = tolerances.lifted(GRADIENT[dtype], (floors or {}).get(name, 0.0), dtype)
        assert np.abs(gradient - expected[name]).max() <= allowed * EPS[dtype] * scale, name


def to_torch(array: np.ndarray, requires_grad: bool = False) -> torch.Tensor:
    return torch.tensor(array, requires_grad=requires_grad)


def to_numpy(array: jax.Array | torch.Tensor) -> np.ndarray:
    return array.detach().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def ulps(a: jax.Array | torch.Tensor | np.ndarray, b: jax.Array | torch.Tensor | np.ndarray) -> float:
    """Scaled ULP between two arrays of one dtype; ``b`` gives the scale."""
    a, b = (x if isinstance(x, np.ndarray) else to_numpy(x) for x in (a, b))
    assert a.dtype == b.dtype
    return scaled_ulp(a, b, str(b.dtype))


def figures(given: Sequence[np.ndarray], expected: Sequence[np.ndarray], dtype: str) -> list[float]:
    """Scaled ULP between each pair of arrays."""
    return [scaled_ulp(a, b, dtype) for a, b in zip(given, expected, strict=True)]


def same_bits(a: jax.Array | torch.Tensor | np.ndarray, b: jax.Array | torch.Tensor | np.ndarray) -> bool:
    """Equal dtype, shape and bits, so that 0.0 and -0.0 differ."""
    a, b = (x if isinstance(x, np.ndarray) else to_numpy(x) for x in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
