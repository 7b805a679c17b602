"""Encoder and decoder layers and stacks (Vaswani et al., 2017, section 3.1), post-LN or pre-LN."""

from collections.abc import Callable, Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from flax_transformer.config import ModelConfig
from flax_transformer.intermediates import record
from torch_reference.nn.attention import KeyValue, MultiHeadAttention
from torch_reference.nn.dropout import Dropout
from torch_reference.nn.linear import Linear, layer_norm
from torch_reference.nn.masks import AttentionMask

Sequences = Float[Tensor, "batch length d_model"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": lambda x: functional.gelu(x, approximate="none"),
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


class FeedForward(nn.Module):
    """``W_2 dropout(activation(W_1 x))``, at each position alike (section 3.3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up_proj = Linear(config.d_model, config.d_ff, config)
        self.down_proj = Linear(config.d_ff, config.d_model, config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Sequences) -> Sequences:
        hidden = record(self, "hidden", ACTIVATIONS[self.activation](self.up_proj(x)))
        return self.down_proj(self.dropout(hidden))


class Residual(nn.Module):
    """A sublayer's surroundings: ``norm(x + dropout(f(x)))`` in post-LN, ``x + dropout(f(norm(x)))`` in pre-LN."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.norm = layer_norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Sequences, sublayer: Callable[[Tensor], Tensor]) -> Sequences:
        if self.norm_first:
            added = sublayer(self.norm(x))
            return record(self, "output", x + self.dropout(added).to(x.dtype))
        added = sublayer(x)
        return record(self, "output", self.norm(x + self.dropout(added).to(x.dtype)))


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each within its :class:`Residual`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(config, is_self_attention=True)
        self.self_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Sequences, mask: AttentionMask) -> Sequences:
        def attend(x: Tensor) -> Tensor:
            return self.self_attention(x, self.self_attention.project(x), mask)

        x = self.self_attention_residual(x, attend)
        return self.feed_forward_residual(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the memory, then feed-forward, each within its :class:`Residual`."""

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
        """One layer over the whole target, or over its next tokens given a cache of the earlier ones.

        Returns:
            The output, and the keys and values of self-attention with those of ``x`` written in.
        """
        written: list[KeyValue] = []

        def attend(x: Tensor) -> Tensor:
            new = self.self_attention.project(x, mask.query_offset)
            written.append(new if cache is None else write_cache(cache, new, mask.query_offset))
            return self.self_attention(x, written[0], mask)

        x = self.self_attention_residual(x, attend)
        x = self.cross_attention_residual(x, lambda x: self.cross_attention(x, memory, memory_mask))
        x = self.feed_forward_residual(x, self.feed_forward)
        return x, written[0]


def write_cache(cache: KeyValue, new: KeyValue, offset: int) -> KeyValue:
    """The cache with ``new`` written at ``offset``, in place; the caller sees to it that it fits."""
    for old, entry in zip(cache, new, strict=True):
        old[:, :, offset : offset + entry.shape[2]] = entry
    return cache


class Encoder(nn.Module):
    """A stack of encoder layers, and a last norm if the config asks for one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_encoder_layers)])
        self.norm = layer_norm(config) if config.final_norm else None

    def forward(self, x: Sequences, mask: AttentionMask) -> Sequences:
        for layer in self.layers:
            x = layer(x, mask)
        return x if self.norm is None else self.norm(x)


class Decoder(nn.Module):
    """A stack of decoder layers, and a last norm if the config asks for one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.num_decoder_layers)])
        self.norm = layer_norm(config) if config.final_norm else None

    def project_memory(self, memory: Sequences) -> list[KeyValue]:
        """Each layer's keys and values of the memory: computed once for a source, whatever the number of new tokens."""
        layers = cast(Sequence[DecoderLayer], self.layers)
        return [layer.cross_attention.project(memory) for layer in layers]

    def forward(
        self,
        x: Sequences,
        memory: Sequence[KeyValue],
        mask: AttentionMask,
        memory_mask: AttentionMask,
        cache: Sequence[KeyValue] | None = None,
    ) -> tuple[Sequences, list[KeyValue]]:
        """The whole target, or its next tokens given each layer's cache. Returns the output and the written caches."""
        caches = cache or [None] * len(self.layers)
        written = []
        for layer, layer_memory, layer_cache in zip(self.layers, memory, caches, strict=True):
            x, layer_written = layer(x, layer_memory, mask, memory_mask, layer_cache)
            written.append(layer_written)
        return (x if self.norm is None else self.norm(x)), written
