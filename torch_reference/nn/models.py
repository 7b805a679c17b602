"""The two models: an encoder with a classification head, and an encoder with a decoder."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from flax_transformer.config import ModelConfig, Pooling
from flax_transformer.intermediates import record
from torch_reference.nn.attention import KeyValue
from torch_reference.nn.dropout import Dropout
from torch_reference.nn.layers import Decoder, Encoder
from torch_reference.nn.linear import Linear, compute_dtype, token_table
from torch_reference.nn.masks import AttentionMask, padding_mask
from torch_reference.nn.positions import PositionalEncoding

# How many tokens of each row are real; None where all are, which lets attention go without a mask.
Lengths = Int[Tensor, " batch"] | None


def pool(
    x: Float[Tensor, "batch length d_model"], lengths: Lengths, pooling: Pooling
) -> Float[Tensor, "batch d_model"]:
    """Sum up the real tokens of each row: their mean or maximum, or the first. A row without any gives zeros."""
    if lengths is None:
        lengths = torch.full(x.shape[:1], x.shape[1], device=x.device)
    real = padding_mask(lengths, x.shape[1])[:, :, None]
    match pooling:
        case "mean":
            return torch.where(real, x, 0).sum(dim=1) / lengths.clamp(min=1)[:, None].to(x.dtype)
        case "max":
            pooled = torch.where(real, x, -torch.inf).amax(dim=1)
        case "first":
            pooled = x[:, 0]
    return torch.where((lengths > 0)[:, None], pooled, 0)


class Embedding(nn.Module):
    """``dropout(scale * table[id] + position)`` (section 3.4); the table comes from outside, to be shared."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = config.d_model**0.5 if config.scale_embeddings else 1.0
        self.positions = PositionalEncoding(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, table: nn.Embedding, ids: Int[Tensor, "batch length"], offset: int = 0
    ) -> Float[Tensor, "batch length d_model"]:
        x = self.positions(table(ids) * self.scale, offset)
        return self.dropout(record(self, "output", x))


class Classifier(nn.Module):
    """Text -> class: embedding, encoder, pooling over the real tokens, linear head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.source_table = token_table(config.source_vocab_size, config)
        self.source_embedding = Embedding(config)
        self.encoder = Encoder(config)
        self.dropout = Dropout(config.dropout)
        self.head = Linear(config.d_model, config.num_classes, config)

    def forward(self, source: Int[Tensor, "batch source"], source_lengths: Lengths) -> Float[Tensor, "batch classes"]:
        """Logits of each class."""
        x = self.source_embedding(self.source_table, source)
        x = record(self, "memory", self.encoder(x, AttentionMask(source_lengths)))
        pooled = record(self, "pooled", pool(x, source_lengths, self.config.pooling))
        return record(self, "logits", self.head(self.dropout(pooled)))


class Seq2Seq(nn.Module):
    """Text -> text: source and target embeddings with positions on both sides, encoder, decoder, output projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.source_table = token_table(config.source_vocab_size, config)
        self.source_embedding = Embedding(config)
        self.target_embedding = Embedding(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if not config.tie_embeddings:
            self.target_table = token_table(config.target_vocab_size, config)
            self.projection = Linear(config.d_model, config.target_vocab_size, config)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Lengths,
        target: Int[Tensor, "batch target"],
        target_lengths: Lengths,
    ) -> Float[Tensor, "batch target vocab"]:
        """Teacher forcing: logits of the token that follows each token of ``target``, the decoder's input."""
        memory = self.decoder.project_memory(self.encode(source, source_lengths))
        logits, _ = self.decode(target, memory, source_lengths, target_lengths=target_lengths)
        return logits

    def encode(
        self, source: Int[Tensor, "batch source"], source_lengths: Lengths
    ) -> Float[Tensor, "batch source d_model"]:
        """The memory that the decoder attends to."""
        x = self.source_embedding(self.source_table, source)
        return record(self, "memory", self.encoder(x, AttentionMask(source_lengths)))

    def decode(
        self,
        target: Int[Tensor, "batch target"],
        memory: Sequence[KeyValue],
        source_lengths: Lengths,
        *,
        target_lengths: Lengths = None,
        offset: int = 0,
        cache: Sequence[KeyValue] | None = None,
    ) -> tuple[Float[Tensor, "batch target vocab"], list[KeyValue]]:
        """Logits after each token of ``target``, whose first token stands at ``offset``.

        Args:
            memory: each layer's projected memory, from ``decoder.project_memory``.
            cache: each layer's keys and values of the tokens before ``offset``, from :meth:`empty_cache`.

        Returns:
            The logits, and the caches with the tokens of ``target`` written in.
        """
        table = self.source_table if self.config.tie_embeddings else self.target_table
        x = self.target_embedding(table, target, offset)
        mask = AttentionMask(target_lengths, causal=True, query_offset=offset)
        x, written = self.decoder(x, memory, mask, AttentionMask(source_lengths), cache)
        logits = tied_projection(x, table, self.config) if self.config.tie_embeddings else self.projection(x)
        return record(self, "logits", logits), written

    def empty_cache(self, batch: int, length: int) -> list[KeyValue]:
        """Room for ``length`` decoded tokens in each decoder layer."""
        shape = (batch, self.config.num_heads, length, self.config.head_dim)
        weight = self.source_table.weight

        def empty() -> Tensor:
            return torch.zeros(shape, dtype=compute_dtype(self.config), device=weight.device)

        return [KeyValue(empty(), empty()) for _ in self.decoder.layers]


def tied_projection(
    x: Float[Tensor, "batch target d_model"], table: nn.Embedding, config: ModelConfig
) -> Float[Tensor, "batch target vocab"]:
    """``x @ table^T`` in the compute dtype (section 3.4 of the paper)."""
    dtype = compute_dtype(config)
    return functional.linear(x.to(dtype), table.weight.to(dtype))


def create_model(config: ModelConfig, seed: int) -> Classifier | Seq2Seq:
    """A model with fresh weights, all of them a function of ``seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier(config) if config.architecture == "classifier" else Seq2Seq(config)
