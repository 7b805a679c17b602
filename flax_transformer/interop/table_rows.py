"""Rows of the target's table that no token stands for (T5 has 32,128 rows and 32,100 tokens): not to be generated."""

from dataclasses import replace

import numpy as np

from flax_transformer.config import ModelConfig
from flax_transformer.data.tokenizer import Tokenizer


def rows_without_token(config: ModelConfig, tokenizer: Tokenizer | None) -> range:
    """The rows behind the tokenizer's entries, which :class:`flax_transformer.decoding.predictor.Predictor` masks too.

    None without a tokenizer, and of a model that generates nothing.
    """
    if tokenizer is None or config.architecture != "seq2seq":
        return range(0)
    return range(tokenizer.entries, config.target_vocab_size)


def mask_rows(
    config: ModelConfig, weights: dict[str, np.ndarray], rows: range
) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """The model with a constant of -inf on the logits of these rows; unchanged if there are none.

    Args:
        weights: in PyTorch's names and layouts.
    """
    if not rows:
        return config, weights
    bias = np.array(weights.get("logits_bias", np.zeros(config.target_vocab_size)), np.float32)
    bias[rows] = -np.inf
    return replace(config, logits_bias=True), {**weights, "logits_bias": bias}
