"""Scaled dot-product attention and its multi-head layer (Vaswani et al., 2017, section 3.2)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import ModelConfig
from flax_transformer.intermediates import record
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.kernels.backends import choose_backend
from flax_transformer.nn.kernels.blockwise import WeightDropout, blockwise_attention
from flax_transformer.nn.kernels.cached import attend_to_filled
from flax_transformer.nn.kernels.distances import written_out
from flax_transformer.nn.kernels.flash import cudnn_attention, flash_attention
from flax_transformer.nn.linear import Linear
from flax_transformer.nn.masks import AttentionMask
from flax_transformer.nn.positions import apply_rope
from flax_transformer.nn.segments import segment_positions, starts_segment


class KeyValue(NamedTuple):
    """Projected keys and values: of the memory, or of the tokens decoded so far.

    Heads come first, as matrix products read them: otherwise each new token would transpose the whole of both again.
    """

    key: Float[Array, "batch heads keys head_dim"]
    value: Float[Array, "batch heads keys head_dim"]


def attention_weights(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    mask: AttentionMask,
    scale: float | None = None,
) -> Float[Array, "batch heads queries keys"]:
    """``softmax(scale q k^T + bias)`` over the keys that the mask allows, in at least float32.

    A query that may attend to no key has zero weights, and finite gradients. The scale is ``1 / sqrt(head_dim)`` if not
    given; the bias is that of the mask.
    """
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    query, key = jnp.swapaxes(query, 1, 2), jnp.swapaxes(key, 1, 2)  # (batch, heads, length, head_dim)
    # Both contracted over their last axis: a key with its axes swapped would be copied on CPU.
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=dtype)
    scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask.bias is not None:
        scores = scores + written_out(mask.bias, scores.shape[-2], scores.shape[-1]).astype(dtype)
    allowed = mask.materialize(scores.shape[-2], scores.shape[-1])
    if allowed is None:
        return jax.nn.softmax(scores, axis=-1)
    weights = jax.nn.softmax(jnp.where(allowed, scores, jnp.finfo(dtype).min), axis=-1)
    return jnp.where(allowed, weights, 0)


def plain_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    mask: AttentionMask,
    scale: float | None = None,
    on_weights: Callable[[Array], Array] = lambda weights: weights,
) -> Float[Array, "batch queries heads head_dim"]:
    """Attention with its weights written out; ``on_weights`` may drop some of them."""
    weights = on_weights(attention_weights(query, key, mask, scale)).astype(value.dtype)
    return jnp.swapaxes(jnp.matmul(weights, jnp.swapaxes(value, 1, 2)), 1, 2)


def smear(
    key: Float[Array, "batch keys heads head_dim"],
    share: Float[Array, " heads"],
    segments: Int[Array, "batch keys"] | None = None,
) -> Float[Array, "batch keys heads head_dim"]:
    """``s k_j + (1 - s) k_(j-1)`` with ``s = sigmoid(share)`` of each head; zeros stand before the first key.

    Of packed rows, zeros stand before the first key of each segment.

    A query that looks for the token it is at then finds the place behind it, in one layer: what copying takes (Olsson
    et al., 2022, "In-context Learning and Induction Heads", argument 2).
    """
    own = jax.nn.sigmoid(share)[None, None, :, None]
    wide = key.astype(jnp.promote_types(key.dtype, jnp.float32))
    before = jnp.pad(wide, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
    if segments is not None:
        before = jnp.where(starts_segment(segments)[:, :, None, None], 0, before)
    # As one product: the share's gradient would else be the difference of two large sums.
    return (before + own * (wide - before)).astype(key.dtype)


class HeadProjections(nnx.Module):
    """The four linear maps of any attention: queries, keys, values, and the output of all heads.

    Args:
        config: gives d_model, num_heads and head_width.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        width = config.num_heads * config.head_dim
        # torch.nn.MultiheadAttention starts all its biases at zero.
        packed = {"axes": ("embed", "heads"), "packed": True, "zero_bias": True}
        self.query = Linear(config.d_model, width, config, rngs=rngs, **packed)
        self.key = Linear(config.d_model, width, config, rngs=rngs, **packed)
        self.value = Linear(config.d_model, width, config, rngs=rngs, **packed)
        self.output = Linear(width, config.d_model, config, axes=("heads", "embed"), zero_bias=True, rngs=rngs)

    def _split_heads(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length heads head_dim"]:
        return x.reshape(*x.shape[:2], self.config.num_heads, self.config.head_dim)


class MultiHeadAttention(HeadProjections):
    """``concat_h(softmax(q_h k_h^T / sqrt(head_dim)) v_h) W_o`` with q = x W_q, k = memory W_k, v = memory W_v.

    Keys and values are projected by :meth:`project` and passed in, so that a full pass, cached decoding and a memory
    that is projected once are the same code. torch.nn.MultiheadAttention packs W_q, W_k and W_v into one matrix and
    stores each transposed.

    Args:
        config: gives d_model, num_heads, head_width, scale_attention, smeared_keys, attention_dropout and the backend.
        is_self_attention: queries and keys come from one sequence, so that rope applies; otherwise smeared_keys does.
    """

    def __init__(self, config: ModelConfig, *, is_self_attention: bool, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs=rngs)
        self.uses_rope = is_self_attention and config.positions == "rope"
        self.scale = config.head_dim**-0.5 if config.scale_attention else 1.0
        shares = jnp.zeros(config.num_heads, jnp.dtype(config.param_dtype))
        is_smeared = config.smeared_keys and not is_self_attention
        self.smear = nnx.Param(shares, axes=("heads",)) if is_smeared else None
        self.dropout = Dropout(config.attention_dropout)

    def _apply_rope(self, x: Array, offset: int | Int[Array, ""], segments: Int[Array, "batch length"] | None) -> Array:
        if not self.uses_rope:
            return x
        positions = None if segments is None else segment_positions(segments)
        return apply_rope(x, offset, self.config.max_length, positions)

    @jax.named_scope("project")
    def project(
        self,
        memory: Float[Array, "batch keys d_model"],
        offset: int | Int[Array, ""] = 0,
        lengths: Int[Array, " batch"] | None = None,
        segments: Int[Array, "batch keys"] | None = None,
    ) -> KeyValue:
        """Keys and values of a sequence.

        Args:
            memory: the sequence that is attended to, (batch, keys, d_model).
            offset: position of its first token, for rope.
            lengths: not needed here, where a mask hides what is not real; other mixers sum the real tokens up.
            segments: of its tokens, (batch, keys), where rows are packed.

        Returns:
            Keys and values, each (batch, heads, keys, head_dim).
        """
        key = record(self, "key", self._apply_rope(self._split_heads(self.key(memory)), offset, segments))
        if self.smear is not None:
            key = record(self, "smeared_key", smear(key, self.smear[...], segments))
        value = record(self, "value", self._split_heads(self.value(memory)))
        return KeyValue(jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2))

    @jax.named_scope("attention")
    def __call__(
        self,
        x: Float[Array, "batch queries d_model"],
        memory: KeyValue,
        mask: AttentionMask,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch queries d_model"]:
        """
        Args:
            x: the sequence that attends, (batch, queries, d_model).
            memory: keys and values from :meth:`project`.
            mask: which keys each query may attend to.
            rngs: with a ``dropout`` stream, to drop attention weights; None in evaluation.

        Returns:
            What each query attended to, (batch, queries, d_model).

        Raises:
            UserError: the config names an attention backend that cannot serve the request.

        Example:
            >>> attention = MultiHeadAttention(ModelConfig(d_model=8), is_self_attention=True, rngs=nnx.Rngs(0))
            >>> x = jnp.ones((2, 5, 8))
            >>> attention(x, attention.project(x), AttentionMask(causal=True)).shape
            (2, 5, 8)
        """
        query = self._apply_rope(self._split_heads(self.query(x)), mask.query_offset, mask.query_segments)
        query = record(self, "query", query)
        key, value = jnp.swapaxes(memory.key, 1, 2), jnp.swapaxes(memory.value, 1, 2)
        drops_weights = rngs is not None and self.config.attention_dropout > 0
        match choose_backend(self.config.attention_backend, query, key, mask, drops_weights):
            case "cudnn":
                heads = cudnn_attention(query, key, value, mask, self.scale)
            case "flash":
                heads = flash_attention(query, key, value, mask, self.scale)
            case "blockwise":
                dropped = (
                    WeightDropout(rngs.dropout(), self.dropout.rate) if rngs is not None and drops_weights else None
                )
                heads = blockwise_attention(query, key, value, mask, self.scale, dropped)
            case _:
                attend = functools.partial(
                    plain_attention,
                    scale=self.scale,
                    on_weights=lambda weights: self.dropout(record(self, "weights", weights), rngs),
                )
                heads = attend_to_filled(attend, query, key, value, mask)
        heads = record(self, "heads", heads)
        return self.output(heads.reshape(*x.shape[:2], -1))

    def mix(
        self,
        x: Float[Array, "batch length d_model"],
        mask: AttentionMask,
        rngs: nnx.Rngs | None = None,
        cache: KeyValue | None = None,
    ) -> tuple[Float[Array, "batch length d_model"], KeyValue]:
        """Self-attention.

        Args:
            x: a sequence, or its next tokens, (batch, length, d_model).
            mask: its offset is the position of the first token of ``x``.
            rngs: with a ``dropout`` stream; None in evaluation.
            cache: keys and values of the tokens before ``x``, with room for those of ``x``.

        Returns:
            The output, (batch, length, d_model), and keys and values: the cache with those of ``x`` written in.
        """
        keys = self.project(x, mask.query_offset, segments=mask.key_segments)
        if cache is not None:
            keys = write_cache(cache, keys, mask.query_offset)
        return self(x, keys, mask, rngs=rngs), keys

    def empty_cache(self, batch: int, length: int) -> KeyValue:
        """Room for the keys and values of ``length`` tokens, in ``config.dtype``."""
        shape = (batch, self.config.num_heads, length, self.config.head_dim)
        empty = jnp.zeros(shape, jnp.dtype(self.config.dtype))
        return KeyValue(empty, empty)


def write_cache(cache: KeyValue, new: KeyValue, offset: int | Int[Array, ""]) -> KeyValue:
    """The cache with ``new`` written at ``offset``; the caller makes sure that it fits."""
    return jax.tree.map(lambda old, entry: jax.lax.dynamic_update_slice_in_dim(old, entry, offset, axis=2), cache, new)
