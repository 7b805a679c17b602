"""How an attention is wired into its model: heads split and joined, and a residual connection around it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flax_transformer.doctor.graph import AttentionNodes, Node

_MAX_NODES = 3000


class Wiring:
    """Follows values of a graph forwards."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._consumers: dict[Node, list[Node]] = {}
        for node in nodes:
            for source in node.inputs:
                self._consumers.setdefault(source, []).append(node)

    def has_residual(self, attention: AttentionNodes) -> bool | None:
        """Whether the output is added to something that does not depend on it; None where there is no output."""
        output = self.output(attention)
        if output is None:
            return None
        behind = self._behind(output)
        return any(
            node.op == "add" and len(node.inputs) == 2
            and all(source.from_ids and source.shape == node.shape for source in node.inputs)
            and sum(source in behind for source in node.inputs) == 1
            for node in self._until_second_product(output)
        )  # fmt: skip

    def output(self, attention: AttentionNodes) -> Node | None:
        """Weights times values."""
        if attention.used is None:
            return None
        users = self._consumers.get(attention.used, [])
        return next((node for node in users if node.op == "product"), None)

    def joins(self, attention: AttentionNodes) -> Iterator[tuple[Node, Node]]:
        """Pairs (heads apart, heads together) that lie only a rearrangement apart, behind and before an attention."""
        output = self.output(attention)
        if output is not None:
            together = self._next_operand(output)
            if together is not None:
                yield output, together
        product = attention.products[0]
        for operand in product.inputs[:2]:
            projection = _before_moves(operand)
            if projection is not None:
                yield operand, projection

    def _next_operand(self, node: Node) -> Node | None:
        """What it becomes, alone or put together with the outputs of other heads, until the next product takes it."""
        for _ in range(12):
            users = self._consumers.get(node, [])
            if any(user.op == "product" and user.inputs[0] is node for user in users):
                return node
            moves = [user for user in users if user.op == "move" and user.size >= node.size]
            if len(moves) != 1:
                return None
            node = moves[0]
        return None

    def _behind(self, start: Node) -> set[Node]:
        seen, queue = {start}, [start]
        while queue and len(seen) < _MAX_NODES:
            for user in self._consumers.get(queue.pop(), []):
                if user not in seen:
                    seen.add(user)
                    queue.append(user)
        return seen

    def _until_second_product(self, start: Node) -> Iterator[Node]:
        """What the output becomes, past its projection, before it enters another product."""
        seen, queue = {start}, [(start, 0)]
        while queue and len(seen) < _MAX_NODES:
            node, products = queue.pop(0)
            for user in self._consumers.get(node, []):
                passed = products + (user.op == "product")
                if user not in seen and passed < 2:
                    seen.add(user)
                    queue.append((user, passed))
                    yield user


def _before_moves(operand: Node) -> Node | None:
    """The projection, where it is only rearranged, scaled by a number or given a bias on its way to the product."""
    node = operand
    for _ in range(12):
        if node.op == "move" and node.inputs and node.inputs[0].size == node.size:
            node = node.inputs[0]
        elif node.op in ("mul", "div") and len(node.inputs) == 2 and any(i.is_scalar for i in node.inputs):
            node = next(i for i in node.inputs if not i.is_scalar)
        else:
            break
    is_projection = node.op in ("product", "add") and node is not operand
    return node if is_projection else None


def mixes_positions(
    apart: Node, together: Node, to_numpy: Callable[[Any], np.ndarray], rows: int, length: int, epsilon: float
) -> bool | None:
    """Whether numbers of one position end up at several; on their way they may be rounded by ``epsilon``.

    ``apart`` is (rows, heads, length, head_dim), its first axes joined or not, its last two exchanged or not;
    ``together`` is (rows, length, width), with any of its axes joined or split; it may hold other heads too. None where
    shapes are others.
    """
    if apart.value is None or together.value is None:
        return None
    if together.shape[:2] not in ((rows, length), (length, rows)) and together.shape[0] != rows * length:
        return None
    a, b = to_numpy(apart.value), to_numpy(together.value)
    axis = next((axis for axis in (-2, -1) if a.ndim >= 3 and a.shape[axis] == length), None)
    if axis is None or b.size % a.size or a.size % (rows * length):
        return None
    a = np.moveaxis(a, axis, -2)
    if (a.size // (a.shape[-1] * length)) % rows:
        return None
    a = a.reshape(rows, -1, length, a.shape[-1]).swapaxes(1, 2).reshape(rows, length, -1)
    # Activations of torch.nn are (length, rows, width) where batch_first is not set.
    orders = b.reshape(rows, length, -1), b.reshape(length, rows, -1).swapaxes(0, 1)
    return all(_differ(a, ordered, epsilon) for ordered in orders)


def _differ(a: np.ndarray, b: np.ndarray, epsilon: float) -> bool:
    """Whether a position holds other numbers in ``a`` than in ``b``, but for a common scale and their order."""
    if a.size < b.size:
        return not _is_part(a, b, epsilon)
    a, b = np.sort(np.abs(a), axis=-1), np.sort(np.abs(b), axis=-1)
    a, b = a / np.maximum(np.linalg.norm(a), 1e-300), b / np.maximum(np.linalg.norm(b), 1e-300)
    return bool(np.abs(a - b).max() > max(1e-6, epsilon * a.max()))


def _is_part(a: np.ndarray, b: np.ndarray, epsilon: float) -> bool:
    """Whether the numbers of each position in ``a`` are among those of the same position in ``b``."""
    gaps = np.abs(a[..., :, None] - b[..., None, :]).min(axis=-1)
    return bool((gaps <= max(1e-6, epsilon) * np.abs(a).max()).all())
