"""The config space of the models, as sets of configs in which every pair of choices occurs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from twins import small

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError

_OF_BOTH: dict[str, Sequence[Any]] = {
    "norm_first": (True, False),
    "final_norm": (True, False),
    "activation": ("relu", "gelu", "gelu_tanh", "silu"),
    "positions": ("sinusoidal", "learned", "rope", "none"),
    "scale_embeddings": (True, False),
    "bias": (True, False),
    "num_heads": (3, 1),
}
_OF_SEQ2SEQ: dict[str, Sequence[Any]] = {
    **_OF_BOTH,
    "tables": ({"tie_embeddings": "all"}, {"tie_embeddings": "none", "target_vocab_size": 41}),
    "depth": tuple({"num_encoder_layers": e, "num_decoder_layers": d} for e, d in ((1, 1), (2, 1), (1, 2))),
}
_OF_CLASSIFIER: dict[str, Sequence[Any]] = {
    **_OF_BOTH,
    "pooling": ("mean", "first", "max"),
    "depth": ({"num_encoder_layers": 1}, {"num_encoder_layers": 2}),
}


# Its encoder is that of the classifier: what its own head depends on.
_OF_MASKED: dict[str, Sequence[Any]] = {
    "norm_first": (True, False),
    "positions": ("sinusoidal", "rope"),
    "scale_embeddings": (True, False),
    "bias": (True, False),
    "num_heads": (3, 1),
}


def seq2seq_variants() -> list[ModelConfig]:
    return _pairwise(_OF_SEQ2SEQ, "seq2seq")


def classifier_variants() -> list[ModelConfig]:
    return _pairwise(_OF_CLASSIFIER, "classifier")


def masked_variants() -> list[ModelConfig]:
    return _pairwise(_OF_MASKED, "masked")


def name_of(config: ModelConfig) -> str:
    """What sets a config apart from the small one."""
    names = (*_OF_BOTH, "tie_embeddings", "pooling", "num_encoder_layers", "num_decoder_layers")
    default = small()
    changed = {name: getattr(config, name) for name in names}
    return " ".join(f"{name}={value}" for name, value in changed.items() if value != getattr(default, name))


def _config(choice: Mapping[str, Any], architecture: str) -> ModelConfig | None:
    """A choice may be one field or several that go together. None where they exclude each other."""
    fields: dict[str, Any] = {"architecture": architecture}
    for name, value in choice.items():
        fields |= value if isinstance(value, dict) else {name: value}
    try:
        return small("float64", **fields)
    except UserError:  # rope in heads of odd width
        return None


def _pairwise(choices: Mapping[str, Sequence[Any]], architecture: str) -> list[ModelConfig]:
    """Greedily: of some random candidates always the one that shows most new pairs, until none shows any."""
    rng = np.random.default_rng(0)
    pairs = set(itertools.combinations(((name, i) for name, values in choices.items() for i in range(len(values))), 2))
    unseen = {pair for pair in pairs if pair[0][0] != pair[1][0]}
    configs = []
    for _ in range(60):
        drawn = [{name: int(rng.integers(len(values))) for name, values in choices.items()} for _ in range(40)]
        covered = [set(itertools.combinations(indices.items(), 2)) & unseen for indices in drawn]
        best = max(range(len(drawn)), key=lambda i: len(covered[i]))
        config = _config({name: choices[name][index] for name, index in drawn[best].items()}, architecture)
        if covered[best] and config is not None:
            configs.append(config)
            unseen -= covered[best]
    excluded = [pair for pair in unseen if _config({name: choices[name][i] for name, i in pair}, architecture)]
    assert not excluded, f"pairs that no config shows: {excluded}"
    return configs
