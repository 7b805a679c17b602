"""Examine a PyTorch model in float64 and evaluation mode, and give it back as it was, bit for bit."""

import contextlib
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn


def find_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module that belongs to ``model``: also those in plain lists, dicts and attributes of plain objects."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    queue: list[tuple[str, object]] = [("", model)]
    while queue:
        path, value = queue.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found[path] = value
            inner = {**dict(value.named_children()), **_attributes(value)}
        elif isinstance(value, dict):
            inner = {str(key): item for key, item in value.items()}
        elif isinstance(value, list | tuple):
            inner = {str(index): item for index, item in enumerate(value)}
        else:
            inner = _closure(value)
        queue += [
            (f"{path}.{name}".lstrip("."), item)
            for name, item in inner.items()
            if isinstance(item, nn.Module | dict | list | tuple) or _closure(item)
        ]
    return found


def _attributes(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def _closure(value: object) -> dict[str, object]:
    """What a lambda or a local function holds on to."""
    cells = getattr(value, "__closure__", None) if callable(value) and not isinstance(value, type) else None
    names = getattr(getattr(value, "__code__", None), "co_freevars", ())
    held = {}
    for name, cell in zip(names, cells or (), strict=False):
        with contextlib.suppress(ValueError):  # a cell that is still empty
            held[name] = cell.cell_contents
    return {name: item for name, item in held.items() if isinstance(item, nn.Module | list | tuple | dict)}


@contextlib.contextmanager
def examined(model: nn.Module, dtype: torch.dtype) -> Iterator[dict[str, nn.Module]]:
    """Within the block ``model`` is in evaluation mode and computes in ``dtype``; afterwards it is what it was.

    Restored are parameters, buffers, gradients, the mode of every module, attributes, the default dtype and the states
    of the random generators. A parameter keeps its identity, so that an optimizer or a tied weight still holds it.
    """
    modules = find_modules(model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_random_states())
        stack.enter_context(_settings(dtype))
        for module in modules.values():
            stack.enter_context(_restored(module, dtype))
        model.eval()
        yield modules


@contextlib.contextmanager
def _random_states() -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextlib.contextmanager
def _settings(dtype: torch.dtype) -> Iterator[None]:
    """The fused encoder layer turns padding into nested tensors: other shapes, and nothing to look into.

    Batches are tiny, and many threads would mostly wait for each other, on a busy machine for half a minute.
    """
    before = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled(), torch.get_num_threads()
    torch.set_default_dtype(dtype)
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[2])
        torch.set_default_dtype(before[0])
        torch.backends.mha.set_fastpath_enabled(before[1])


@contextlib.contextmanager
def _restored(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """One module without its children."""
    attributes = {name: _shallow_copy(value) for name, value in vars(module).items()}
    parameters = [(parameter, parameter.data, parameter.grad) for parameter in _own(module.parameters(recurse=False))]
    buffers = dict(module.named_buffers(recurse=False))
    for parameter, data, _ in parameters:
        parameter.data = data.to(dtype) if data.is_floating_point() and data.dtype != dtype else data.clone()
    for name, buffer in buffers.items():
        converted = buffer.to(dtype) if buffer.is_floating_point() and buffer.dtype != dtype else buffer.clone()
        setattr(module, name, converted)
    for name, value in _plain_tensors(module).items():
        setattr(module, name, value.detach().to(dtype) if value.is_floating_point() else value.clone())
    try:
        yield
    finally:
        vars(module).clear()
        vars(module).update(attributes)
        for name, buffer in buffers.items():
            setattr(module, name, buffer)
        for parameter, data, grad in parameters:
            parameter.data = data
            parameter.grad = grad


def _shallow_copy(value: object) -> object:
    """The dictionaries of hooks, parameters and children, and lists such as a cache, are changed in place."""
    return value.copy() if isinstance(value, dict | list) else value


def _own(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return list(parameters)


def _plain_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors held as attributes, which neither ``double`` nor ``to`` would reach: a mask, a table of positions."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter) and value.is_leaf
    }
