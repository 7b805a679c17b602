"""Encoder and decoder layers and stacks (Vaswani et al., 2017, section 3.1), post-LN or pre-LN."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from flax import nnx
from jaxtyping import Array, Float

from flax_transformer.config import ModelConfig
from flax_transformer.distributed.mesh import constrain
from flax_transformer.intermediates import is_recording, record
from flax_transformer.nn.attention import KeyValue, MultiHeadAttention
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.kernels.flash import FLASH_OUTPUTS
from flax_transformer.nn.kernels.scan import Layers, create_layers, scan_layers
from flax_transformer.nn.linear import Linear, layer_norm
from flax_transformer.nn.masks import AttentionMask

Layer = TypeVar("Layer", bound=nnx.Module)
Sequences = Float[Array, "batch length d_model"]
# Projected by each decoder layer; or as it is.
Memory = Sequence[KeyValue] | Float[Array, "batch source d_model"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
}


class FeedForward(nnx.Module):
    """``W_2 dropout(activation(W_1 x))``, at each position alike (section 3.3)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.activation = config.activation
        self.up_proj = Linear(config.d_model, config.d_ff, config, axes=("embed", "hidden"), rngs=rngs)
        self.down_proj = Linear(config.d_ff, config.d_model, config, axes=("hidden", "embed"), rngs=rngs)
        self.dropout = Dropout(config.dropout)

    def __call__(self, x: Sequences, rngs: nnx.Rngs | None) -> Sequences:
        hidden = record(self, "hidden", ACTIVATIONS[self.activation](self.up_proj(x)))
        return self.down_proj(self.dropout(hidden, rngs))


class Residual(nnx.Module):
    """A sublayer's surroundings: ``norm(x + dropout(f(x)))`` in post-LN, ``x + dropout(f(norm(x)))`` in pre-LN."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.norm_first = config.norm_first
        self.norm = layer_norm(config, rngs=rngs)
        self.dropout = Dropout(config.dropout)

    def __call__(self, x: Sequences, sublayer: Callable[[Array], Array], rngs: nnx.Rngs | None) -> Sequences:
        if self.norm_first:
            added = sublayer(self.norm(x))
            return self._output(x + self.dropout(added, rngs).astype(x.dtype))
        added = sublayer(x)
        return self._output(self.norm(x + self.dropout(added, rngs).astype(x.dtype)))

    def _output(self, x: Sequences) -> Sequences:
        return record(self, "output", constrain(x, "batch", None, None))


class EncoderLayer(nnx.Module):
    """Self-attention, then feed-forward, each within its :class:`Residual`."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.self_attention = MultiHeadAttention(config, is_self_attention=True, rngs=rngs)
        self.self_attention_residual = Residual(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.feed_forward_residual = Residual(config, rngs=rngs)

    def __call__(self, x: Sequences, mask: AttentionMask, rngs: nnx.Rngs | None) -> Sequences:
        def attend(x: Array) -> Array:
            return self.self_attention(x, self.self_attention.project(x), mask, rngs=rngs)

        x = self.self_attention_residual(x, attend, rngs)
        return self.feed_forward_residual(x, lambda x: self.feed_forward(x, rngs), rngs)


class DecoderLayer(nnx.Module):
    """Causal self-attention, attention to the memory, then feed-forward, each within its :class:`Residual`."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.self_attention = MultiHeadAttention(config, is_self_attention=True, rngs=rngs)
        self.self_attention_residual = Residual(config, rngs=rngs)
        self.cross_attention = MultiHeadAttention(config, is_self_attention=False, rngs=rngs)
        self.cross_attention_residual = Residual(config, rngs=rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.feed_forward_residual = Residual(config, rngs=rngs)

    def __call__(
        self,
        x: Sequences,
        memory: KeyValue,
        mask: AttentionMask,
        memory_mask: AttentionMask,
        rngs: nnx.Rngs | None,
        cache: KeyValue | None = None,
    ) -> tuple[Sequences, KeyValue]:
        """One layer over the whole target, or over its next tokens given a cache of the earlier ones.

        Returns:
            The output, and the keys and values of self-attention with those of ``x`` written in.
        """
        written: list[KeyValue] = []

        def attend(x: Array) -> Array:
            new = self.self_attention.project(x, mask.query_offset)
            written.append(new if cache is None else write_cache(cache, new, mask.query_offset))
            return self.self_attention(x, written[0], mask, rngs=rngs)

        x = self.self_attention_residual(x, attend, rngs)
        x = self.cross_attention_residual(x, lambda x: self.cross_attention(x, memory, memory_mask, rngs=rngs), rngs)
        x = self.feed_forward_residual(x, lambda x: self.feed_forward(x, rngs), rngs)
        return x, written[0]


def write_cache(cache: KeyValue, new: KeyValue, offset: Array | int) -> KeyValue:
    """The cache with ``new`` written at ``offset``; the caller sees to it that it fits."""
    return jax.tree.map(lambda old, entry: jax.lax.dynamic_update_slice_in_dim(old, entry, offset, axis=2), cache, new)


# remat -> what of a layer is kept for the backward pass, beside its inputs.
_policies = jax.checkpoint_policies
_KEPT = {
    "dots": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names(FLASH_OUTPUTS)
    ),
    "full": _policies.nothing_saveable,
}


def apply_layers(
    apply: Callable[..., tuple[Sequences, Any]],
    layers: Layers[Layer],
    x: Sequences,
    config: ModelConfig,
    rngs: nnx.Rngs | None,
    *inputs: Any,
) -> tuple[Sequences, list[Any]]:
    """Hand ``x`` from layer to layer; unrolled or as a loop, with or without rematerialisation (Chen et al., 2016).

    Args:
        apply: one layer, given ``x``, ``rngs`` and its own one of each of ``inputs``.
        layers: one by one, or stacked.
        inputs: each with one for each layer, or None for all, as stacked layers must have it.

    Returns:
        The last layer's ``x``, and what each layer gave besides; of stacked layers, which only train, nothing.
    """
    if config.remat in _KEPT and not is_recording():
        # Forward and backward pass of stacked layers are two loops, between which XLA cannot merge anything anyway.
        apply = nnx.remat(apply, policy=_KEPT[config.remat], prevent_cse=isinstance(layers, Sequence))
    if not isinstance(layers, Sequence):
        return scan_layers(lambda layer, x, rngs: apply(layer, x, rngs, *inputs)[0], layers, x, rngs), []
    outputs = []
    for layer, *own in zip(layers, *(each or [None] * len(layers) for each in inputs), strict=True):
        x, output = apply(layer, x, rngs, *own)
        outputs.append(output)
    return x, outputs


class Encoder(nnx.Module):
    """A stack of encoder layers, and a last norm if the config asks for one."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.layers = create_layers(EncoderLayer, config, config.num_encoder_layers, rngs)
        self.norm = layer_norm(config, rngs=rngs) if config.final_norm else None

    def __call__(self, x: Sequences, mask: AttentionMask, rngs: nnx.Rngs | None = None) -> Sequences:
        def apply(layer: EncoderLayer, x: Sequences, rngs: nnx.Rngs | None) -> tuple[Sequences, None]:
            return layer(x, mask, rngs), None

        x, _ = apply_layers(apply, self.layers, x, self.config, rngs)
        return x if self.norm is None else self.norm(x)


class Decoder(nnx.Module):
    """A stack of decoder layers, and a last norm if the config asks for one."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.layers = create_layers(DecoderLayer, config, config.num_decoder_layers, rngs)
        self.norm = layer_norm(config, rngs=rngs) if config.final_norm else None

    def project_memory(self, memory: Float[Array, "batch source d_model"]) -> Memory:
        """Each layer's keys and values of the memory: computed once for a source, whatever the number of new tokens.

        Stacked layers only train, and project it each in its turn: what is given back for them is the memory itself.
        """
        if not isinstance(self.layers, Sequence):
            return memory
        return [layer.cross_attention.project(memory) for layer in self.layers]

    def __call__(
        self,
        x: Sequences,
        memory: Memory,
        mask: AttentionMask,
        memory_mask: AttentionMask,
        rngs: nnx.Rngs | None = None,
        cache: Sequence[KeyValue] | None = None,
    ) -> tuple[Sequences, list[KeyValue]]:
        """The whole target, or its next tokens given each layer's cache. Returns the output and the written caches."""
        projected = memory if isinstance(memory, Sequence) else None

        def apply(
            layer: DecoderLayer, x: Sequences, rngs: nnx.Rngs | None, own: KeyValue | None, cache: KeyValue | None
        ) -> tuple[Sequences, KeyValue]:
            if own is None:
                own = layer.cross_attention.project(memory)  # pyright: ignore[reportArgumentType]  # not projected then
            return layer(x, own, mask, memory_mask, rngs, cache)

        x, written = apply_layers(apply, self.layers, x, self.config, rngs, projected, cache)
        return (x if self.norm is None else self.norm(x)), written
