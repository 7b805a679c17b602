"""Run a jaxpr operation by operation and record it as a graph. Under ``jax.jit`` this is a compiled function."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from flax_transformer.doctor.graph import Node, Op, find_attentions, find_position_terms
from flax_transformer.doctor.subject import Trace
from flax_transformer.doctor.wiring import Wiring

_OPS: dict[str, Op] = {
    "dot_general": "product", "gather": "lookup", "add": "add", "add_any": "add", "sub": "sub", "mul": "mul",
    "div": "div", "exp": "exp", "reduce_sum": "sum", "select_n": "mask", "scatter": "mask",
    "reshape": "move", "transpose": "move", "broadcast_in_dim": "move", "squeeze": "move", "expand_dims": "move",
    "convert_element_type": "move", "copy": "move", "copy_p": "move", "slice": "move", "dynamic_slice": "move",
    "concatenate": "move", "pad": "move", "split": "move", "reduce_precision": "move", "stop_gradient": "move",
    "dynamic_update_slice": "move", "optimization_barrier": "move", "sharding_constraint": "move", "rev": "move",
    "max": "pointwise", "min": "pointwise", "tanh": "pointwise", "clamp": "pointwise", "neg": "pointwise",
}  # fmt: skip
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # the parameters under which calls hold what they call


class Interpreter:
    """Evaluates a jaxpr and keeps a node for each of its results. Loops of known length are unrolled."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.argmax_inputs: list[Any] = []
        self.position_lookups: list[tuple[int, Any]] = []  # rows that there are, and the highest one asked for

    def run(self, closed: core.ClosedJaxpr, arguments: Sequence[Node]) -> list[Node]:
        return self._run(closed.jaxpr, [_constant(value) for value in closed.consts], arguments)

    def inputs(self, values: Sequence[Any]) -> list[Node]:
        """Nodes for arguments of which nothing need be known."""
        return [_constant(value) for value in values]

    def _run(self, jaxpr: core.Jaxpr, constants: Iterable[Node], arguments: Iterable[Node]) -> list[Node]:
        known: dict[Any, Node] = {}
        known.update(zip(jaxpr.constvars, constants, strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Node:
            return _constant(variable.val) if isinstance(variable, core.Literal) else known[variable]

        for equation in jaxpr.eqns:
            inputs = [read(variable) for variable in equation.invars]
            known.update(zip(equation.outvars, self._apply(equation, inputs), strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _apply(self, equation: core.JaxprEqn, inputs: list[Node]) -> list[Node]:
        name = equation.primitive.name
        if name == "scan":
            return self._scan(equation.params, inputs)
        inner = next((equation.params[key] for key in _INNER if key in equation.params), None)
        if inner is not None and name not in ("while", "cond"):
            if isinstance(inner, core.ClosedJaxpr):
                return self.run(inner, inputs)
            return self._run(inner, (), inputs)
        params = equation.primitive.get_bind_params(equation.params)
        outputs = equation.primitive.bind(*(node.value for node in inputs), **params)
        outputs = outputs if equation.primitive.multiple_results else [outputs]
        if name == "argmax":
            self.argmax_inputs.append(inputs[0].value)
        if name == "gather" and not any(source.from_ids for source in inputs):
            self.position_lookups += _clamping(equation.params, inputs[0].shape, inputs[1].value)
        return [self._record(name, equation, inputs, output) for output in outputs]

    def _record(self, name: str, equation: core.JaxprEqn, inputs: list[Node], output: Any) -> Node:
        op = _OPS.get(name, "other")
        inputs = inputs[1:] if name == "select_n" else inputs
        shape = tuple(getattr(output, "shape", ()))
        node = Node(
            op,
            tuple(inputs),
            shape,
            output,
            place=_place(equation),
            ids=frozenset().union(*(source.ids for source in inputs)),
            axis=equation.params["axes"][0] if op == "sum" and equation.params["axes"] else None,
            contracts=_contracts(equation.params) if op == "product" else None,
            name=name,
        )
        if node.ids and jnp.issubdtype(output.dtype, jnp.floating):
            self.trace.epsilon = max(self.trace.epsilon, float(jnp.finfo(output.dtype).eps))
        self.trace.nodes.append(node)
        return node

    def _scan(self, params: dict[str, Any], inputs: list[Node]) -> list[Node]:
        """Layer by layer, as if it had been written out."""
        constants, carries = params["num_consts"], params["num_carry"]
        fixed, carry, stacked = (
            inputs[:constants],
            inputs[constants : constants + carries],
            inputs[constants + carries :],
        )
        collected: list[list[Node]] = []
        steps = range(params["length"])
        for step in reversed(steps) if params["reverse"] else steps:
            slices = [self._slice(node, step) for node in stacked]
            outputs = self.run(params["jaxpr"], [*fixed, *carry, *slices])
            carry = outputs[:carries]
            collected.append(outputs[carries:])
        if params["reverse"]:
            collected.reverse()
        return [*carry, *(_stack(column) for column in zip(*collected, strict=True))]

    def _slice(self, node: Node, step: int) -> Node:
        value = node.value[step]
        return Node("move", (node,), tuple(value.shape), value, ids=node.ids, parameter=node.parameter, name="slice")


def _constant(value: Any) -> Node:
    return Node("constant", shape=tuple(getattr(value, "shape", ())), value=value)


def _stack(nodes: Sequence[Node]) -> Node:
    value = jnp.stack([node.value for node in nodes])
    ids = frozenset().union(*(node.ids for node in nodes))
    return Node("move", tuple(nodes), tuple(value.shape), value, ids=ids, name="stack")


def _contracts(params: dict[str, Any]) -> tuple[int, int] | None:
    (left, right), _ = params["dimension_numbers"]
    return (left[0], right[0]) if len(left) == 1 else None


def _clamping(params: dict[str, Any], table: tuple[int, ...], indices: Any) -> Iterable[tuple[int, Any]]:
    """Along each axis that is looked up in: how many places there are, and the highest index."""
    if not indices.size or params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP:  # NaN, or as asked
        return
    for number, axis in enumerate(params["dimension_numbers"].start_index_map):
        yield table[axis] - params["slice_sizes"][axis] + 1, indices[..., number].max()


def _place(equation: core.JaxprEqn) -> str:
    """The scope of a Linen module; other modules leave none."""
    stack = str(getattr(getattr(equation, "source_info", None), "name_stack", ""))
    parts = [part for part in stack.split("/") if part and "(" not in part]
    return ".".join(parts)


class Recording:
    """``function(parameters, *arrays)``, which returns logits first, compiled once for all arrays of these shapes.

    Args:
        names: of the leaves of ``parameters``.
        ids: for each array the name of the input that it is; "" where it holds no token ids.
    """

    def __init__(
        self, function: Callable[..., Any], names: Sequence[str], ids: Sequence[str], options: dict[str, Any]
    ) -> None:
        self._kept: list[Node] = []
        self._interpreter = Interpreter()

        def run(parameters: Any, arrays: Sequence[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
            closed = jax.make_jaxpr(function)(parameters, *arrays)
            inputs = [
                Node("constant", shape=leaf.shape, value=leaf, parameter=name)
                for leaf, name in zip(jax.tree.leaves(parameters), names, strict=True)
            ]
            inputs += _ids_of(arrays, ids)
            self._interpreter.trace.outputs = self._interpreter.run(closed, inputs)
            self._kept = list(dict.fromkeys(_needed(self._interpreter.trace.nodes)))
            return self._interpreter.trace.outputs[0].value, [jnp.asarray(node.value) for node in self._kept]

        self._compiled = jax.jit(run, compiler_options=options)

    def logits(self, parameters: Any, arrays: Sequence[jax.Array]) -> jax.Array:
        return self._compiled(parameters, list(arrays))[0]

    def trace(self, parameters: Any, arrays: Sequence[jax.Array]) -> Trace:
        """A graph of its own for each call; values are filled in for what the probes read."""
        _, values = self._compiled(parameters, list(arrays))
        trace = self._interpreter.trace
        numbers = dict(zip(self._kept, values, strict=True))
        copies: dict[Node, Node] = {}

        def copy(node: Node) -> Node:
            if node not in copies:
                inputs = tuple(copy(source) for source in node.inputs)
                copies[node] = replace(node, inputs=inputs, value=numbers.get(node))
            return copies[node]

        return replace(trace, nodes=[copy(node) for node in trace.nodes])


def clamped_lookups(
    function: Callable[..., Any],
    ids: Sequence[str],
    parameters: Any,
    arrays: Sequence[jax.Array],
    options: dict[str, Any],
) -> list[tuple[int, int]]:
    """Where positions are looked up beyond the end of a table: how many rows it has, and the highest one asked for.

    JAX reads the last row for them, without an error. Only indices are computed: all else is dropped by the compiler.
    """
    rows: list[int] = []

    def run(parameters: Any, arrays: Sequence[jax.Array]) -> list[Any]:
        interpreter = Interpreter()
        closed = jax.make_jaxpr(function)(parameters, *arrays)
        inputs = [*interpreter.inputs(jax.tree.leaves(parameters)), *_ids_of(arrays, ids)]
        interpreter.run(closed, inputs)
        rows[:] = [places for places, _ in interpreter.position_lookups]
        return [highest for _, highest in interpreter.position_lookups]

    highest = jax.jit(run, compiler_options=options)(parameters, list(arrays))
    return [(places, int(index)) for places, index in zip(rows, highest, strict=True) if index >= places]


def _ids_of(arrays: Sequence[jax.Array], names: Sequence[str]) -> list[Node]:
    return [
        Node("input", shape=array.shape, value=array, ids=frozenset([name] if name else []), name=name)
        for array, name in zip(arrays, names, strict=True)
    ]


def _needed(nodes: Sequence[Node]) -> Iterable[Node]:
    """Everything whose numbers a probe may ask for."""
    wiring = Wiring(nodes)
    for attention in find_attentions(nodes):
        yield from attention.nodes()
        for pair in wiring.joins(attention):
            yield from pair
    for term in find_position_terms(nodes):
        yield from (term.tokens, term.positions, *([term.ids] if term.ids is not None else []))
