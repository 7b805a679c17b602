"""The operations of a forward pass as a graph, and the attention in it. Knows no framework: both traces end up here.

An attention is a softmax whose input comes, through elementwise operations, from a product of two activations. What
lies between the product and the softmax is the scale and the mask; what lies between the softmax and the next product
must leave the weights of a query summing to 1.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Op = Literal[
    "input", "constant", "lookup", "product", "softmax", "add", "sub", "mul", "div", "mask", "move", "exp", "sum",
    "pointwise", "other",
]  # fmt: skip

Side = Literal["source", "target", "cross"]

_ELEMENTWISE = ("add", "sub", "mul", "div", "mask", "move", "pointwise")
_TURNING = ("transpose", "permute", "t")  # names of moves that change the order of axes
_MAX_NODES = 400  # a walk from one softmax that visits more has left its attention


@dataclass(eq=False)
class Node:
    """One operation.

    Args:
        value: its result, an array of the framework; or a Python number.
        ids: which inputs' token ids the result depends on; none where it is made of parameters and positions alone.
        parameter: the name of the parameter that this is.
        axis: of a softmax, the axis that sums to 1; of a product, see ``contracts``.
        contracts: of a product, the contracted axis of each operand.
    """

    op: Op
    inputs: tuple["Node", ...] = ()
    shape: tuple[int, ...] = ()
    value: Any = None
    place: str = ""
    ids: frozenset[str] = frozenset()
    parameter: str = ""
    axis: int | None = None
    contracts: tuple[int, int] | None = None
    name: str = ""

    @property
    def from_ids(self) -> bool:
        return bool(self.ids)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_scalar(self) -> bool:
        return self.size == 1


@dataclass(eq=False)
class AttentionNodes:
    """Where one attention is in the graph. Values are still those of the framework."""

    softmax: Node
    scores: Node
    products: list[Node]
    product: Node  # the first of them, its axes in the order of the scores
    used: Node | None
    used_axis: int | None
    used_is_turned: bool  # the axes of ``used`` are in another order than those of the softmax
    before: "Scalars"  # on the way from projected queries and keys to their product
    after: "Scalars"  # on the way from the product to the softmax

    def nodes(self) -> list[Node]:
        """Everything that :func:`read_attention` reads, for a framework that must name its outputs beforehand."""
        scalars = [*self.before.factors, *self.before.divisors, *self.after.factors, *self.after.divisors]
        return [self.scores, self.softmax, self.product, *([self.used] if self.used else []), *scalars]


@dataclass
class Scalars:
    """Numbers multiplied along a path, and whether all of the path was understood."""

    factors: list[Node] = field(default_factory=list)
    divisors: list[Node] = field(default_factory=list)
    known: bool = True


def find_attentions(nodes: Sequence[Node]) -> list[AttentionNodes]:
    """Every attention of a forward pass, in order."""
    consumers: dict[Node, list[Node]] = {}
    for node in nodes:
        for source in node.inputs:
            consumers.setdefault(source, []).append(node)
    found = []
    for softmax, scores in _softmaxes(nodes, consumers):
        products = _products_before(scores)
        if not products:
            continue
        path = _path(scores, products[0])
        after = Scalars()
        for node, source in path:
            _collect_scalar(node, source, after)
        before = Scalars()
        for operand in products[0].inputs[:2]:
            _collect_operand_scalars(operand, before)
        used = _used_weights(softmax, consumers)
        found.append(AttentionNodes(softmax, scores, products, _turned(products[0], path), *used, before, after))
    return found


def _softmaxes(nodes: Sequence[Node], consumers: dict[Node, list[Node]]) -> Iterable[tuple[Node, Node]]:
    """Pairs of a softmax's result and its input: the operation itself, or exp(x - max) / sum(exp)."""
    for node in nodes:
        if node.op == "softmax":
            yield node, node.inputs[0]
        elif node.op == "div" and len(node.inputs) == 2:
            top, bottom = _through_moves(node.inputs[0]), _through_moves(node.inputs[1])
            if bottom.op == "sum" and top.op == "exp" and _through_moves(bottom.inputs[0]) is top:
                node.axis = bottom.axis
                yield node, _unshifted(top.inputs[0])


def _through_moves(node: Node) -> Node:
    while node.op == "move" and node.inputs:
        node = node.inputs[0]
    return node


def _unshifted(node: Node) -> Node:
    """The scores themselves: a stable softmax subtracts their maximum first."""
    node = _through_moves(node)
    if node.op == "sub" and len(node.inputs) == 2 and node.inputs[0].from_ids:
        return node.inputs[0]
    return node


def _products_before(scores: Node) -> list[Node]:
    """Products of two activations that reach ``scores`` through elementwise operations alone, nearest first."""
    found, seen, queue = [], set(), [scores]
    while queue and len(seen) < _MAX_NODES:
        node = queue.pop(0)
        if node in seen:
            continue
        seen.add(node)
        if node.op == "product":
            if all(operand.from_ids for operand in node.inputs[:2]) and node not in found:
                found.append(node)
        elif node.op in _ELEMENTWISE:
            queue += [source for source in node.inputs if source.from_ids and not source.is_scalar]
    return found


def _used_weights(softmax: Node, consumers: dict[Node, list[Node]]) -> tuple[Node | None, int | None, bool]:
    """The operand of the next product that ``softmax`` becomes, the axis that this product sums over, and whether
    axes are in another order by then."""
    seen: set[Node] = set()
    queue = [(softmax, False)]
    while queue and len(seen) < _MAX_NODES:
        node, turned = queue.pop(0)
        if node in seen:
            continue
        seen.add(node)
        for user in consumers.get(node, []):
            if user.op == "product" and user.contracts is not None:
                side = 0 if user.inputs[0] is node else 1
                return node, user.contracts[side], turned
            if user.op in _ELEMENTWISE:
                queue.append((user, turned or user.name in _TURNING))
    return None, None, False


def _turned(product: Node, path: Sequence[tuple[Node, Node]]) -> Node:
    """The product with its axes in the order of the scores, perhaps scaled; itself where no axes change places."""
    turned = node = product
    for user, source in path:
        is_scaled = user.op in ("mul", "div") and len(user.inputs) == 2 and any(i.is_scalar for i in user.inputs)
        if source is not node or user.size != product.size or not (user.op == "move" or is_scaled):
            break
        node = user
        if user.name in _TURNING:
            turned = node
    return turned


def _path(end: Node, start: Node) -> list[tuple[Node, Node]]:
    """(operation, operand that the path comes in by) from ``end`` back to ``start``."""
    came_by: dict[Node, tuple[Node, Node]] = {}
    queue = [end]
    while queue:
        node = queue.pop(0)
        if node is start:
            break
        for source in node.inputs if node.op in _ELEMENTWISE else ():
            if source not in came_by and source is not end:
                came_by[source] = (node, source)
                queue.append(source)
    path, node = [], start
    while node is not end and node in came_by:
        path.append(came_by[node])
        node = came_by[node][0]
    return path


def _collect_scalar(node: Node, source: Node, scalars: Scalars) -> None:
    others = [other for other in node.inputs if other is not source]
    if node.op in ("mul", "div") and len(node.inputs) == 2:
        if len(others) == 1 and others[0].is_scalar and (node.op == "mul" or node.inputs[0] is source):
            (scalars.factors if node.op == "mul" else scalars.divisors).append(others[0])
        elif not (len(others) == 1 and not others[0].from_ids and node.op == "mul"):
            scalars.known = False
    elif node.op == "pointwise":
        scalars.known = False


def _collect_operand_scalars(operand: Node, scalars: Scalars) -> None:
    """From a product's operand back to the projection that made it. Rotary positions and biases are passed."""
    node, steps = operand, 0
    while node.op in _ELEMENTWISE and node.inputs and steps < 60:
        steps += 1
        content = [source for source in node.inputs if source.from_ids]
        if not content:
            return
        if node.op in ("mul", "div"):
            _collect_scalar(node, content[0], scalars)
            if len(content) == 2 or (node.op == "mul" and _is_per_feature(node)):
                scalars.known = False  # a norm of the queries: its scale is its own
                return
        node = content[0]


def _is_per_feature(node: Node) -> bool:
    """A multiplication with a parameter along the features, as a norm ends with one."""
    return any(bool(_through_moves(source).parameter) and not source.is_scalar for source in node.inputs)


@dataclass(frozen=True)
class Attention:
    """One attention as numpy arrays, with all leading axes flattened to ``(maps, query, key)``.

    Args:
        scores: what enters the softmax.
        product: queries times keys, before the mask.
        weights: what leaves the softmax.
        row_sums: of the weights that the values are multiplied with, (maps, query); None where that was not found.
        scale: the factor between the product of projected queries and keys, and the scores; None if not a number.
        head_dim: how many numbers a product sums over.
    """

    place: str
    side: Side
    scores: np.ndarray
    product: np.ndarray
    weights: np.ndarray
    used: np.ndarray | None
    used_sums: np.ndarray | None
    scale: float | None
    head_dim: int
    softmax_axis_is_keys: bool

    @property
    def queries(self) -> int:
        return self.scores.shape[-2]

    @property
    def keys(self) -> int:
        return self.scores.shape[-1]

    def offsets(self) -> np.ndarray:
        """What was added to the scaled product: 0, a bias, or the mask. (maps, query, key)"""
        scale = self.post_scale()
        with np.errstate(invalid="ignore"):
            return self.scores - scale * self.product

    def post_scale(self) -> float:
        """The factor between the product and the scores, fitted where no mask can be."""
        usable = np.isfinite(self.scores) & (np.abs(self.scores) < 200) & (np.abs(self.product) > 1e-12)
        if not usable.any():
            return 1.0
        ratios = self.scores[usable] / self.product[usable]
        return float(np.median(ratios))


def read_attention(
    nodes: AttentionNodes, to_numpy: Callable[[Any], np.ndarray], lengths: Collection[int]
) -> Attention | None:
    """The values of an attention; None where its shapes are not those of queries against keys.

    Args:
        lengths: of the source and of the target, to tell the axes of queries and of keys.
    """
    scores, weights = to_numpy(nodes.scores.value), to_numpy(nodes.softmax.value)
    product = to_numpy(nodes.product.value)
    if scores.ndim < 2 or product.size != scores.size:
        return None
    axis = (nodes.softmax.axis if nodes.softmax.axis is not None else -1) % scores.ndim
    keys = axis if scores.shape[axis] in lengths and scores.shape[-1] not in lengths else scores.ndim - 1
    is_square = scores.shape[-2] == scores.shape[-1] > 1
    before_keys = range(keys - 1, -1, -1)
    queries = next((i for i in before_keys if scores.shape[i] in lengths), scores.ndim - 2 if is_square else None)
    if queries is None:
        return None

    def maps(values: np.ndarray) -> np.ndarray:
        """(maps, query, key): some models put the heads between queries and keys, or behind both."""
        values = np.moveaxis(values.reshape(scores.shape), (queries, keys), (-2, -1))
        return values.reshape(-1, *values.shape[-2:])

    used = used_sums = None
    if nodes.used is not None and nodes.used_axis is not None:
        values = to_numpy(nodes.used.value)
        used_sums = values.sum(axis=nodes.used_axis).reshape(-1)
        if values.size == weights.size and not nodes.used_is_turned:
            used = maps(values)
    known = nodes.before.known and nodes.after.known and len(nodes.products) == 1
    scale = _multiplied(nodes.before, to_numpy) * _multiplied(nodes.after, to_numpy) if known else None
    contracts = nodes.products[0].contracts
    head_dim = nodes.products[0].inputs[0].shape[contracts[0]] if contracts else 0
    return Attention(
        place=nodes.softmax.place,
        side=_side(nodes.products[0]),
        scores=maps(scores),
        product=maps(product),
        weights=maps(weights),
        used=used,
        used_sums=used_sums,
        scale=scale,
        head_dim=head_dim,
        softmax_axis_is_keys=axis == keys,
    )


def _side(product: Node) -> Side:
    """Keys made of the source alone are the memory where the queries know the target."""
    one, other = product.inputs[0].ids, product.inputs[1].ids
    if one == other:
        return "source" if one == {"source"} else "target"
    return "cross" if {"source"} in (one, other) else "target"


def _multiplied(scalars: Scalars, to_numpy: Callable[[Any], np.ndarray]) -> float:
    factors = [float(np.ravel(to_numpy(node.value))[0]) for node in scalars.factors]
    divisors = [float(np.ravel(to_numpy(node.value))[0]) for node in scalars.divisors]
    return float(np.prod(factors) / np.prod(divisors))


@dataclass(frozen=True)
class PositionTerm:
    """An addition of something that depends on positions alone to token embeddings.

    Args:
        parameter: the name of the table, where it is one; "" where it is computed.
        ids: which rows of a table were looked up, if any were.
    """

    tokens: Node
    positions: Node
    parameter: str
    ids: Node | None = None


def find_position_terms(nodes: Sequence[Node]) -> list[PositionTerm]:
    """Where positions are added to embeddings, before any attention or projection."""
    found = []
    for node in nodes:
        if node.op != "add" or len(node.inputs) != 2:
            continue
        content = [source for source in node.inputs if source.from_ids]
        if len(content) != 1 or not _is_embedding(content[0]):
            continue
        other = node.inputs[1] if node.inputs[0] is content[0] else node.inputs[0]
        if other.shape[-1:] == content[0].shape[-1:] and len(other.shape) >= 2 and not other.is_scalar:
            found.append(PositionTerm(content[0], other, _parameter_of(other), _looked_up(other)))
    return found


def _is_embedding(node: Node) -> bool:
    """Only a lookup, scaled at most."""
    for _ in range(10):
        if node.op == "lookup":
            return True
        content = [source for source in node.inputs if source.from_ids]
        if node.op not in ("mul", "div", "move", "add", "mask") or len(content) != 1:
            return False
        node = content[0]
    return False


def _looked_up(node: Node) -> Node | None:
    """The indices of the lookup that a value comes from, through moves."""
    node = _through_moves(node)
    return node.inputs[-1] if node.op == "lookup" and len(node.inputs) > 1 else None


def _parameter_of(node: Node) -> str:
    """The parameter that a value is a part of, through moves and lookups."""
    for _ in range(10):
        if node.parameter:
            return node.parameter
        if node.op not in ("move", "lookup", "mul") or not node.inputs:
            return ""
        node = node.inputs[0]
    return ""
