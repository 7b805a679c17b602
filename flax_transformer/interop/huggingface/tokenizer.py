"""The tokenizer of a checkpoint: read with its own special tokens, and written for ``AutoTokenizer``."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from flax_transformer.config import ModelConfig
from flax_transformer.data.special_tokens import SpecialTokens
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.checkpoint import read_json
from flax_transformer.interop.huggingface.family import Settings

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
_PROBE = "a"


def read_tokenizer(folder: Path, config: ModelConfig, forced_begin: int | None = None) -> Tokenizer:
    """The tokenizer of a checkpoint, which puts its own special tokens around a text.

    Args:
        config: of the model; gives the ids of padding, begin and end, and the rows of the token table.
        forced_begin: the token that each output begins with, such as the code of a language.

    Raises:
        UserError: there is no tokenizer.json, it is damaged, or it does not belong to the model.
    """
    path, backend = folder / TOKENIZER_FILE, _read_backend(folder)
    prefix, suffix = _frame(backend, folder)
    largest = max(backend.get_vocab().values())
    rows = min(config.source_vocab_size, _target_rows(config))
    if largest >= rows:
        raise UserError(
            f"{path}: expected ids below {rows}, the rows of the model's token table, got {largest}: "
            "the tokenizer is another model's, or got entries without the model"
        )
    is_encoder = config.architecture == "classifier"
    special = SpecialTokens(
        pad_id=config.pad_id,
        bos_id=prefix[0] if is_encoder and prefix else config.bos_id,
        eos_id=suffix[-1] if is_encoder and suffix else config.eos_id,
        unk_id=_unknown_id(backend, folder),
        vocab_size=config.source_vocab_size,
        source_prefix=prefix,
        source_suffix=suffix,
        target_prefix=() if is_encoder else _target_prefix(prefix, forced_begin),
    )
    return Tokenizer(backend, special)


def longest_text(folder: Path, config: ModelConfig) -> int:
    """Tokens of the longest text that the model was made for, special ones included."""
    path = folder / SETTINGS_FILE
    limit = read_json(path).get("model_max_length") if path.is_file() else None
    return min(config.max_length, int(limit)) if isinstance(limit, int | float) and limit >= 1 else config.max_length


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        others = sorted(file.name for pattern in ("*.model", "*.spm", "vocab.*") for file in folder.glob(pattern))
        if "source.spm" in others:
            raise UserError(
                f"{folder}: expected {TOKENIZER_FILE}, got two sentencepiece files, one for each language, which "
                "are not read; import the bare model with --bare, and make ids with MarianTokenizer of transformers"
            )
        raise UserError(
            f"{folder}: expected {TOKENIZER_FILE}, got {', '.join(others) or 'no tokenizer'}; make it: python -c "
            f"\"import transformers as t; t.AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\" "
            "(or import the bare model with --bare)"
        )
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8-sig"))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: expected a tokenizer.json of the tokenizers library ({str(error)[:200]})") from error


def _frame(backend: tokenizers.Tokenizer, folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the file's post-processor puts before and behind a text."""
    backend.no_padding()
    backend.no_truncation()
    plain, framed = (backend.encode(_PROBE, add_special_tokens=on).ids for on in (False, True))
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain and plain:
            return tuple(framed[:start]), tuple(framed[start + len(plain) :])
    raise UserError(
        f"{folder / TOKENIZER_FILE}: expected a post-processor that puts special tokens around a text, got {framed} of "
        f"{_PROBE!r}, which is {plain} without it"
    )


def _target_prefix(prefix: tuple[int, ...], forced_begin: int | None) -> tuple[int, ...]:
    """An output begins as a source does, unless with another token, such as the code of the language to write."""
    return prefix if forced_begin is None else (forced_begin,)


def _target_rows(config: ModelConfig) -> int:
    return config.source_vocab_size if config.architecture == "classifier" else config.target_vocab_size


def _unknown_id(backend: tokenizers.Tokenizer, folder: Path) -> int:
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    if isinstance(model.get("unk_id"), int):
        return model["unk_id"]
    path = folder / SETTINGS_FILE
    names = [model.get("unk_token"), read_json(path).get("unk_token") if path.is_file() else None]
    names = [name["content"] if isinstance(name, dict) else name for name in names]
    for name in filter(None, (*names, "<unk>", "[UNK]")):
        token = backend.token_to_id(name)
        if token is not None:
            return token
    raise UserError(f"{folder / TOKENIZER_FILE}: expected an unknown token, but it names none")


def tokenizer_settings(tokenizer: Tokenizer, longest: int, *, reads_types: bool) -> Settings:
    """What ``tokenizer_config.json`` says of a tokenizer of ours.

    Args:
        longest: tokens of the longest text, special ones included.
        reads_types: the model is also given the type of each token.
    """
    names, special = tokenizer.token_names(), tokenizer.special
    roles = {"pad_token": special.pad_id, "unk_token": special.unk_id, "eos_token": special.eos_id}
    if special.source_prefix and special.source_suffix:
        roles |= {"cls_token": special.source_prefix[0], "sep_token": special.source_suffix[-1]}
    if not special.source_prefix and not special.source_suffix:
        roles["bos_token"] = special.bos_id
    mask = next((name for name in ("[MASK]", "<mask>") if name in names.values()), None)
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if reads_types else ["input_ids", "attention_mask"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": longest,
        "model_input_names": inputs,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        **{role: names[token] for role, token in roles.items() if token in names},
        **({"mask_token": mask} if mask else {}),
    }
