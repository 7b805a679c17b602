"""How a checkpoint generates by default, in the words of this project and in those of transformers."""

from typing import Any

from flax_transformer.config import ModelConfig
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.family import Settings
from flax_transformer.interop.table_rows import rows_without_token

# Ids that the config has, and what says nothing about an output.
_SILENT = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache", "transformers_version"),
    *("_from_model_config", "output_attentions", "output_hidden_states", "return_dict_in_generate", "output_scores"),
}
# In files of transformers 4 they may stand in config.json.
_KNOWN = {
    *("num_beams", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "length_penalty", "min_length"),
    *("max_length", "max_new_tokens", "min_new_tokens", "early_stopping", "no_repeat_ngram_size", "num_beam_groups"),
    *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "diversity_penalty", "num_return_sequences"),
}
# As transformers takes them where they are left out.
_NEUTRAL: Settings = {
    "num_beams": 1,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "diversity_penalty": 0.0,
}


def generation_settings(config: Settings, generation: Settings) -> Settings:
    """What a checkpoint says about generation, in whichever of its two files."""
    found = generation or {name: value for name, value in config.items() if name in _KNOWN}
    return {name: value for name, value in found.items() if value is not None and name not in _SILENT}


def read_generation(settings: Settings) -> tuple[dict[str, Any], Settings]:
    """Our fields of GenerationConfig, and the settings that have no field here.

    Args:
        settings: from :func:`generation_settings`.
    """
    left = {name: value for name, value in settings.items() if value != _NEUTRAL.get(name)}
    fields: dict[str, Any] = {}
    if left.pop("do_sample", False):
        fields["strategy"] = "sample"
        names = ("temperature", "top_k", "top_p")
        fields |= {name: {**_NEUTRAL, **settings}[name] for name in names if name != "top_k" or "top_k" in settings}
    elif (beams := left.pop("num_beams", 1)) > 1:
        # The length penalty of transformers: the sum is divided by the number of tokens to the power of it.
        fields |= {"strategy": "beam", "beam_width": beams, "length_penalty": "mean"}
        fields["length_alpha"] = float(left.pop("length_penalty", 1.0))
        fields["early_stopping"] = left.pop("early_stopping", False)
    for name in ("temperature", "top_k", "top_p", "length_penalty", "early_stopping"):
        left.pop(name, None)  # without sampling or beams they change nothing
    if "repetition_penalty" in left:
        fields["repetition_penalty"] = float(left.pop("repetition_penalty"))
    if "forced_bos_token_id" in left:
        fields["prefix"] = [left.pop("forced_bos_token_id")]
    if "max_new_tokens" in left:
        fields["max_new_tokens"] = left.pop("max_new_tokens")
        left.pop("max_length", None)
    elif "max_length" in left:
        fields["max_new_tokens"] = max(1, left.pop("max_length") - 1)  # theirs counts the begin token
    if "min_new_tokens" in left:
        fields["min_new_tokens"] = left.pop("min_new_tokens")
    return fields, left


def forced_begin(settings: Settings) -> int | None:
    """The token that each output begins with, or None.

    Raises:
        UserError: it is no id.
    """
    token = settings.get("forced_bos_token_id")
    if token is not None and not isinstance(token, int):
        raise UserError(f"forced_bos_token_id: expected an id, got {token!r}")
    return token


def write_generation(config: ModelConfig, tokenizer: Tokenizer | None, max_new_tokens: int) -> Settings:
    """``generation_config.json`` of a model of ours: greedy, up to as many tokens as its own predictions.

    Rows of the table without a token are suppressed, which ``transformers`` does however it generates.
    """
    unused = rows_without_token(config, tokenizer)
    return {
        "decoder_start_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "pad_token_id": config.pad_id,
        "max_new_tokens": max_new_tokens,
        "num_beams": 1,
        "do_sample": False,
        **({"suppress_tokens": list(unused)} if unused else {}),
    }
