"""Scaled dot-product attention and its multi-head layer (Vaswani et al., 2017, section 3.2)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flax_transformer.config import ModelConfig
from flax_transformer.intermediates import record
from torch_reference.dtypes import compute_dtype, param_dtype
from torch_reference.nn.dropout import Dropout
from torch_reference.nn.kernels import choose_backend, fused_attention
from torch_reference.nn.linear import Linear
from torch_reference.nn.masks import AttentionMask
from torch_reference.nn.positions import apply_rope
from torch_reference.nn.segments import segment_positions, starts_segment


class KeyValue(NamedTuple):
    """Projected keys and values: of the memory, or of the tokens decoded so far.

    Heads come first, as matrix products read them: otherwise each new token would transpose the whole of both again.
    """

    key: Float[Tensor, "batch heads keys head_dim"]
    value: Float[Tensor, "batch heads keys head_dim"]


def attention_weights(
    query: Float[Tensor, "batch queries heads head_dim"],
    key: Float[Tensor, "batch keys heads head_dim"],
    mask: AttentionMask,
    scale: float | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """``softmax(scale q k^T + bias)`` over the keys that the mask allows, in at least float32.

    A query that may attend to no key has zero weights, and finite gradients. The scale is ``1 / sqrt(head_dim)`` if not
    given; the bias is that of the mask.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, key = query.transpose(1, 2).to(dtype), key.transpose(1, 2).to(dtype)  # (batch, heads, length, head_dim)
    scores = torch.matmul(query, key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask.bias is not None:
        scores = scores + mask.bias.to(dtype)
    allowed = mask.materialize(scores.shape[-2], scores.shape[-1], scores.device)
    if allowed is None:
        return torch.softmax(scores, dim=-1)
    weights = torch.softmax(torch.where(allowed, scores, torch.finfo(dtype).min), dim=-1)
    return torch.where(allowed, weights, 0)


def plain_attention(
    query: Float[Tensor, "batch queries heads head_dim"],
    key: Float[Tensor, "batch keys heads head_dim"],
    value: Float[Tensor, "batch keys heads head_dim"],
    mask: AttentionMask,
    scale: float | None = None,
    on_weights: Callable[[Tensor], Tensor] = lambda weights: weights,
) -> Float[Tensor, "batch queries heads head_dim"]:
    """Attention with its weights written out; ``on_weights`` may drop some of them."""
    weights = on_weights(attention_weights(query, key, mask, scale)).to(value.dtype)
    return torch.matmul(weights, value.transpose(1, 2)).transpose(1, 2)


def smear(
    key: Float[Tensor, "batch keys heads head_dim"],
    share: Float[Tensor, " heads"],
    segments: Int[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch keys heads head_dim"]:
    """``s k_j + (1 - s) k_(j-1)`` with ``s = sigmoid(share)`` of each head; zeros stand before the first key.

    Of packed rows, zeros stand before the first key of each segment.

    A query that looks for the token it is at then finds the place behind it, in one layer: what copying takes (Olsson
    et al., 2022, "In-context Learning and Induction Heads", argument 2).
    """
    own = torch.sigmoid(share)[:, None]
    wide = key.to(torch.promote_types(key.dtype, torch.float32))
    before = nn.functional.pad(wide, (0, 0, 0, 0, 1, 0))[:, :-1]
    if segments is not None:
        before = torch.where(starts_segment(segments)[:, :, None, None], 0, before)
    # As one product: the share's gradient would else be the difference of two large sums.
    return (before + own * (wide - before)).to(key.dtype)


class HeadProjections(nn.Module):
    """The four linear maps of any attention: queries, keys, values, and the output of all heads.

    Args:
        config: gives d_model, num_heads and head_width.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.num_heads * config.head_dim
        # torch.nn.MultiheadAttention starts all its biases at zero.
        self.query = Linear(config.d_model, width, config, packed=True, zero_bias=True)
        self.key = Linear(config.d_model, width, config, packed=True, zero_bias=True)
        self.value = Linear(config.d_model, width, config, packed=True, zero_bias=True)
        self.output = Linear(width, config.d_model, config, zero_bias=True)

    def _split_heads(self, x: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length heads head_dim"]:
        return x.reshape(*x.shape[:2], self.config.num_heads, self.config.head_dim)


class MultiHeadAttention(HeadProjections):
    """``concat_h(softmax(q_h k_h^T / sqrt(head_dim)) v_h) W_o`` with q = x W_q, k = memory W_k, v = memory W_v.

    Keys and values are projected by :meth:`project` and passed in, so that a full pass, cached decoding and a memory
    that is projected once are the same code. torch.nn.MultiheadAttention packs W_q, W_k and W_v into one matrix.

    Args:
        config: gives d_model, num_heads, head_width, scale_attention, smeared_keys, attention_dropout and the backend.
        is_self_attention: queries and keys come from one sequence, so that rope applies; otherwise smeared_keys does.
    """

    def __init__(self, config: ModelConfig, *, is_self_attention: bool) -> None:
        super().__init__(config)
        self.backend = choose_backend(config.attention_backend)
        self.uses_rope = is_self_attention and config.positions == "rope"
        self.scale = config.head_dim**-0.5 if config.scale_attention else 1.0
        shares = torch.zeros(config.num_heads, dtype=param_dtype(config))
        is_smeared = config.smeared_keys and not is_self_attention
        self.smear = nn.Parameter(shares) if is_smeared else None
        self.dropout = Dropout(config.attention_dropout)

    def _apply_rope(self, x: Tensor, offset: int, segments: Int[Tensor, "batch length"] | None) -> Tensor:
        if not self.uses_rope:
            return x
        positions = None if segments is None else segment_positions(segments)
        return apply_rope(x, offset, self.config.max_length, positions)

    def project(
        self,
        memory: Float[Tensor, "batch keys d_model"],
        offset: int = 0,
        lengths: Int[Tensor, " batch"] | None = None,
        segments: Int[Tensor, "batch keys"] | None = None,
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
            key = record(self, "smeared_key", smear(key, self.smear, segments))
        value = record(self, "value", self._split_heads(self.value(memory)))
        return KeyValue(key.transpose(1, 2), value.transpose(1, 2))

    def forward(
        self, x: Float[Tensor, "batch queries d_model"], memory: KeyValue, mask: AttentionMask
    ) -> Float[Tensor, "batch queries d_model"]:
        """
        Args:
            x: the sequence that attends, (batch, queries, d_model).
            memory: keys and values from :meth:`project`.
            mask: which keys each query may attend to.

        Returns:
            What each query attended to, (batch, queries, d_model).

        Example:
            >>> attention = MultiHeadAttention(ModelConfig(d_model=8), is_self_attention=True)
            >>> x = torch.ones(2, 5, 8)
            >>> attention(x, attention.project(x), AttentionMask(causal=True)).shape
            torch.Size([2, 5, 8])
        """
        query = self._apply_rope(self._split_heads(self.query(x)), mask.query_offset, mask.query_segments)
        query = record(self, "query", query)
        key, value = memory.key.transpose(1, 2), memory.value.transpose(1, 2)
        if self.backend == "auto":
            drop_rate = self.config.attention_dropout if self.training else 0.0
            heads = fused_attention(query, key, value, mask, self.scale, drop_rate)
        else:
            heads = plain_attention(
                query, key, value, mask, self.scale, lambda weights: self.dropout(record(self, "weights", weights))
            )
        heads = record(self, "heads", heads)
        return self.output(heads.reshape(*x.shape[:2], -1))

    def mix(
        self, x: Float[Tensor, "batch length d_model"], mask: AttentionMask, cache: KeyValue | None = None
    ) -> tuple[Float[Tensor, "batch length d_model"], KeyValue]:
        """Self-attention.

        Args:
            x: a sequence, or its next tokens, (batch, length, d_model).
            mask: its offset is the position of the first token of ``x``.
            cache: keys and values of the tokens before ``x``, with room for those of ``x``.

        Returns:
            The output, (batch, length, d_model), and keys and values: the cache with those of ``x`` written in.
        """
        keys = self.project(x, mask.query_offset, segments=mask.key_segments)
        if cache is not None:
            keys = write_cache(cache, keys, mask.query_offset)
        return self(x, keys, mask), keys

    def empty_cache(self, batch: int, length: int) -> KeyValue:
        """Room for the keys and values of ``length`` tokens, in ``config.dtype``."""
        shape = (batch, self.config.num_heads, length, self.config.head_dim)

        def empty() -> Tensor:
            return torch.zeros(shape, dtype=compute_dtype(self.config), device=self.query.weight.device)

        return KeyValue(empty(), empty())


def write_cache(cache: KeyValue, new: KeyValue, offset: int) -> KeyValue:
    """The cache with ``new`` written at ``offset``, in place; the caller makes sure that it fits."""
    for old, entry in zip(cache, new, strict=True):
        old[:, :, offset : offset + entry.shape[2]] = entry
    return cache
