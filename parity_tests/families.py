"""What sets pre-trained families apart, as fields of a small model. Every option that they need is in one of them.

The last one is of no family, but of our own presets.
"""

from typing import Any

_ENCODER = {
    "architecture": "classifier",
    "norm_first": False,
    "final_norm": False,
    "positions": "learned",
    "scale_embeddings": False,
    "embedding_norm": True,
    "pooling": "first",
}
_T5 = {
    "norm": "rms",
    "bias": False,
    "positions": "none",
    "relative_buckets": 8,
    "relative_max_distance": 5,
    "scale_attention": False,
    "scale_embeddings": False,
    "head_width": 6,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "BERT": {**_ENCODER, "token_types": 2, "head_hidden": "tanh"},
    "RoBERTa": {**_ENCODER, "token_types": 1, "position_offset": 2, "head_hidden": "tanh"},
    "ELECTRA": {**_ENCODER, "token_types": 2, "embedding_width": 12, "head_hidden": "gelu"},
    "MPNet": {
        **_ENCODER,
        "position_offset": 2,
        "relative_buckets": 8,
        "relative_max_distance": 5,
        "head_hidden": "relu",
    },
    "BART": {
        "norm_first": False,
        "final_norm": False,
        "positions": "learned",
        "position_offset": 2,
        "embedding_norm": True,
        "logits_bias": True,
    },
    "Marian": {
        "norm_first": False,
        "final_norm": False,
        "positions": "sinusoidal_halves",
        "activation": "silu",
        "tie_embeddings": "target",
        "target_vocab_size": 37,
        "logits_bias": True,
    },
    "T5": {**_T5, "activation": "relu", "scale_logits": True},
    "T5 1.1": {**_T5, "activation": "gelu_tanh", "gated": True, "tie_embeddings": "inputs"},
    "smeared keys": {"positions": "rope", "smeared_keys": True},
}
