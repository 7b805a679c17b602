"""Encoder and decoder layers and stacks (Vaswani et al., 2017, section 3.1), post-LN or pre-LN."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from flax_transformer.config import ModelConfig
from flax_transformer.intermediates import record
from torch_reference.nn.attention import KeyValue, MultiHeadAttention
from torch_reference.nn.dropout import Dropout
from torch_reference.nn.linear import Linear, norm_layer
from torch_reference.nn.masks import AttentionMask
from torch_reference.nn.positions import RelativeBias

Sequences = Float[Tensor, "batch length d_model"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": lambda x: functional.gelu(x, approximate="none"),
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
}


class FeedForward(nn.Module):
    """``W_2 dropout(activation(W_1 x))``, at each position alike (section 3.3).

    Gated, ``W_2 dropout(activation(V x) * W_1 x)`` (Shazeer, 2020).

    Args:
        config: gives d_model, d_ff, activation, gated and the rate of dropout.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.gated = config.gated
        self.up_proj = Linear(config.d_model, config.d_ff, config)
        if config.gated:
            self.gate_proj = Linear(config.d_model, config.d_ff, config)
        self.down_proj = Linear(config.d_ff, config.d_model, config)
        self.dropout = Dropout(config.dropout if config.feed_forward_dropout is None else config.feed_forward_dropout)

    def forward(self, x: Sequences) -> Sequences:
        """
        Args:
            x: (batch, length, d_model).

        Returns:
            (batch, length, d_model).

        Example:
            >>> FeedForward(ModelConfig(d_model=8, d_ff=16))(torch.ones(2, 5, 8)).shape
            torch.Size([2, 5, 8])
        """
        activation = ACTIVATIONS[self.activation]
        hidden = activation(self.gate_proj(x)) * self.up_proj(x) if self.gated else activation(self.up_proj(x))
        hidden = record(self, "hidden", hidden)
        return self.down_proj(self.dropout(hidden))


class Residual(nn.Module):
    """The norm, the dropout and the addition around a sublayer ``f``::

        x = residual.add(x, f(residual.prepare(x)))

    is ``norm(x + dropout(f(x)))`` in post-LN and ``x + dropout(f(norm(x)))`` in pre-LN (Xiong et al., 2020, figure 1).

    Args:
        config: gives d_model, norm_first, norm_eps and dropout.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.norm = norm_layer(config)
        self.dropout = Dropout(config.dropout)

    def prepare(self, x: Sequences) -> Sequences:
        """The input of the sublayer, (batch, length, d_model)."""
        return self.norm(x) if self.norm_first else x

    def add(self, x: Sequences, output: Sequences) -> Sequences:
        """The sublayer's ``output`` added to ``x``, (batch, length, d_model), in the dtype of ``x``."""
        x = x + self.dropout(output).to(x.dtype)
        x = x if self.norm_first else self.norm(x)
        return record(self, "output", x)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with its :class:`Residual`.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config, is_self_attention=True)
        self.self_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Sequences, mask: AttentionMask) -> Sequences:
        """
        Args:
            x: (batch, length, d_model).
            mask: which tokens may be attended to.

        Returns:
            (batch, length, d_model).

        Example:
            >>> EncoderLayer(ModelConfig(d_model=8, d_ff=16))(torch.ones(2, 5, 8), AttentionMask()).shape
            torch.Size([2, 5, 8])
        """
        h = self.self_attention_residual.prepare(x)
        h = self.self_attention(h, self.self_attention.project(h, segments=mask.key_segments), mask)
        x = self.self_attention_residual.add(x, h)

        h = self.feed_forward_residual.prepare(x)
        return self.feed_forward_residual.add(x, self.feed_forward(h))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the memory, then feed-forward, each with its :class:`Residual`.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config, is_self_attention=True)
        self.self_attention_residual = Residual(config)
        self.cross_attention = MultiHeadAttention(config, is_self_attention=False)
        self.cross_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        x: Sequences,
        memory: KeyValue,
        mask: AttentionMask,
        memory_mask: AttentionMask,
        cache: KeyValue | None = None,
    ) -> tuple[Sequences, KeyValue]:
        """The whole target, or its next tokens given a cache of the earlier ones.

        Args:
            x: (batch, length, d_model).
            memory: from ``cross_attention.project``.
            mask: of self-attention; its offset is the position of the first token of ``x``.
            memory_mask: of cross-attention.
            cache: keys and values of the tokens before ``x``, with room for those of ``x``.

        Returns:
            The output, (batch, length, d_model), and the keys and values of self-attention: the cache with those of
            ``x`` written in.

        Example:
            >>> layer = DecoderLayer(ModelConfig(d_model=8, d_ff=16))
            >>> x = torch.ones(2, 5, 8)
            >>> layer(x, layer.cross_attention.project(x), AttentionMask(causal=True), AttentionMask())[0].shape
            torch.Size([2, 5, 8])
        """
        h = self.self_attention_residual.prepare(x)
        keys = self.self_attention.project(h, mask.query_offset, mask.key_segments)
        if cache is not None:
            keys = write_cache(cache, keys, mask.query_offset)
        x = self.self_attention_residual.add(x, self.self_attention(h, keys, mask))

        h = self.cross_attention_residual.prepare(x)
        x = self.cross_attention_residual.add(x, self.cross_attention(h, memory, memory_mask))

        h = self.feed_forward_residual.prepare(x)
        return self.feed_forward_residual.add(x, self.feed_forward(h)), keys


def write_cache(cache: KeyValue, new: KeyValue, offset: int) -> KeyValue:
    """The cache with ``new`` written at ``offset``, in place; the caller makes sure that it fits."""
    for old, entry in zip(cache, new, strict=True):
        old[:, :, offset : offset + entry.shape[2]] = entry
    return cache


def _with_bias(mask: AttentionMask, bias: RelativeBias | None, queries: int, keys: int) -> AttentionMask:
    """The mask of a stack's self-attention with the bias that all its layers share, where the stack has one."""
    return mask if bias is None else replace(mask, bias=bias(queries, keys, mask.query_offset))


class Encoder(nn.Module):
    """A stack of encoder layers, and a last norm if the config asks for one.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_encoder_layers)])
        self.norm = norm_layer(config) if config.final_norm else None
        self.relative_bias = RelativeBias(config, two_sided=True) if config.relative_buckets else None

    def forward(self, x: Sequences, mask: AttentionMask) -> Sequences:
        """
        Args:
            x: embedded tokens, (batch, length, d_model).
            mask: which tokens may be attended to.

        Returns:
            The memory, (batch, length, d_model).

        Example:
            >>> encoder = Encoder(ModelConfig(d_model=8, d_ff=16, num_encoder_layers=1))
            >>> encoder(torch.ones(2, 5, 8), AttentionMask()).shape
            torch.Size([2, 5, 8])
        """
        mask = _with_bias(mask, self.relative_bias, x.shape[1], x.shape[1])
        for layer in self.layers:
            x = layer(x, mask)
        return x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    """A stack of decoder layers, and a last norm if the config asks for one.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.num_decoder_layers)])
        self.norm = norm_layer(config) if config.final_norm else None
        self.relative_bias = RelativeBias(config, two_sided=False) if config.relative_buckets else None

    def forward(
        self,
        x: Sequences,
        memory: Float[Tensor, "batch source d_model"],
        mask: AttentionMask,
        memory_mask: AttentionMask,
    ) -> Sequences:
        """The whole target at once, as in training; each layer projects the memory itself.

        Args:
            x: embedded target, (batch, length, d_model).
            memory: output of the encoder, (batch, source, d_model).
            mask: of self-attention, causal.
            memory_mask: of cross-attention.

        Returns:
            (batch, length, d_model).

        Example:
            >>> decoder = Decoder(ModelConfig(d_model=8, d_ff=16, num_decoder_layers=1))
            >>> x = torch.ones(2, 5, 8)
            >>> decoder(x, x, AttentionMask(causal=True), AttentionMask()).shape
            torch.Size([2, 5, 8])
        """
        mask = _with_bias(mask, self.relative_bias, x.shape[1], x.shape[1])
        for layer in cast(Sequence[DecoderLayer], self.layers):
            projected = layer.cross_attention.project(memory, segments=memory_mask.key_segments)
            x, _ = layer(x, projected, mask, memory_mask)
        return x if self.norm is None else self.norm(x)

    def project_memory(self, memory: Float[Tensor, "batch source d_model"]) -> list[KeyValue]:
        """Each layer's keys and values of the memory: computed once, however many tokens are decoded."""
        layers = cast(Sequence[DecoderLayer], self.layers)
        return [layer.cross_attention.project(memory) for layer in layers]

    def step(
        self,
        x: Sequences,
        memory: Sequence[KeyValue],
        mask: AttentionMask,
        memory_mask: AttentionMask,
        cache: Sequence[KeyValue] | None = None,
    ) -> tuple[Sequences, list[KeyValue]]:
        """The next tokens, as in decoding.

        Args:
            x: embedded next tokens, (batch, length, d_model).
            memory: from :meth:`project_memory`.
            mask: of self-attention, causal; its offset is the position of the first token of ``x``.
            memory_mask: of cross-attention.
            cache: each layer's keys and values of the tokens before ``x``; None if there are none.

        Returns:
            The output, (batch, length, d_model), and each layer's cache with the tokens of ``x`` written in.
        """
        keys = cache[0].key.shape[2] if cache else x.shape[1]
        mask = _with_bias(mask, self.relative_bias, x.shape[1], keys)
        caches = []
        for layer, layer_memory, layer_cache in zip(
            self.layers, memory, cache or [None] * len(self.layers), strict=True
        ):
            x, layer_cache = layer(x, layer_memory, mask, memory_mask, layer_cache)
            caches.append(layer_cache)
        return (x if self.norm is None else self.norm(x)), caches
