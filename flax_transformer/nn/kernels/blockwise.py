"""Attention block by block, in memory linear in the length on every platform (Rabe & Staats, 2021; Dao et al., 2022).

The softmax is taken online: of each query the largest score so far, the sum of exponentials and the weighted sum of
values are kept, and rescaled when a larger score comes (Milakov & Gimelshein, 2018). The backward pass computes the
weights again from the logarithm of that sum.

Blocks of scores are (batch, heads, keys, queries): then each of the seven matrix products reads its operands as they
lie, and what belongs to a query is added and multiplied along the last axis.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from flax_transformer.distributed.mesh import target_platform
from flax_transformer.nn.kernels.distances import DistanceBias, spread_distances
from flax_transformer.nn.kernels.flash import FLASH_OUTPUTS
from flax_transformer.nn.kernels.random_bits import drawn_once, keep_at, key_words
from flax_transformer.nn.masks import AttentionMask

Index = int | Int[Array, ""]
Scores = Float[Array, "batch heads keys queries"]
# Queries and keys of a block. On a CPU its scores fit into the cache; elsewhere fewer and larger products are better.
_BLOCKS = {"cpu": (512, 256)}
_BLOCKS_ELSEWHERE = (1024, 1024)


class WeightDropout(NamedTuple):
    """Attention weights are dropped with probability ``rate``; which ones is a function of ``key``."""

    key: PRNGKeyArray
    rate: float


def blockwise_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    mask: AttentionMask,
    scale: float | None = None,
    dropout: WeightDropout | None = None,
    blocks: tuple[int, int] | None = None,
) -> Float[Array, "batch queries heads head_dim"]:
    """What :func:`plain_attention` computes, without the weights ever being written out.

    Args:
        mask: any; its bias may be a :class:`DistanceBias`.
        scale: of the scores; ``1 / sqrt(head_dim)`` if not given.
        dropout: drops weights. Whether one is dropped depends on the key and on where it stands among all weights, and
            so neither on the blocks nor on the mesh.
        blocks: the most queries and keys of a block; those of the platform if not given.
    """
    queries, keys = query.shape[1], key.shape[1]
    blocks = blocks or _BLOCKS.get(target_platform(), _BLOCKS_ELSEWHERE)
    task = _Task(
        queries,
        keys,
        _block_size(queries, blocks[0]),
        _block_size(keys, blocks[1]),
        mask.causal,
        query.shape[-1] ** -0.5 if scale is None else scale,
        0.0 if dropout is None else dropout.rate,
    )
    bias = mask.bias.values if isinstance(mask.bias, DistanceBias) else mask.bias
    words = None if dropout is None else key_words(dropout.key)
    offset = jnp.asarray(mask.query_offset, jnp.int32)
    constants = _Constants(mask.key_lengths, offset, mask.dense, words, mask.query_segments, mask.key_segments)
    return _attend(task, query, key, value, bias, constants)


def _block_size(length: int, largest: int) -> int:
    """Equal blocks, as few as possible, but of a multiple of 16."""
    size = -(-length // -(-length // largest))
    return min(length, largest, -(-size // 16) * 16)


class _Constants(NamedTuple):
    """What has no gradient: of the mask, and the two words that dropout's bits are drawn from."""

    key_lengths: Int[Array, " batch"] | None
    query_offset: Int[Array, ""]
    dense: Bool[Array, "#batch #heads #queries #keys"] | None
    words: UInt32[Array, "2"] | None
    query_segments: Int[Array, "batch queries"] | None
    key_segments: Int[Array, "batch keys"] | None


@dataclass(frozen=True)
class _Task:
    """What is known while tracing: lengths, sizes of blocks, causality, the scale of scores, the rate of dropout."""

    queries: int
    keys: int
    block_queries: int
    block_keys: int
    causal: bool
    scale: float
    drop_rate: float

    @property
    def query_blocks(self) -> int:
        return -(-self.queries // self.block_queries)

    def first_query(self, i: Index) -> Index:
        """The last block ends with the sequence, and so may begin within the block before it."""
        return jnp.minimum(i * self.block_queries, self.queries - self.block_queries).astype(jnp.int32)

    def first_key(self, j: Index) -> Index:
        return jnp.minimum(j * self.block_keys, self.keys - self.block_keys).astype(jnp.int32)

    def key_blocks(self, i: Index, constants: _Constants) -> tuple[Index, Index]:
        """The blocks of keys that a block of queries looks at, from the first one to the one behind the last.

        Under a causal mask none above the diagonal, of packed rows none without a segment of these queries.
        """
        first, end = 0, -(-self.keys // self.block_keys)
        if self.causal:
            last_query = constants.query_offset + self.first_query(i) + self.block_queries - 1
            end = jnp.clip(last_query // self.block_keys + 1, 0, end)
        if constants.query_segments is not None and constants.key_segments is not None:
            queries = _cut(constants.query_segments, self.first_query(i), self.block_queries, 1)
            first_key, end_key = _segment_bounds(queries, constants.key_segments)
            first, end = first_key // self.block_keys, jnp.minimum(-(-end_key // self.block_keys), end)
        return first, end


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(task: _Task, query: Array, key: Array, value: Array, bias: Array | None, constants: _Constants) -> Array:
    return _forward(task, query, key, value, bias, constants)[0]


def _forward(
    task: _Task, query: Array, key: Array, value: Array, bias: Array | None, constants: _Constants
) -> tuple[Array, tuple[Any, ...]]:
    keys, values = _in_rows(key), _in_columns(value)
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    batch, _, heads, width = query.shape

    def attend(i: Index, done: tuple[Array, Array]) -> tuple[Array, Array]:
        queries = _in_columns(_cut(query, task.first_query(i), task.block_queries, 1))

        def add_keys(j: Index, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            attended, total, largest = state
            scores = _scores(task, queries, _keys_of(task, keys, j, 2), bias, constants, i, j)
            new_largest = jnp.maximum(largest, scores.max(axis=2))
            weights, rescale = jnp.exp(scores - new_largest[:, :, None]), jnp.exp(largest - new_largest)
            total = total * rescale + weights.sum(axis=2)
            keep = _kept(task, weights, constants.words, i, j)
            weights = _drop(task, weights, keep).astype(value.dtype)
            attended = attended * rescale[:, :, None] + _matmul(_keys_of(task, values, j, 3), weights)
            return attended, total, new_largest

        shape = (batch, heads, task.block_queries)
        # No score is smaller than the least number, so that of masked ones no difference is infinity - infinity.
        state = jnp.zeros((batch, heads, width, shape[2]), dtype), jnp.zeros(shape, dtype)
        state = *state, jnp.full(shape, jnp.finfo(dtype).min)
        attended, total, largest = jax.lax.fori_loop(*task.key_blocks(i, constants), add_keys, state)
        attended = attended / jnp.where(total > 0, total, 1)[:, :, None]
        # A query without keys has weights of exp(-infinity) in the backward pass too.
        log_sums = jnp.where(total > 0, largest + jnp.log(total), jnp.inf)
        start = task.first_query(i)
        return _put(done[0], jnp.transpose(attended, (0, 3, 1, 2)), start, 1), _put(done[1], log_sums, start, 2)

    outputs = jnp.zeros(query.shape, query.dtype), jnp.zeros((batch, heads, task.queries), dtype)
    output, log_sums = jax.lax.fori_loop(0, task.query_blocks, attend, outputs)
    output, log_sums = (checkpoint_name(x, FLASH_OUTPUTS) for x in (output, log_sums))
    return output, (query, key, value, bias, constants, output, log_sums)


def _backward(task: _Task, kept: Any, upstream: Array) -> tuple[Array | None, ...]:
    query, key, value, bias, constants, output, log_sums = kept
    key_rows, key_columns, values = _in_rows(key), _in_columns(key), _in_rows(value)
    dtype = log_sums.dtype

    def of_queries(i: Index, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        start = task.first_query(i)
        queries, of_output = (_cut(x, start, task.block_queries, 1) for x in (query, upstream))
        of_output = _own_queries(task, of_output, i)
        # Of each query, the sum over all keys of weight times gradient of the weight.
        weighted = jnp.sum(of_output.astype(dtype) * _cut(output, start, task.block_queries, 1), axis=-1)
        weighted, sums = jnp.swapaxes(weighted, 1, 2), _cut(log_sums, start, task.block_queries, 2)
        columns, of_output_columns = _in_columns(queries), _in_columns(of_output)
        rows, of_output = _in_rows(queries), _in_rows(of_output)

        def of_keys(j: Index, state: tuple[Any, ...]) -> tuple[Any, ...]:
            of_query, of_key, of_value, of_bias = state
            scores = _scores(task, columns, _keys_of(task, key_rows, j, 2), bias, constants, i, j)
            weights = jnp.exp(scores - sums[:, :, None])
            keep = _kept(task, weights, constants.words, i, j)
            of_weights = _drop(task, _matmul(_keys_of(task, values, j, 2), of_output_columns), keep)
            of_scores = weights * (of_weights - weighted[:, :, None])
            of_bias = _add_to_bias(task, of_bias, of_scores, i, j)
            kept_weights = _drop(task, weights, keep).astype(value.dtype)
            of_value = _add(of_value, _matmul(kept_weights, of_output), task.first_key(j), 2)
            of_products = (of_scores * task.scale).astype(query.dtype)
            of_key = _add(of_key, _matmul(of_products, rows), task.first_key(j), 2)
            of_query = of_query + _matmul(_keys_of(task, key_columns, j, 3), of_products)
            return of_query, of_key, of_value, of_bias

        of_query, *of_others = gradients
        state = jnp.zeros(columns.shape, dtype), *of_others
        of_block, *of_others = jax.lax.fori_loop(*task.key_blocks(i, constants), of_keys, state)
        return _add(of_query, jnp.transpose(of_block, (0, 3, 1, 2)), start, 1), *of_others

    like = (query, key_rows, values, bias)
    gradients = tuple(None if x is None else jnp.zeros(x.shape, dtype) for x in like)
    of_query, of_key, of_value, of_bias = jax.lax.fori_loop(0, task.query_blocks, of_queries, gradients)
    of_key, of_value = (jnp.swapaxes(x, 1, 2) for x in (of_key, of_value))
    cast = (
        None if g is None else g.astype(x.dtype)
        for g, x in zip((of_query, of_key, of_value, of_bias), (query, key, value, bias), strict=True)
    )
    return *cast, None


_attend.defvjp(_forward, _backward)


def _scores(
    task: _Task, queries: Array, keys: Array, bias: Array | None, constants: _Constants, i: Index, j: Index
) -> Scores:
    """A block of scores, scaled and biased; minus infinity where the mask does not allow them."""
    scores = _matmul(keys, queries) * task.scale
    if bias is not None:
        scores = scores + _spread(task, jax.lax.dynamic_slice(bias, *_place_in_bias(task, bias, i, j)), scores)
    allowed = _allowed(task, constants, i, j)
    return scores if allowed is None else jnp.where(allowed, scores, -jnp.inf)


def _allowed(
    task: _Task, constants: _Constants, i: Index, j: Index
) -> Bool[Array, "#batch #heads #keys #queries"] | None:
    query, key = task.first_query(i), task.first_key(j)
    lengths = None if constants.key_lengths is None else constants.key_lengths - key
    dense = constants.dense
    if dense is not None:
        dense = _cut(_cut(dense, query, task.block_queries, 2), key, task.block_keys, 3)
    if task.keys % task.block_keys:  # keys that the block before has seen
        new = (key + jnp.arange(task.block_keys) >= j * task.block_keys)[None, None, None]
        dense = new if dense is None else jnp.logical_and(dense, new)
    of_queries, of_keys = constants.query_segments, constants.key_segments
    if of_queries is not None and of_keys is not None:
        of_queries = jax.lax.dynamic_slice_in_dim(of_queries, query, task.block_queries, axis=1)
        of_keys = jax.lax.dynamic_slice_in_dim(of_keys, key, task.block_keys, axis=1)
    offset = constants.query_offset + query - key
    part = AttentionMask(lengths, task.causal, offset, dense, query_segments=of_queries, key_segments=of_keys)
    allowed = part.materialize(task.block_queries, task.block_keys)
    return None if allowed is None else jnp.swapaxes(allowed, 2, 3)


def _segment_bounds(
    query_segments: Int[Array, "batch queries"], key_segments: Int[Array, "batch keys"]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Where in the rows the keys of the queries' segments begin and end; 0 and 0 if there are none."""
    # The ids of a row count up, and 0 is padding: those of the queries lie between the least and the largest.
    least = jnp.where(query_segments > 0, query_segments, jnp.iinfo(query_segments.dtype).max).min(axis=1)
    is_among = jnp.logical_and(key_segments >= least[:, None], key_segments <= query_segments.max(axis=1)[:, None])
    belongs = is_among.any(axis=0)
    return jnp.argmax(belongs), jnp.where(belongs.any(), belongs.size - jnp.argmax(belongs[::-1]), 0)


def _own_queries(task: _Task, x: Array, i: Index) -> Array:
    """Zeros for the queries that the block before has seen."""
    if task.queries % task.block_queries == 0:
        return x
    positions = task.first_query(i) + jnp.arange(task.block_queries)
    return jnp.where((positions >= i * task.block_queries)[None, :, None, None], x, 0)


def _place_in_bias(task: _Task, bias: Array, i: Index, j: Index) -> tuple[tuple[Index, ...], tuple[int, ...]]:
    """Where a block's part of the bias begins, and its sizes: of a table of distances, or of all queries and keys."""
    query, key, zero = task.first_query(i), task.first_key(j), jnp.zeros((), jnp.int32)
    if bias.ndim == 2:
        first = key - query + task.queries - task.block_queries
        return (zero, first), (bias.shape[0], task.block_queries + task.block_keys - 1)
    starts, sizes = (zero, zero, query, key), (*bias.shape[:2], task.block_queries, task.block_keys)
    whole = [size == 1 for size in bias.shape]
    return (
        tuple(zero if one else start for one, start in zip(whole, starts, strict=True)),
        tuple(1 if one else size for one, size in zip(whole, sizes, strict=True)),
    )


def _spread(task: _Task, part: Array, scores: Scores) -> Scores:
    """A part of the bias, for each score of the block."""
    block = spread_distances(part, task.block_queries, task.block_keys) if part.ndim == 2 else jnp.swapaxes(part, 2, 3)
    return jnp.broadcast_to(block.astype(scores.dtype), scores.shape)


def _add_to_bias(task: _Task, of_bias: Array | None, of_scores: Scores, i: Index, j: Index) -> Array | None:
    if of_bias is None:
        return None
    starts, sizes = _place_in_bias(task, of_bias, i, j)
    part = jax.lax.dynamic_slice(of_bias, starts, sizes)
    _, pull_back = jax.vjp(lambda part: _spread(task, part, of_scores), part)
    return jax.lax.dynamic_update_slice(of_bias, part + pull_back(of_scores)[0], starts)


def _kept(
    task: _Task, like: Scores, words: UInt32[Array, "2"] | None, i: Index, j: Index
) -> Bool[Array, "batch heads keys queries"] | None:
    """Which weights of a block are kept: a function of each one's row and column among all, in both passes alike."""
    if words is None:
        return None
    row, head, key, query = (jax.lax.broadcasted_iota(jnp.uint32, like.shape, axis) for axis in range(4))
    first_query, first_key = (jnp.uint32(first) for first in (task.first_query(i), task.first_key(j)))
    rows = (row * jnp.uint32(like.shape[1]) + head) * jnp.uint32(task.queries) + query + first_query
    return drawn_once(keep_at(words, task.drop_rate, rows, key + first_key))


def _drop(task: _Task, x: Scores, keep: Bool[Array, "batch heads keys queries"] | None) -> Scores:
    return x if keep is None else jnp.where(keep, x * (1.0 / (1.0 - task.drop_rate)), 0)


def _in_rows(x: Float[Array, "batch length heads head_dim"]) -> Float[Array, "batch heads length head_dim"]:
    return jnp.swapaxes(x, 1, 2)


def _in_columns(x: Float[Array, "batch length heads head_dim"]) -> Float[Array, "batch heads head_dim length"]:
    return jnp.transpose(x, (0, 2, 3, 1))


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def _cut(x: Array, start: Index, size: int, axis: int) -> Array:
    """A part of one axis; all of an axis of one, which stands for any length."""
    return x if x.shape[axis] == 1 else jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def _keys_of(task: _Task, x: Array, j: Index, axis: int) -> Array:
    return _cut(x, task.first_key(j), task.block_keys, axis)


def _put(x: Array, part: Array, start: Index, axis: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, part.astype(x.dtype), start, axis)


def _add(x: Array, part: Array, start: Index, axis: int) -> Array:
    return _put(x, jax.lax.dynamic_slice_in_dim(x, start, part.shape[axis], axis) + part, start, axis)
