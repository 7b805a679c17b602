"""Change one line of one of the twins for as long as a block lasts, or of a copy of one module."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# The modules that are executed anew, each after those that it imports; last the module that runs the twin.
_MODULES = {
    "flax_transformer": (
        "nn.segments nn.masks nn.positions nn.kernels.flash nn.kernels.backends nn.kernels.cached nn.linear "
        "nn.dropout nn.attention nn.linear_attention nn.lstm nn.layers nn.losses nn.pooling nn.models "
        "training.adam training.matrices training.muon training.scale_by_muon training.optim training.state "
        "training.step interop.state_dict decoding.copying decoding.step decoding.beam decoding.generate "
        "decoding.labels parity.flax_side"
    ),
    "torch_reference": (
        "nn.segments nn.masks nn.positions nn.linear nn.dropout nn.kernels nn.attention nn.linear_attention nn.lstm "
        "nn.layers nn.losses nn.pooling nn.models training.matrices training.muon training.muon_optimizer "
        "training.optim training.step decoding.copying decoding.step decoding.beam decoding.generate decoding.labels "
        "flax_transformer.parity.torch_side"
    ),
}


@contextlib.contextmanager
def mutated(file: str, old: str, new: str) -> Iterator[None]:
    """Within the block, the package of ``file`` behaves as if its source said ``new`` where it says ``old``.

    The modules of the package are executed anew in place, and afterwards given back what they held.

    Raises:
        ValueError: ``old`` does not stand exactly once in the file, so the catalogue no longer fits the code.
    """
    package, _, target = file.removesuffix(".py").replace("/", ".").partition(".")
    modules = {name: _import(package, name) for name in _MODULES[package].split()}
    sources = {name: _source(module) for name, module in modules.items()}
    sources[target] = _replace(file, sources[target], old, new)
    before = {name: dict(vars(module)) for name, module in modules.items()}
    try:
        for name, module in modules.items():
            exec(compile(sources[name], str(module.__file__), "exec"), vars(module))
        yield
    finally:
        for name, module in modules.items():
            vars(module).clear()
            vars(module).update(before[name])


def with_mistake(module: ModuleType, old: str, new: str) -> Any:
    """A copy of the module, made of its source with ``new`` where it says ``old``.

    Raises:
        ValueError: as by :func:`mutated`.
    """
    file, copy = str(module.__file__), ModuleType(module.__name__)
    exec(compile(_replace(file, _source(module), old, new), file, "exec"), vars(copy))
    return copy


def _source(module: Any) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def _replace(file: str, source: str, old: str, new: str) -> str:
    if source.count(old) != 1:
        raise ValueError(f"{file}: expected {old!r} exactly once, found it {source.count(old)} times")
    return source.replace(old, new)


def _import(package: str, name: str) -> Any:
    return importlib.import_module(name if name.startswith("flax_transformer.") else f"{package}.{name}")
