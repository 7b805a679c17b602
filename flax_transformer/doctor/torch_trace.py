"""Record every operation of a PyTorch forward pass as a graph, with the module it ran in."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode  # documented under "Extending PyTorch"; it has no other path

from flax_transformer.doctor.graph import Node, Op
from flax_transformer.doctor.subject import Trace

_OPS: dict[str, Op] = {
    "embedding": "lookup", "index_select": "lookup", "index": "lookup", "gather": "lookup",
    "mm": "product", "bmm": "product", "baddbmm": "product", "addmm": "product",
    "_softmax": "softmax", "_safe_softmax": "softmax",
    "add": "add", "sub": "sub", "rsub": "sub", "mul": "mul", "div": "div", "exp": "exp", "sum": "sum",
    "masked_fill": "mask", "where": "mask", "index_put": "mask", "masked_scatter": "mask",
    "view": "move", "_unsafe_view": "move", "reshape": "move", "permute": "move", "transpose": "move", "t": "move",
    "expand": "move", "unsqueeze": "move", "squeeze": "move", "clone": "move", "slice": "move", "select": "move",
    "_to_copy": "move", "alias": "move", "detach": "move", "copy": "move", "contiguous": "move", "cat": "move",
    "split": "move", "split_with_sizes": "move", "unbind": "move", "chunk": "move", "repeat": "move",
    "native_dropout": "move", "lift_fresh": "move", "unfold": "move", "constant_pad_nd": "move", "stack": "move",
    "tanh": "pointwise", "clamp": "pointwise", "nan_to_num": "pointwise", "neg": "pointwise", "maximum": "pointwise",
    "clamp_min": "pointwise", "clamp_max": "pointwise", "minimum": "pointwise",
}  # fmt: skip
# These take a tensor for its shape alone: their results know nothing of its ids.
_SHAPE_ONLY = ("full_like", "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones",
               "new_full", "new_empty")  # fmt: skip
_KEPT = ("product", "softmax", "add", "sub", "mul", "div", "mask", "move", "lookup", "pointwise", "constant", "exp")
_LARGEST_KEPT = 4_000_000  # numbers; the scores of short inputs are far smaller


class Recorder(TorchDispatchMode):
    """Within ``with Recorder(...)``, operations end up in :attr:`trace`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; to say so anyway would import the compiler, for seconds."""
        return False

    def __init__(self, parameters: Mapping[int, str], places: "Places") -> None:
        super().__init__()
        self.trace = Trace()
        self._parameters = parameters
        self._places = places
        self._nodes: dict[int, Node] = {}
        self._alive: dict[int, torch.Tensor] = {}  # an id is only unique while its tensor lives

    def add_input(self, name: str, tensor: torch.Tensor) -> None:
        node = Node("input", shape=tuple(tensor.shape), ids=frozenset({name}), name=name)
        self._remember(tensor, node)

    def add_outputs(self, tensors: Sequence[torch.Tensor]) -> None:
        self.trace.outputs = [self._node_of(tensor) for tensor in tensors]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # then no one before has taken a matmul to pieces
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.endswith("__")
        inputs = tuple(self._node_of(value) for value in _operands(args, kwargs))
        if in_place and inputs and isinstance(inputs[0].value, torch.Tensor):
            inputs[0].value = inputs[0].value.clone()  # the operation is about to overwrite it
        result = func(*args, **kwargs)
        name = name.rstrip("_") if in_place else name
        if name == "baddbmm" and len(inputs) == 3:
            self._add_fused(args, kwargs, inputs, result)
        else:
            for output in result if isinstance(result, tuple | list) else (result,):
                if isinstance(output, torch.Tensor):
                    self._add(name, inputs, args, output)
        if in_place and isinstance(args[0], torch.Tensor):
            self._write_through(args[0])
        return result

    def _add(self, name: str, sources: tuple[Node, ...], args: tuple[Any, ...], output: torch.Tensor) -> None:
        op = _OPS.get(name, "other")
        inputs: tuple[Node, ...] = () if name in _SHAPE_ONLY else sources
        if name == "addmm":
            inputs = inputs[1:]  # the bias first
        if op == "mask" and name == "where":
            inputs = inputs[1:]
        node = Node(
            op,
            inputs,
            tuple(output.shape),
            place=self._places.current,
            ids=frozenset().union(*(source.ids for source in inputs)),
            axis=_axis(op, args, output),
            contracts=_contracted(inputs) if op == "product" else None,
            name=name,
        )
        if (op in _KEPT or not node.ids) and output.numel() <= _LARGEST_KEPT:
            # An in-place mask would otherwise overwrite the product that it hides.
            node.value = output.detach().clone() if op == "product" else output.detach()
        if node.ids and output.is_floating_point():
            self.trace.epsilon = max(self.trace.epsilon, float(torch.finfo(output.dtype).eps))
        self._remember(output, node)
        self.trace.nodes.append(node)

    def _add_fused(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: tuple[Node, ...], result: torch.Tensor
    ) -> None:
        """baddbmm(mask, queries, keys, alpha=scale) is a product, a multiplication and an addition."""
        product = torch.bmm(args[1], args[2])
        self._add("bmm", inputs[1:], args, product)
        alpha = kwargs.get("alpha", 1)
        scaled = product * alpha
        self._add("mul", (self._nodes[id(product)], Node("constant", value=alpha)), args, scaled)
        self._add("add", (self._nodes[id(scaled)], inputs[0]), args, result)

    def _write_through(self, changed: torch.Tensor) -> None:
        """What shares memory has changed too: scores[..., 3:] = -inf, or cache[:, step] = keys."""
        written, memory = self._nodes[id(changed)], changed.untyped_storage().data_ptr()
        for tensor in list(self._alive.values()):
            if tensor is not changed and tensor.untyped_storage().data_ptr() == memory:
                self._add("masked_fill", (self._node_of(tensor), written), (), tensor)

    def _remember(self, tensor: torch.Tensor, node: Node) -> None:
        self._nodes[id(tensor)] = node
        self._alive[id(tensor)] = tensor

    def _node_of(self, value: Any) -> Node:
        if isinstance(value, torch.Tensor):
            known = self._nodes.get(id(value))
            if known is not None:
                return known
            node = Node(
                "constant", shape=tuple(value.shape), value=value, parameter=self._parameters.get(id(value), "")
            )
            self._remember(value, node)
            return node
        return Node("constant", value=value)


def _operands(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Tensors and numbers in order; those of a list, as cat takes one, in place of the list."""
    flat: list[Any] = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, list | tuple):
            flat += [item for item in value if isinstance(item, torch.Tensor)]
        elif isinstance(value, torch.Tensor) or (
            isinstance(value, int | float) and not isinstance(value, bool) and len(flat) < 2
        ):
            flat.append(value)
    return flat


def _axis(op: Op, args: tuple[Any, ...], output: torch.Tensor) -> int | None:
    if op == "softmax" and isinstance(args[1], int):
        return args[1] % max(output.dim(), 1)
    if op == "sum" and len(args) > 1 and isinstance(args[1], list) and args[1]:
        return int(args[1][0])
    return None


class Places:
    """Which module is running, by forward hooks."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._stack: list[str] = []

    @property
    def current(self) -> str:
        return self._stack[-1] if self._stack else ""

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        handles = []
        for path, module in self._modules.items():
            handles.append(module.register_forward_pre_hook(lambda *_, path=path: self._stack.append(path)))
            handles.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self) -> None:
        if self._stack:
            self._stack.pop()


def recorded(recorder: Recorder, places: Places, by_parts: bool) -> contextlib.ExitStack:
    """Everything that must be in force while a pass is recorded.

    Args:
        by_parts: compute fused attention by its parts, to look into it.
    """
    stack = contextlib.ExitStack()
    if by_parts:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    stack.enter_context(places.followed())
    stack.enter_context(recorder)
    return stack


def _contracted(factors: Sequence[Node]) -> tuple[int, int]:
    """The axis of each factor of a matrix product that is summed over."""
    return len(factors[0].shape) - 1, len(factors[1].shape) - 2
