"""The config space of the models, and few configs in which every two choices meet."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError

Choices = dict[str, tuple[Any, ...]]
CHOICES: Choices = {
    "architecture": ("seq2seq", "classifier"),
    "norm_first": (True, False),
    "final_norm": (True, False),
    "activation": ("gelu", "relu", "gelu_tanh", "silu"),
    "positions": ("sinusoidal", "learned", "rope", "none"),
    "scale_embeddings": (True, False),
    "tie_embeddings": (True, False),
    "bias": (True, False),
    "initialization": ("paper", "torch"),
    "pooling": ("mean", "first", "max"),
    "shape": ("even", "odd width", "one head"),
    "depth": ("1+1", "2+1", "1+2"),
}
_SHAPES = {
    "even": {"d_model": 16, "num_heads": 2},
    "odd width": {"d_model": 15, "num_heads": 3},
    "one head": {"d_model": 12, "num_heads": 1},
}


def pairwise(choices: Choices, seed: int = 0, candidates: int = 40) -> list[dict[str, Any]]:
    """Rows in which each two values of two different choices occur together, found greedily.

    Each row starts from a pair that is still missing and is the best of some random completions.
    """
    rng = np.random.default_rng(seed)
    missing = set(all_pairs(choices))
    rows = []
    while missing:
        (name_a, a), (name_b, b) = min(missing)
        drawn = [
            {name: int(rng.integers(len(values))) for name, values in choices.items()} | {name_a: a, name_b: b}
            for _ in range(candidates)
        ]
        best = max(drawn, key=lambda row: len(missing & set(pairs_of(row))))
        missing -= set(pairs_of(best))
        rows.append({name: choices[name][index] for name, index in best.items()})
    return rows


def all_pairs(choices: Choices) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Every two (name, index of its value) that can stand in one row."""
    for (name_a, values_a), (name_b, values_b) in itertools.combinations(sorted(choices.items()), 2):
        yield from itertools.product(
            ((name_a, i) for i in range(len(values_a))), ((name_b, i) for i in range(len(values_b)))
        )


def pairs_of(row: dict[str, int]) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """The pairs that a row of indices holds."""
    yield from itertools.combinations(sorted(row.items()), 2)


def to_model(row: dict[str, Any], dtype: str) -> ModelConfig | None:
    """The tiny model of a row; None where the config refuses it (rope needs an even head)."""
    fields = {name: value for name, value in row.items() if name not in ("shape", "depth")}
    encoder_layers, decoder_layers = map(int, row["depth"].split("+"))
    model = ModelConfig(d_ff=24, max_length=16, source_vocab_size=31, target_vocab_size=31)
    try:
        return dataclasses.replace(
            model,
            **fields,
            **_SHAPES[row["shape"]],
            num_encoder_layers=encoder_layers,
            num_decoder_layers=decoder_layers,
            dtype=dtype,
            param_dtype=dtype,
        )
    except UserError:
        return None
