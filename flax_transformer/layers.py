"""Encoder and decoder layers and stacks (Vaswani et al., 2017, section 3.1), post-LN or pre-LN."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flax_transformer.attention import KeyValue, MultiHeadAttention
from flax_transformer.config import ModelConfig
from flax_transformer.dropout import Dropout
from flax_transformer.linear import Linear, layer_norm
from flax_transformer.masks import AttentionMask
from flax_transformer.mesh import constrain
from flax_transformer.taps import is_recording, tap

Layer = TypeVar("Layer", bound=nnx.Module)
Sequences = Float[Array, "batch length d_model"]

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
        self.expand = Linear(config.d_model, config.d_ff, config, axes=("embed", "hidden"), rngs=rngs)
        self.contract = Linear(config.d_ff, config.d_model, config, axes=("hidden", "embed"), rngs=rngs)
        self.dropout = Dropout(config.dropout)

    def __call__(self, x: Sequences, rngs: nnx.Rngs | None) -> Sequences:
        hidden = tap(self, "hidden", ACTIVATIONS[self.activation](self.expand(x)))
        return self.contract(self.dropout(hidden, rngs))


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
        return tap(self, "output", constrain(x, "batch", None, None))


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
_KEPT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def apply_layers(
    apply: Callable[[Layer, Sequences, Any, nnx.Rngs | None], tuple[Sequences, Any]],
    layers: Sequence[Layer],
    x: Sequences,
    inputs: Sequence[Any],
    config: ModelConfig,
    rngs: nnx.Rngs | None,
    *,
    may_scan: bool = True,
) -> tuple[Sequences, list[Any]]:
    """Hand ``x`` from layer to layer; unrolled or as a loop, with or without rematerialisation (Chen et al., 2016).

    Args:
        apply: one layer, given ``x`` and its own one of ``inputs``.

    Returns:
        The last layer's ``x``, and what each layer gave besides.
    """
    if config.remat in _KEPT and not is_recording():
        apply = nnx.remat(apply, policy=_KEPT[config.remat])
    if config.scan_layers and may_scan and not is_recording():
        return _scan_layers(apply, layers, x, inputs, rngs)
    outputs = []
    for layer, own in zip(layers, inputs, strict=True):
        x, output = apply(layer, x, own, rngs)
        outputs.append(output)
    return x, outputs


def _scan_layers(
    apply: Callable[..., tuple[Sequences, Any]],
    layers: Sequence[nnx.Module],
    x: Sequences,
    inputs: Sequence[Any],
    rngs: nnx.Rngs | None,
) -> tuple[Sequences, list[Any]]:
    """The layers keep weights of their own, so that no name depends on the loop; they are stacked for it anew."""

    def stack(trees: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    graph = nnx.graphdef(layers[0])
    keys = None if rngs is None else jax.random.split(rngs.dropout(), len(layers))

    def step(x: Sequences, part: tuple[Any, Any, Any]) -> tuple[Sequences, Any]:
        state, own, key = part
        return apply(nnx.merge(graph, state), x, own, None if key is None else nnx.Rngs(dropout=key))

    x, outputs = jax.lax.scan(step, x, (stack([nnx.state(layer) for layer in layers]), stack(inputs), keys))
    return x, [jax.tree.map(lambda leaf, i=i: leaf[i], outputs) for i in range(len(layers))]


class Encoder(nnx.Module):
    """A stack of encoder layers, and a last norm if the config asks for one."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.layers = nnx.List([EncoderLayer(config, rngs=rngs) for _ in range(config.num_encoder_layers)])
        self.norm = layer_norm(config, rngs=rngs) if config.final_norm else None

    def __call__(self, x: Sequences, mask: AttentionMask, rngs: nnx.Rngs | None = None) -> Sequences:
        def apply(layer: EncoderLayer, x: Sequences, _: None, rngs: nnx.Rngs | None) -> tuple[Sequences, None]:
            return layer(x, mask, rngs), None

        x, _ = apply_layers(apply, self.layers, x, [None] * len(self.layers), self.config, rngs)
        return x if self.norm is None else self.norm(x)


class Decoder(nnx.Module):
    """A stack of decoder layers, and a last norm if the config asks for one."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.layers = nnx.List([DecoderLayer(config, rngs=rngs) for _ in range(config.num_decoder_layers)])
        self.norm = layer_norm(config, rngs=rngs) if config.final_norm else None

    def project_memory(self, memory: Sequences) -> list[KeyValue]:
        """Each layer's keys and values of the memory: computed once for a source, whatever the number of new tokens."""
        return [layer.cross_attention.project(memory) for layer in self.layers]

    def __call__(
        self,
        x: Sequences,
        memory: Sequence[KeyValue],
        mask: AttentionMask,
        memory_mask: AttentionMask,
        rngs: nnx.Rngs | None = None,
        cache: Sequence[KeyValue] | None = None,
    ) -> tuple[Sequences, list[KeyValue]]:
        """The whole target, or its next tokens given each layer's cache. Returns the output and the written caches."""
        caches = cache or [None] * len(self.layers)

        def apply(
            layer: DecoderLayer, x: Sequences, own: tuple[KeyValue, KeyValue | None], rngs: nnx.Rngs | None
        ) -> tuple[Sequences, KeyValue]:
            memory, cache = own
            return layer(x, memory, mask, memory_mask, rngs, cache)

        inputs = list(zip(memory, caches, strict=True))
        x, written = apply_layers(apply, self.layers, x, inputs, self.config, rngs, may_scan=cache is None)
        return (x if self.norm is None else self.norm(x)), written
