"""Models trained here in the terms of transformers: equal functions, written with other weights."""

import re
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from flax_transformer.config import ModelConfig
from flax_transformer.interop.huggingface.family import Weights

# Rows of unused positions that BART's classes skip, and types of tokens that BERT's add.
_BART_OFFSET, _BERT_TYPES = 2, 2
# Weight -> its axis along the residual stream.
_RESIDUAL_AXES = (
    (r"(source|target)_table\.weight|.+\.types\.weight|.+\.positions\.table", 1),
    (r".+\.(query|key|value|up_proj|gate_proj)\.weight|(hidden|head|projection)\.weight", 1),
    (r".+\.(output|down_proj)\.(weight|bias)|.+\.norm\.(weight|bias)", 0),
)


def in_their_terms(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    """An equal model that differs less from those of transformers; of imported ones nothing changes.

    Sinusoids get their sines in the first half, learned positions the rows that BART skips, a classifier's embeddings
    their scale and a second table of zeros for the type of each token.
    """
    if config.head_width and config.head_width * config.num_heads == config.d_model:
        config = replace(config, head_width=None)
    for step in (_sines_first, _with_skipped_rows, _with_scaled_table, _with_types):
        config, weights = step(config, weights)
    return config, weights


def _sines_first(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    """Turn the axes of the residual stream, so that sines and cosines no longer alternate.

    Nothing in the model depends on the order of these axes: each weight that reads or writes the stream turns with it.
    """
    if config.positions != "sinusoidal" or config.embedding_width:
        return config, weights
    order = np.concatenate([np.arange(0, config.d_model, 2), np.arange(1, config.d_model, 2)])
    turned = {name: _turned(name, weight, order) for name, weight in weights.items()}
    return replace(config, positions="sinusoidal_halves"), turned


def _turned(name: str, weight: np.ndarray, order: Int[np.ndarray, " d_model"]) -> np.ndarray:
    for pattern, axis in _RESIDUAL_AXES:
        if re.fullmatch(pattern, name):
            return np.take(weight, order, axis=axis)
    return weight  # it neither reads nor writes the stream


def _with_skipped_rows(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    if config.architecture != "seq2seq" or config.positions != "learned" or config.position_offset:
        return config, weights
    tables = {name: weight for name, weight in weights.items() if name.endswith(".positions.table")}
    padded = {name: np.pad(table, ((_BART_OFFSET, 0), (0, 0))) for name, table in tables.items()}
    return replace(config, position_offset=_BART_OFFSET), weights | padded


def _with_scaled_table(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    if config.architecture != "classifier" or not config.scale_embeddings:
        return config, weights
    table = weights["source_table.weight"]
    scaled = (table * table.dtype.type(config.d_model**0.5)).astype(table.dtype)
    return replace(config, scale_embeddings=False), weights | {"source_table.weight": scaled}


def _with_types(config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
    is_like_bert = config.architecture == "classifier" and config.head_hidden == "tanh" and not config.relative_buckets
    if config.token_types or config.position_offset or not is_like_bert:
        return config, weights
    types = np.zeros((_BERT_TYPES, config.embedding_dim), weights["source_table.weight"].dtype)
    return replace(config, token_types=_BERT_TYPES), weights | {"source_embedding.types.weight": types}
