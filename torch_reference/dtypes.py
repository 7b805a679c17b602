"""The dtypes that a config names."""

import torch

from flax_transformer.config import ModelConfig


def compute_dtype(config: ModelConfig) -> torch.dtype:
    """Of matrix products."""
    return getattr(torch, config.dtype)


def param_dtype(config: ModelConfig) -> torch.dtype:
    """Of the weights."""
    return getattr(torch, config.param_dtype)
