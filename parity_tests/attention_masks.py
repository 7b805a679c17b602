"""The masks that attention is tested under, and what they are in each twin."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from twins import ROWS, SOURCE, SOURCE_LENGTHS, TARGET, to_torch

import flax_transformer.nn.masks as flax_masks
import torch_reference.nn.masks as torch_masks

QUERIES, KEYS, HEADS, HEAD_DIM = TARGET, SOURCE, 3, 13
DENSE = np.random.default_rng(0).random((ROWS, HEADS, QUERIES, KEYS)) < 0.7
DENSE[1, :, 2] = False  # a query that may attend to nothing, in a row that has keys
# Named arguments of AttentionMask, in numpy.
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "ragged": {"key_lengths": SOURCE_LENGTHS},
    "causal": {"causal": True},
    "causal behind a cache": {"causal": True, "query_offset": 4},
    "causal and ragged": {"causal": True, "key_lengths": SOURCE_LENGTHS},
    "dense": {"dense": DENSE},
    "dense, one for all heads": {"dense": DENSE[:, :1]},
    "all": {"causal": True, "query_offset": 4, "key_lengths": SOURCE_LENGTHS, "dense": DENSE},
}


def flax_mask(mask: dict[str, Any]) -> flax_masks.AttentionMask:
    arrays = {name: jnp.asarray(value) for name, value in mask.items() if isinstance(value, np.ndarray)}
    return flax_masks.AttentionMask(**{**mask, **arrays})


def torch_mask(mask: dict[str, Any]) -> torch_masks.AttentionMask:
    arrays = {name: to_torch(value) for name, value in mask.items() if isinstance(value, np.ndarray)}
    return torch_masks.AttentionMask(**{**mask, **arrays})
