"""The two models: an encoder with a classification head, and an encoder with a decoder."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import ModelConfig, Pooling
from flax_transformer.distributed.mesh import constrain
from flax_transformer.intermediates import record
from flax_transformer.nn.attention import KeyValue
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.kernels.rngs import Rngs
from flax_transformer.nn.layers import Decoder, Encoder, Memory
from flax_transformer.nn.linear import Linear, token_table
from flax_transformer.nn.masks import AttentionMask, padding_mask
from flax_transformer.nn.positions import PositionalEncoding

Offset = int | Int[Array, ""]
# How many tokens of each row are real; None where all are, which lets attention go without a mask.
Lengths = Int[Array, " batch"] | None


def pool(x: Float[Array, "batch length d_model"], lengths: Lengths, pooling: Pooling) -> Float[Array, "batch d_model"]:
    """Sum up the real tokens of each row: their mean or maximum, or the first. A row without any gives zeros."""
    if lengths is None:
        lengths = jnp.full(x.shape[:1], x.shape[1])
    real = padding_mask(lengths, x.shape[1])[:, :, None]
    match pooling:
        case "mean":
            return jnp.where(real, x, 0).sum(axis=1) / jnp.maximum(lengths, 1)[:, None].astype(x.dtype)
        case "max":
            # The gradient goes by place. That of jnp.max goes to where x equals its maximum, and XLA on CPU may compute
            # x anew for that comparison, rounded otherwise, so that nothing is equal and the gradient is lost.
            place = jnp.argmax(jnp.where(real, x, -jnp.inf), axis=1)
            pooled = jnp.where(jax.nn.one_hot(place, x.shape[1], axis=1, dtype=bool), x, 0).sum(axis=1)
        case "first":
            pooled = x[:, 0]
    return jnp.where((lengths > 0)[:, None], pooled, 0)


class Embedding(nnx.Module):
    """``dropout(scale * table[id] + position)`` (section 3.4); the table comes from outside, to be shared."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.scale = config.d_model**0.5 if config.scale_embeddings else 1.0
        self.positions = PositionalEncoding(config, rngs=rngs)
        self.dropout = Dropout(config.dropout)

    def __call__(
        self, table: nnx.Embed, ids: Int[Array, "batch length"], rngs: nnx.Rngs | None, offset: Offset = 0
    ) -> Float[Array, "batch length d_model"]:
        # Gathered along d_model before the lookup: XLA would look up first, and then move what it found.
        rows = jnp.take(constrain(table.embedding[...], "vocab", None), ids, axis=0)
        x = self.positions(constrain(rows, "batch", None, None) * self.scale, offset)
        return self.dropout(record(self, "output", x), rngs)


class Classifier(nnx.Module):
    """Text -> class: embedding, encoder, pooling over the real tokens, linear head."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.source_table = token_table(config.source_vocab_size, config, rngs=rngs)
        self.source_embedding = Embedding(config, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.dropout = Dropout(config.dropout)
        self.head = Linear(config.d_model, config.num_classes, config, axes=("embed", None), rngs=rngs)

    def __call__(
        self, source: Int[Array, "batch source"], source_lengths: Lengths, *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch classes"]:
        """Logits of each class. ``rngs`` with a ``dropout`` stream switches dropout on."""
        x = self.source_embedding(self.source_table, source, rngs)
        x = record(self, "memory", self.encoder(x, AttentionMask(source_lengths), rngs))
        pooled = record(self, "pooled", pool(x, source_lengths, self.config.pooling))
        return record(self, "logits", self.head(self.dropout(pooled, rngs)))


class Seq2Seq(nnx.Module):
    """Text -> text: source and target embeddings with positions on both sides, encoder, decoder, output projection."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.source_table = token_table(config.source_vocab_size, config, rngs=rngs)
        self.source_embedding = Embedding(config, rngs=rngs)
        self.target_embedding = Embedding(config, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        if not config.tie_embeddings:
            self.target_table = token_table(config.target_vocab_size, config, rngs=rngs)
            self.projection = Linear(
                config.d_model, config.target_vocab_size, config, axes=("embed", "vocab"), rngs=rngs
            )

    def __call__(
        self,
        source: Int[Array, "batch source"],
        source_lengths: Lengths,
        target: Int[Array, "batch target"],
        target_lengths: Lengths,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch target vocab"]:
        """Teacher forcing: logits of the token that follows each token of ``target``, the decoder's input.

        ``rngs`` with a ``dropout`` stream switches dropout on.
        """
        memory = self.decoder.project_memory(self.encode(source, source_lengths, rngs=rngs))
        logits, _ = self.decode(target, memory, source_lengths, target_lengths=target_lengths, rngs=rngs)
        return logits

    def encode(
        self, source: Int[Array, "batch source"], source_lengths: Lengths, *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch source d_model"]:
        """The memory that the decoder attends to."""
        x = self.source_embedding(self.source_table, source, rngs)
        return record(self, "memory", self.encoder(x, AttentionMask(source_lengths), rngs))

    def decode(
        self,
        target: Int[Array, "batch target"],
        memory: Memory,
        source_lengths: Lengths,
        *,
        target_lengths: Lengths = None,
        offset: Offset = 0,
        cache: Sequence[KeyValue] | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch target vocab"], list[KeyValue]]:
        """Logits after each token of ``target``, whose first token stands at ``offset``.

        Args:
            memory: projected by each layer, from ``decoder.project_memory``.
            cache: each layer's keys and values of the tokens before ``offset``, from :meth:`empty_cache`.

        Returns:
            The logits, and the caches with the tokens of ``target`` written in.
        """
        table = self.source_table if self.config.tie_embeddings else self.target_table
        x = self.target_embedding(table, target, rngs, offset)
        mask = AttentionMask(target_lengths, causal=True, query_offset=offset)
        x, written = self.decoder(x, memory, mask, AttentionMask(source_lengths), rngs, cache)
        logits = tied_projection(x, table, self.config) if self.config.tie_embeddings else self.projection(x)
        return record(self, "logits", logits), written

    def empty_cache(self, batch: int, length: int) -> list[KeyValue]:
        """Room for ``length`` decoded tokens in each decoder layer."""
        shape = (batch, self.config.num_heads, length, self.config.head_dim)
        empty = jnp.zeros(shape, jnp.dtype(self.config.dtype))
        return [KeyValue(empty, empty) for _ in self.decoder.layers]


def tied_projection(
    x: Float[Array, "batch target d_model"], table: nnx.Embed, config: ModelConfig
) -> Float[Array, "batch target vocab"]:
    """``x @ table^T`` in the compute dtype (section 3.4 of the paper)."""
    dtype = jnp.dtype(config.dtype)
    tokens = x.reshape(-1, config.d_model).astype(dtype)
    return (tokens @ table.embedding[...].astype(dtype).T).reshape(*x.shape[:2], -1)


def create_model(config: ModelConfig, seed: int) -> Classifier | Seq2Seq:
    """A model with fresh weights, all of them a function of ``seed``."""
    rngs = Rngs(params=jax.random.key(seed))
    return Classifier(config, rngs=rngs) if config.architecture == "classifier" else Seq2Seq(config, rngs=rngs)
