"""The models: an encoder with a classification head, one with a head for masked tokens, and one with a decoder."""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.intermediates import record
from torch_reference.dtypes import compute_dtype, param_dtype
from torch_reference.nn.arguments import check_ids, check_lengths
from torch_reference.nn.dropout import Dropout
from torch_reference.nn.layers import ACTIVATIONS, Cache, Decoder, DecoderLayer, Encoder, Memory
from torch_reference.nn.linear import Linear, norm_layer, token_table
from torch_reference.nn.masks import AttentionMask
from torch_reference.nn.pooling import Lengths, pool, pool_segments
from torch_reference.nn.positions import PositionalEncoding
from torch_reference.nn.segments import segment_positions, since_start


class Embedding(nn.Module):
    """``dropout(scale * table[id] + position)`` (section 3.4); the table comes from outside, to be shared.

    As the config asks for it, token types are added too (Devlin et al., 2019, section 3), the sum is normalized, and
    the result is projected to d_model (Lan et al., 2020, section 3.1).

    Args:
        config: gives d_model, embedding_width, scale_embeddings, positions, token_types, embedding_norm and dropout.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = config.d_model**0.5 if config.scale_embeddings else 1.0
        self.eos_id = config.eos_id
        self.types = token_table(config.token_types, config) if config.token_types else None
        self.positions = PositionalEncoding(config)
        self.norm = norm_layer(config, config.embedding_dim) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout)
        self.projection = Linear(config.embedding_dim, config.d_model, config) if config.embedding_width else None

    def forward(
        self,
        table: nn.Embedding,
        ids: Int[Tensor, "batch length"],
        offset: int = 0,
        segments: Int[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length d_model"]:
        """
        Args:
            table: a row for each token, from :func:`torch_reference.nn.linear.token_table`.
            ids: token ids, (batch, length).
            offset: position of the first token.
            segments: of the tokens, (batch, length), where rows are packed: positions and types begin anew in each.

        Returns:
            (batch, length, d_model).

        Raises:
            UserError: a token stands beyond ``config.max_length``.

        Example:
            >>> config = ModelConfig(d_model=8)
            >>> Embedding(config)(token_table(20, config), torch.ones(2, 5, dtype=torch.int)).shape
            torch.Size([2, 5, 8])
        """
        x = table(ids) * self.scale
        if self.types is not None:
            x = x + self.types(token_types(ids, self.eos_id, self.types.num_embeddings, segments))
        positions = None if segments is None else segment_positions(segments)
        x = self.positions(x, offset, positions)
        x = x if self.norm is None else self.norm(x)
        x = self.dropout(record(self, "output", x))
        return x if self.projection is None else self.projection(x)


def token_types(
    ids: Int[Tensor, "batch length"], separator: int, count: int, segments: Int[Tensor, "batch length"] | None = None
) -> Int[Tensor, "batch length"]:
    """The part of its row or segment that each token belongs to, below ``count``: 0 first; a separator ends each."""
    is_separator = (ids == separator).int()
    part = is_separator.cumsum(dim=1) - is_separator
    return (part if segments is None else since_start(part, segments)).clamp(max=count - 1)


class TextEncoder(nn.Module):
    """What all models have in common: they read a source."""

    config: ModelConfig
    source_table: nn.Embedding
    source_embedding: Embedding
    encoder: Encoder

    def encode(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Lengths = None,
        *,
        source_segments: Int[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch source d_model"]:
        """What the encoder makes of the source, which the decoder attends to. Arguments and errors as of a call."""
        if source_segments is not None and not self.config.mixes_by_attention:
            raise UserError(f"packed rows need attention, got {self.config.named_mixers}; do without packing")
        check_ids("source", source, self.config.source_vocab_size)
        check_lengths("source_lengths", source_lengths, source)
        x = self.source_embedding(self.source_table, source, segments=source_segments)
        mask = AttentionMask(source_lengths, query_segments=source_segments, key_segments=source_segments)
        return record(self, "memory", self.encoder(x, mask))


class Classifier(TextEncoder):
    """Text -> class: embedding, encoder, pooling over the real tokens, a head of one or two layers.

    Args:
        config: with ``architecture="classifier"``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.source_table = token_table(config.source_vocab_size, config)
        self.source_embedding = Embedding(config)
        self.encoder = Encoder(config)
        self.dropout = Dropout(config.dropout if config.head_dropout is None else config.head_dropout)
        self.hidden = Linear(config.d_model, config.d_model, config) if config.head_hidden != "none" else None
        self.head = Linear(config.d_model, config.num_classes, config) if config.num_classes else None

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Lengths = None,
        *,
        source_segments: Int[Tensor, "batch source"] | None = None,
        num_segments: int = 1,
    ) -> Float[Tensor, "batch *segments classes"]:
        """
        Args:
            source: token ids, (batch, source), right-padded.
            source_lengths: real tokens of each row, (batch,); None where all are real. A row of length 0 is filler.
            source_segments: of packed rows, the segment of each token, (batch, source), in place of lengths.
            num_segments: the most that a packed row has.

        Returns:
            Logits of each class, (batch, classes); without a head (``num_classes=0``) the pooled row, (batch, d_model).
            Those of packed rows have an axis more, (batch, num_segments, classes).

        Raises:
            UserError: ids or lengths have the wrong shape or dtype or, on CPU, are out of range.

        Example:
            >>> model = create_model(ModelConfig(architecture="classifier", d_model=8, d_ff=16, num_encoder_layers=1))
            >>> model(torch.ones(2, 5, dtype=torch.int)).shape
            torch.Size([2, 2])
        """
        memory = self.encode(source, source_lengths, source_segments=source_segments)
        if source_segments is None:
            pooled = pool(memory, source_lengths, self.config.pooling)
        else:
            pooled = pool_segments(memory, source_segments, num_segments, self.config.pooling)
        pooled = record(self, "pooled", pooled)
        if self.hidden is not None:
            pooled = ACTIVATIONS[self.config.head_hidden](self.hidden(pooled))
        return pooled if self.head is None else record(self, "logits", self.head(self.dropout(pooled)))


class MaskedLM(TextEncoder):
    """Text with masked tokens -> what stood there (Devlin et al., 2019, section 3.1): encoder, tied projection, bias.

    Args:
        config: with ``architecture="masked"``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.source_table = token_table(config.source_vocab_size, config)
        self.source_embedding = Embedding(config)
        self.encoder = Encoder(config)
        self.output_bias = (
            nn.Parameter(torch.zeros(config.source_vocab_size, dtype=param_dtype(config))) if config.bias else None
        )

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        positions: Int[Tensor, "batch predicted"],
        source_lengths: Lengths = None,
        *,
        source_segments: Int[Tensor, "batch source"] | None = None,
    ) -> Float[Tensor, "batch predicted vocab"]:
        """Logits at some positions only: those of all tokens would take most of the memory of a step.

        Args:
            source: token ids with some of them masked, (batch, source), right-padded.
            positions: of the tokens to predict in each row, (batch, predicted).
            source_lengths: real tokens of each row, (batch,); None where all are real. A row of length 0 is filler.
            source_segments: of packed rows, the segment of each token, (batch, source), in place of lengths.

        Returns:
            Logits of the token at each position, (batch, predicted, vocab).

        Raises:
            UserError: ids, positions or lengths have the wrong shape or dtype or, on CPU, are out of range.

        Example:
            >>> model = create_model(ModelConfig(architecture="masked", d_model=8, d_ff=16, num_encoder_layers=1))
            >>> model(torch.ones(2, 5, dtype=torch.int), torch.tensor([[0, 3], [1, 2]])).shape
            torch.Size([2, 2, 8000])
        """
        check_ids("positions", positions, source.shape[1])
        memory = self.encode(source, source_lengths, source_segments=source_segments)
        places = positions[:, :, None].long().expand(-1, -1, memory.shape[2])
        predicted = memory.gather(1, places)  # (batch, predicted, d_model)
        logits = tied_projection(predicted, self.source_table, self.config)
        if self.output_bias is not None:
            logits = logits + self.output_bias.to(logits.dtype)
        return record(self, "logits", logits)


class Seq2Seq(TextEncoder):
    """Text -> text: source and target embeddings with positions on both sides, encoder, decoder, output projection.

    Args:
        config: with ``architecture="seq2seq"``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.source_table = token_table(config.source_vocab_size, config)
        self.source_embedding = Embedding(config)
        self.target_embedding = Embedding(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        if config.tie_embeddings in ("target", "none"):
            self.target_table = token_table(config.target_vocab_size, config)
        if config.tie_embeddings in ("inputs", "none"):
            self.projection = Linear(config.d_model, config.target_vocab_size, config)
        if config.logits_bias:
            self.logits_bias = nn.Parameter(torch.zeros(config.target_vocab_size, dtype=param_dtype(config)))

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        target: Int[Tensor, "batch target"],
        source_lengths: Lengths = None,
        target_lengths: Lengths = None,
        *,
        source_segments: Int[Tensor, "batch source"] | None = None,
        target_segments: Int[Tensor, "batch target"] | None = None,
    ) -> Float[Tensor, "batch target vocab"]:
        """Teacher forcing: logits of the token that follows each token of ``target``, the decoder's input.

        Args:
            source: token ids, (batch, source), right-padded.
            target: token ids, (batch, target), right-padded, with the begin token first.
            source_lengths: real tokens of each source, (batch,); None where all are real. A row of length 0 is filler.
            target_lengths: the same of the targets.
            source_segments: of packed rows, the segment of each token, (batch, source), in place of lengths.
            target_segments: the same of the targets; a target attends to the source of its own segment.

        Returns:
            Logits, (batch, target, vocab).

        Raises:
            UserError: ids or lengths have the wrong shape or dtype or, on CPU, are out of range.

        Example:
            >>> model = create_model(ModelConfig(d_model=8, d_ff=16, num_encoder_layers=1, num_decoder_layers=1))
            >>> model(torch.ones(2, 5, dtype=torch.int), torch.ones(2, 3, dtype=torch.int)).shape
            torch.Size([2, 3, 8000])
        """
        check_ids("target", target, self.config.target_vocab_size)
        check_lengths("target_lengths", target_lengths, target)
        memory = self.encode(source, source_lengths, source_segments=source_segments)
        x = self.target_embedding(self._target_table, target, segments=target_segments)
        mask = AttentionMask(target_lengths, causal=True, query_segments=target_segments, key_segments=target_segments)
        memory_mask = AttentionMask(source_lengths, query_segments=target_segments, key_segments=source_segments)
        return self._logits(self.decoder(x, memory, mask, memory_mask))

    def decode(
        self,
        target: Int[Tensor, "batch target"],
        memory: Sequence[Memory],
        source_lengths: Lengths = None,
        *,
        offset: int = 0,
        cache: Sequence[Cache] | None = None,
    ) -> tuple[Float[Tensor, "batch target vocab"], list[Cache]]:
        """Logits after each of the next tokens, as in generation.

        Args:
            target: the next tokens, (batch, target).
            memory: each layer's projected memory, from ``decoder.project_memory``.
            source_lengths: real tokens of each source, (batch,); None where all are real.
            offset: position of the first token of ``target``.
            cache: each layer's, of the tokens before ``offset``, from :meth:`empty_cache`.

        Returns:
            Logits, (batch, target, vocab), and the caches with the tokens of ``target``.
        """
        x = self.target_embedding(self._target_table, target, offset)
        mask, memory_mask = AttentionMask(causal=True, query_offset=offset), AttentionMask(source_lengths)
        x, cache = self.decoder.step(x, memory, mask, memory_mask, cache)
        return self._logits(x), cache

    def empty_cache(self, batch: int, length: int) -> list[Cache]:
        """Room for ``length`` decoded tokens in each decoder layer."""
        layers = cast(Sequence[DecoderLayer], self.decoder.layers)
        return [layer.self_attention.empty_cache(batch, length) for layer in layers]

    @property
    def _target_table(self) -> nn.Embedding:
        return self.source_table if self.config.tie_embeddings in ("all", "inputs") else self.target_table

    def _logits(self, x: Float[Tensor, "batch target d_model"]) -> Float[Tensor, "batch target vocab"]:
        if self.config.scale_logits:
            x = x * self.config.d_model**-0.5
        if self.config.tie_embeddings in ("all", "target"):
            logits = tied_projection(x, self._target_table, self.config)
        else:
            logits = self.projection(x)
        if self.config.logits_bias:
            # A constant: without a gradient no optimizer moves it.
            logits = logits + self.logits_bias.detach().to(logits.dtype)
        return record(self, "logits", logits)


def tied_projection(
    x: Float[Tensor, "batch target d_model"], table: nn.Embedding, config: ModelConfig
) -> Float[Tensor, "batch target vocab"]:
    """``x @ table^T`` in the compute dtype (section 3.4 of the paper)."""
    dtype = compute_dtype(config)
    return functional.linear(x.to(dtype), table.weight.to(dtype))


Model = Classifier | MaskedLM | Seq2Seq


def create_model(config: ModelConfig, seed: int = 0) -> Model:
    """A model with fresh weights, all of them a function of ``seed``, in training mode.

    Args:
        config: its ``architecture`` decides the class.
        seed: of the random weights.

    Example:
        >>> type(create_model(ModelConfig(d_model=8, num_encoder_layers=1, num_decoder_layers=1))).__name__
        'Seq2Seq'
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        match config.architecture:
            case "classifier":
                return Classifier(config)
            case "masked":
                return MaskedLM(config)
            case "seq2seq":
                return Seq2Seq(config)
