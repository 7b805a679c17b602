"""Encoder and decoder layers and stacks (Vaswani et al., 2017, section 3.1), post-LN or pre-LN."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from flax_transformer.config import ModelConfig
from flax_transformer.intermediates import record
from torch_reference.nn.attention import KeyValue, MultiHeadAttention
from torch_reference.nn.dropout import Dropout
from torch_reference.nn.linear import Linear, norm_layer
from torch_reference.nn.linear_attention import LinearAttention, LinearState
from torch_reference.nn.lstm import LSTM, LSTMState
from torch_reference.nn.masks import AttentionMask
from torch_reference.nn.positions import RelativeBias

Sequences = Float[Tensor, "batch length d_model"]
# What a decoder layer keeps of the memory, and of the tokens decoded so far. Each tensor begins with the rows.
Memory = KeyValue | LinearState
Cache = KeyValue | LinearState | LSTMState

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


def self_mixer(config: ModelConfig, *, two_sided: bool) -> Any:
    """What mixes the tokens of one sequence; it takes back only a cache that it gave.

    Its place in a layer is called self-attention, whatever it is, so that its weights keep their names.
    """
    if config.mixer == "linear":
        return LinearAttention(config)
    if config.mixer == "lstm":
        return LSTM(config, two_sided=two_sided)
    return MultiHeadAttention(config, is_self_attention=True)


def cross_mixer(config: ModelConfig) -> Any:
    """What lets a target read the memory."""
    if config.mixer == "linear":
        return LinearAttention(config)
    return MultiHeadAttention(config, is_self_attention=False)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with its :class:`Residual`.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = self_mixer(config, two_sided=True)
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
        h, _ = self.self_attention.mix(h, mask)
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
        self.self_attention = self_mixer(config, two_sided=False)
        self.self_attention_residual = Residual(config)
        self.cross_attention = cross_mixer(config)
        self.cross_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        x: Sequences,
        memory: Memory,
        mask: AttentionMask,
        memory_mask: AttentionMask,
        cache: Cache | None = None,
    ) -> tuple[Sequences, Cache]:
        """The whole target, or its next tokens given a cache of the earlier ones.

        Args:
            x: (batch, length, d_model).
            memory: from ``cross_attention.project``.
            mask: of self-attention; its offset is the position of the first token of ``x``.
            memory_mask: of cross-attention.
            cache: of the tokens before ``x``, with room for those of ``x``.

        Returns:
            The output, (batch, length, d_model), and the cache of self-attention with the tokens of ``x``.

        Example:
            >>> layer = DecoderLayer(ModelConfig(d_model=8, d_ff=16))
            >>> x = torch.ones(2, 5, 8)
            >>> layer(x, layer.cross_attention.project(x), AttentionMask(causal=True), AttentionMask())[0].shape
            torch.Size([2, 5, 8])
        """
        h = self.self_attention_residual.prepare(x)
        h, cache = self.self_attention.mix(h, mask, cache)
        assert cache is not None  # as of an LSTM that reads from both sides
        x = self.self_attention_residual.add(x, h)

        h = self.cross_attention_residual.prepare(x)
        x = self.cross_attention_residual.add(x, self.cross_attention(h, memory, memory_mask))

        h = self.feed_forward_residual.prepare(x)
        return self.feed_forward_residual.add(x, self.feed_forward(h)), cache


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
        config = config.encoder_config
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
        lengths, segments = memory_mask.key_lengths, memory_mask.key_segments
        for layer in cast(Sequence[DecoderLayer], self.layers):
            projected = layer.cross_attention.project(memory, lengths=lengths, segments=segments)
            x, _ = layer(x, projected, mask, memory_mask)
        return x if self.norm is None else self.norm(x)

    def project_memory(
        self, memory: Float[Tensor, "batch source d_model"], lengths: Int[Tensor, " batch"] | None = None
    ) -> list[Memory]:
        """Each layer's keys and values of the memory, or sums over them: computed once, however much is decoded.

        Args:
            memory: output of the encoder, (batch, source, d_model).
            lengths: its real tokens, (batch,); None if all are real.
        """
        layers = cast(Sequence[DecoderLayer], self.layers)
        return [layer.cross_attention.project(memory, lengths=lengths) for layer in layers]

    def step(
        self,
        x: Sequences,
        memory: Sequence[Memory],
        mask: AttentionMask,
        memory_mask: AttentionMask,
        cache: Sequence[Cache] | None = None,
    ) -> tuple[Sequences, list[Cache]]:
        """The next tokens, as in decoding.

        Args:
            x: embedded next tokens, (batch, length, d_model).
            memory: from :meth:`project_memory`.
            mask: of self-attention, causal; its offset is the position of the first token of ``x``.
            memory_mask: of cross-attention.
            cache: each layer's, of the tokens before ``x``; None if there are none.

        Returns:
            The output, (batch, length, d_model), and each layer's cache with the tokens of ``x``.
        """
        keys = cache[0].key.shape[2] if cache and isinstance(cache[0], KeyValue) else x.shape[1]
        mask = _with_bias(mask, self.relative_bias, x.shape[1], keys)
        caches = []
        for layer, layer_memory, layer_cache in zip(
            self.layers, memory, cache or [None] * len(self.layers), strict=True
        ):
            x, layer_cache = layer(x, layer_memory, mask, memory_mask, layer_cache)
            caches.append(layer_cache)
        return (x if self.norm is None else self.norm(x)), caches
