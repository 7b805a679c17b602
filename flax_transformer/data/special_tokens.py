"""Special tokens, and where they stand around the texts of a pre-trained model."""

from dataclasses import dataclass

# Beside the tokenizer.json of a pre-trained model.
SPECIAL_TOKENS_FILE = "special_tokens.json"


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens, and which of them frame a text. Those of models trained from scratch frame nothing."""

    pad_id: int
    # the decoder begins with it
    bos_id: int
    # ends an output; of an encoder, separates the parts of a text
    eos_id: int
    unk_id: int
    # rows of the model's token table, which may be more than the tokenizer has entries
    vocab_size: int
    # before and behind each source
    source_prefix: tuple[int, ...] = ()
    source_suffix: tuple[int, ...] = ()
    # between the begin token and the text of each target
    target_prefix: tuple[int, ...] = ()
