"""What a model or its config says of itself, under the names in common use. Knows no framework."""

from typing import Any

_NAMES = {
    "pad_id": ("pad_id", "pad_token_id", "pad_idx", "pad_token", "src_pad_idx", "src_pad_id", "src_pad", "padding_idx",
               "pad_index", "pad_token_index"),
    "bos_id": ("bos_id", "decoder_start_token_id", "bos_token_id", "bos_idx", "sos_idx", "sos_id", "trg_sos_idx"),
    "eos_id": ("eos_id", "eos_token_id", "eos_idx"),
    "max_length": ("max_length", "max_len", "block_size", "max_position_embeddings", "n_positions", "context_length",
                   "max_seq_len", "n_ctx"),
}  # fmt: skip
_CONFIGS = ("config", "cfg", "args", "params", "hparams")


def find_hints(model: Any) -> dict[str, int]:
    """The first plain number under each name, of the model itself and then of its config."""
    objects = [model, *(_read(model, name) for name in _CONFIGS)]
    found: dict[str, int] = {}
    for key, names in _NAMES.items():
        values = [_read(owner, name) for owner in objects if owner is not None for name in names]
        numbers = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value >= 0]
        if numbers:
            found[key] = numbers[0]
    return found


def _read(owner: Any, name: str) -> Any:
    try:
        return owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)
    except Exception:  # a property of somebody else's class
        return None
