"""Encoder and decoder layers and stacks (Vaswani et al., 2017, section 3.1), post-LN or pre-LN."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import ModelConfig
from flax_transformer.distributed.mesh import constrain
from flax_transformer.intermediates import record
from flax_transformer.nn.attention import KeyValue, MultiHeadAttention
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.kernels.backends import takes_blocks
from flax_transformer.nn.kernels.scan import apply_layers, create_layers
from flax_transformer.nn.linear import Linear, norm_layer
from flax_transformer.nn.linear_attention import LinearAttention, LinearState
from flax_transformer.nn.lstm import LSTM, LSTMState
from flax_transformer.nn.masks import AttentionMask
from flax_transformer.nn.positions import RelativeBias

Sequences = Float[Array, "batch length d_model"]
# What a decoder layer keeps of the memory, and of the tokens decoded so far. Each leaf begins with the rows.
Memory = KeyValue | LinearState
Cache = KeyValue | LinearState | LSTMState

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
    "tanh": jax.numpy.tanh,
}


class FeedForward(nnx.Module):
    """``W_2 dropout(activation(W_1 x))``, at each position alike (section 3.3).

    Gated, ``W_2 dropout(activation(V x) * W_1 x)`` (Shazeer, 2020).

    Args:
        config: gives d_model, d_ff, activation, gated and the rate of dropout.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.activation = config.activation
        self.gated = config.gated
        self.up_proj = Linear(config.d_model, config.d_ff, config, axes=("embed", "hidden"), rngs=rngs)
        if config.gated:
            self.gate_proj = Linear(config.d_model, config.d_ff, config, axes=("embed", "hidden"), rngs=rngs)
        self.down_proj = Linear(config.d_ff, config.d_model, config, axes=("hidden", "embed"), rngs=rngs)
        self.dropout = Dropout(config.dropout if config.feed_forward_dropout is None else config.feed_forward_dropout)

    @jax.named_scope("feed_forward")
    def __call__(self, x: Sequences, rngs: nnx.Rngs | None = None) -> Sequences:
        """
        Args:
            x: (batch, length, d_model).
            rngs: with a ``dropout`` stream; None in evaluation.

        Returns:
            (batch, length, d_model).

        Example:
            >>> FeedForward(ModelConfig(d_model=8, d_ff=16), rngs=nnx.Rngs(0))(jax.numpy.ones((2, 5, 8))).shape
            (2, 5, 8)
        """
        activation = ACTIVATIONS[self.activation]
        hidden = activation(self.gate_proj(x)) * self.up_proj(x) if self.gated else activation(self.up_proj(x))
        hidden = record(self, "hidden", hidden)
        return self.down_proj(self.dropout(hidden, rngs))


class Residual(nnx.Module):
    """The norm, the dropout and the addition around a sublayer ``f``::

        x = residual.add(x, f(residual.prepare(x)), rngs)

    is ``norm(x + dropout(f(x)))`` in post-LN and ``x + dropout(f(norm(x)))`` in pre-LN (Xiong et al., 2020, figure 1).

    Args:
        config: gives d_model, norm_first, norm_eps and dropout.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.norm_first = config.norm_first
        self.norm = norm_layer(config, rngs=rngs)
        self.dropout = Dropout(config.dropout)

    def prepare(self, x: Sequences) -> Sequences:
        """The input of the sublayer, (batch, length, d_model)."""
        return self.norm(x) if self.norm_first else x

    def add(self, x: Sequences, output: Sequences, rngs: nnx.Rngs | None = None) -> Sequences:
        """The sublayer's ``output`` added to ``x``, (batch, length, d_model), in the dtype of ``x``."""
        x = x + self.dropout(output, rngs).astype(x.dtype)
        x = x if self.norm_first else self.norm(x)
        return record(self, "output", constrain(x, "batch", None, None))


def self_mixer(config: ModelConfig, *, two_sided: bool, rngs: nnx.Rngs) -> Any:
    """What mixes the tokens of one sequence; it takes back only a cache that it gave.

    Its place in a layer is called self-attention, whatever it is, so that its weights keep their names.
    """
    if config.mixer == "linear":
        return LinearAttention(config, rngs=rngs)
    if config.mixer == "lstm":
        return LSTM(config, two_sided=two_sided, rngs=rngs)
    return MultiHeadAttention(config, is_self_attention=True, rngs=rngs)


def cross_mixer(config: ModelConfig, *, rngs: nnx.Rngs) -> Any:
    """What lets a target read the memory."""
    if config.mixer == "linear":
        return LinearAttention(config, rngs=rngs)
    return MultiHeadAttention(config, is_self_attention=False, rngs=rngs)


class EncoderLayer(nnx.Module):
    """Self-attention, then feed-forward, each with its :class:`Residual`.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.self_attention = self_mixer(config, two_sided=True, rngs=rngs)
        self.self_attention_residual = Residual(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.feed_forward_residual = Residual(config, rngs=rngs)

    @jax.named_scope("encoder_layer")
    def __call__(self, x: Sequences, mask: AttentionMask, rngs: nnx.Rngs | None = None) -> Sequences:
        """
        Args:
            x: (batch, length, d_model).
            mask: which tokens may be attended to.
            rngs: with a ``dropout`` stream; None in evaluation.

        Returns:
            (batch, length, d_model).

        Example:
            >>> layer = EncoderLayer(ModelConfig(d_model=8, d_ff=16), rngs=nnx.Rngs(0))
            >>> layer(jax.numpy.ones((2, 5, 8)), AttentionMask()).shape
            (2, 5, 8)
        """
        h = self.self_attention_residual.prepare(x)
        h, _ = self.self_attention.mix(h, mask, rngs)
        x = self.self_attention_residual.add(x, h, rngs)

        h = self.feed_forward_residual.prepare(x)
        return self.feed_forward_residual.add(x, self.feed_forward(h, rngs), rngs)


class DecoderLayer(nnx.Module):
    """Causal self-attention, attention to the memory, then feed-forward, each with its :class:`Residual`.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.self_attention = self_mixer(config, two_sided=False, rngs=rngs)
        self.self_attention_residual = Residual(config, rngs=rngs)
        self.cross_attention = cross_mixer(config, rngs=rngs)
        self.cross_attention_residual = Residual(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.feed_forward_residual = Residual(config, rngs=rngs)

    @jax.named_scope("decoder_layer")
    def __call__(
        self,
        x: Sequences,
        memory: Memory,
        mask: AttentionMask,
        memory_mask: AttentionMask,
        rngs: nnx.Rngs | None = None,
        cache: Cache | None = None,
    ) -> tuple[Sequences, Cache]:
        """The whole target, or its next tokens given a cache of the earlier ones.

        Args:
            x: (batch, length, d_model).
            memory: from ``cross_attention.project``.
            mask: of self-attention; its offset is the position of the first token of ``x``.
            memory_mask: of cross-attention.
            rngs: with a ``dropout`` stream; None in evaluation.
            cache: of the tokens before ``x``, with room for those of ``x``.

        Returns:
            The output, (batch, length, d_model), and the cache of self-attention with the tokens of ``x``.

        Example:
            >>> layer = DecoderLayer(ModelConfig(d_model=8, d_ff=16), rngs=nnx.Rngs(0))
            >>> x = jax.numpy.ones((2, 5, 8))
            >>> memory = layer.cross_attention.project(x)
            >>> layer(x, memory, AttentionMask(causal=True), AttentionMask())[0].shape
            (2, 5, 8)
        """
        h = self.self_attention_residual.prepare(x)
        h, cache = self.self_attention.mix(h, mask, rngs, cache)
        assert cache is not None  # as of an LSTM that reads from both sides
        x = self.self_attention_residual.add(x, h, rngs)

        h = self.cross_attention_residual.prepare(x)
        x = self.cross_attention_residual.add(x, self.cross_attention(h, memory, memory_mask, rngs=rngs), rngs)

        h = self.feed_forward_residual.prepare(x)
        return self.feed_forward_residual.add(x, self.feed_forward(h, rngs), rngs), cache


def _with_bias(
    mask: AttentionMask, bias: RelativeBias | None, queries: int, keys: int, config: ModelConfig
) -> AttentionMask:
    """The mask of a stack's self-attention with the bias that all its layers share, where the stack has one."""
    if bias is None:
        return mask
    compute = bias.by_distance if takes_blocks(config.attention_backend, queries, keys) else bias
    return replace(mask, bias=compute(queries, keys, mask.query_offset))


class Encoder(nnx.Module):
    """A stack of encoder layers, and a last norm if the config asks for one.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config = config.encoder_config
        self.layers = create_layers(EncoderLayer, config, config.num_encoder_layers, rngs)
        self.norm = norm_layer(config, rngs=rngs) if config.final_norm else None
        self.relative_bias = RelativeBias(config, two_sided=True, rngs=rngs) if config.relative_buckets else None

    @jax.named_scope("encoder")
    def __call__(self, x: Sequences, mask: AttentionMask, rngs: nnx.Rngs | None = None) -> Sequences:
        """
        Args:
            x: embedded tokens, (batch, length, d_model).
            mask: which tokens may be attended to.
            rngs: with a ``dropout`` stream; None in evaluation.

        Returns:
            The memory, (batch, length, d_model).

        Example:
            >>> encoder = Encoder(ModelConfig(d_model=8, d_ff=16, num_encoder_layers=1), rngs=nnx.Rngs(0))
            >>> encoder(jax.numpy.ones((2, 5, 8)), AttentionMask()).shape
            (2, 5, 8)
        """
        mask = _with_bias(mask, self.relative_bias, x.shape[1], x.shape[1], self.config)

        def apply(layer: EncoderLayer, x: Sequences, rngs: nnx.Rngs | None) -> Sequences:
            return layer(x, mask, rngs)

        x = apply_layers(apply, self.layers, x, self.config, rngs)
        return x if self.norm is None else self.norm(x)


class Decoder(nnx.Module):
    """A stack of decoder layers, and a last norm if the config asks for one.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.layers = create_layers(DecoderLayer, config, config.num_decoder_layers, rngs)
        self.norm = norm_layer(config, rngs=rngs) if config.final_norm else None
        self.relative_bias = RelativeBias(config, two_sided=False, rngs=rngs) if config.relative_buckets else None

    @jax.named_scope("decoder")
    def __call__(
        self,
        x: Sequences,
        memory: Float[Array, "batch source d_model"],
        mask: AttentionMask,
        memory_mask: AttentionMask,
        rngs: nnx.Rngs | None = None,
    ) -> Sequences:
        """The whole target at once, as in training; each layer projects the memory itself.

        Args:
            x: embedded target, (batch, length, d_model).
            memory: output of the encoder, (batch, source, d_model).
            mask: of self-attention, causal.
            memory_mask: of cross-attention.
            rngs: with a ``dropout`` stream; None in evaluation.

        Returns:
            (batch, length, d_model).

        Example:
            >>> decoder = Decoder(ModelConfig(d_model=8, d_ff=16, num_decoder_layers=1), rngs=nnx.Rngs(0))
            >>> x = jax.numpy.ones((2, 5, 8))
            >>> decoder(x, x, AttentionMask(causal=True), AttentionMask()).shape
            (2, 5, 8)
        """
        mask = _with_bias(mask, self.relative_bias, x.shape[1], x.shape[1], self.config)

        def apply(layer: DecoderLayer, x: Sequences, rngs: nnx.Rngs | None) -> Sequences:
            lengths, segments = memory_mask.key_lengths, memory_mask.key_segments
            projected = layer.cross_attention.project(memory, lengths=lengths, segments=segments)
            return layer(x, projected, mask, memory_mask, rngs)[0]

        x = apply_layers(apply, self.layers, x, self.config, rngs)
        return x if self.norm is None else self.norm(x)

    def project_memory(
        self, memory: Float[Array, "batch source d_model"], lengths: Int[Array, " batch"] | None = None
    ) -> list[Memory]:
        """Each layer's keys and values of the memory, or sums over them: computed once, however much is decoded.

        Args:
            memory: output of the encoder, (batch, source, d_model).
            lengths: its real tokens, (batch,); None if all are real.
        """
        return [layer.cross_attention.project(memory, lengths=lengths) for layer in self.layers]

    @jax.named_scope("decoder_step")
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
        mask = _with_bias(mask, self.relative_bias, x.shape[1], keys, self.config)
        caches = []
        for layer, layer_memory, layer_cache in zip(
            self.layers, memory, cache or [None] * len(self.layers), strict=True
        ):
            x, layer_cache = layer(x, layer_memory, mask, memory_mask, None, layer_cache)
            caches.append(layer_cache)
        return (x if self.norm is None else self.norm(x)), caches
