"""Folders that CTranslate2 serves: ``ctranslate2.Translator(folder)``."""

from pathlib import Path
from typing import Literal

from flax_transformer.config import ModelConfig
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.decoding.predictable import TOKENIZER_FILE
from flax_transformer.interop.ctranslate2_spec import make_spec
from flax_transformer.interop.state_dict import Weights
from flax_transformer.interop.table_rows import mask_rows, rows_without_token
from flax_transformer.outputs import whole_folder

# What the weights are stored in. CTranslate2 converts them on loading, if it is asked for another type.
Quantization = Literal["float32", "float16", "int8", "int8_float16"]


def save_ctranslate2(
    directory: Path,
    config: ModelConfig,
    weights: Weights,
    tokenizer: Tokenizer | None = None,
    quantization: Quantization = "float32",
) -> None:
    """Write ``model.bin``, ``config.json``, vocabularies and ``tokenizer.json``; they are there only once all are.

    Args:
        weights: in PyTorch's names and layouts.
        tokenizer: gives tokens their names, and rows without one are never generated; without it, that of id 7 is
            ``<7>``.

    Raises:
        UserError: CTranslate2 has no such model, or the folder cannot be written.
    """
    spec = make_spec(*mask_rows(config, weights, rows_without_token(config, tokenizer)))
    source = token_names(config.source_vocab_size, tokenizer)
    target = token_names(config.target_vocab_size, tokenizer)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    spec.config.bos_token = spec.config.decoder_start_token = target[config.bos_id]
    spec.config.eos_token = target[config.eos_id]
    spec.config.unk_token = target[config.pad_id if tokenizer is None else tokenizer.unk_id]
    spec.validate()
    spec.optimize(quantization)
    with whole_folder(directory) as folder:
        spec.save(str(folder))
        if tokenizer is not None:
            (folder / TOKENIZER_FILE).write_text(tokenizer.to_json(), encoding="utf-8")


def token_names(rows: int, tokenizer: Tokenizer | None = None) -> list[str]:
    """A name of its own for each row of a token table, by which CTranslate2 takes and gives tokens.

    Rows that the tokenizer has no entry for get a name that none of its entries has.
    """
    known = {} if tokenizer is None else tokenizer.token_names()
    taken = set(known.values())
    names = []
    for row in range(rows):
        name = known.get(row, f"<{row}>")
        while row not in known and name in taken:
            name = f"<{name}>"
        names.append(name)
    return names
