"""Examples of given lengths, in each of which one token of its own is repeated."""

import numpy as np
from hypothesis import strategies as st

from flax_transformer.config import TokenizerConfig
from flax_transformer.data.batches import Encoded, Sequences
from flax_transformer.data.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(TokenizerConfig(vocab_size=300), ["ab"])
PAD, BOS, EOS, UNK = TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.unk_id


def encoded_of(lengths):
    """Example i is made of the token 10 + i, so that it can be recognised in a batch."""
    sources = Sequences([[10 + i] * length for i, (length, _) in enumerate(lengths)])
    if lengths[0][1] is None:
        return Encoded(sources, np.arange(len(lengths), dtype=np.int32), PAD, UNK)
    targets = Sequences([[BOS, *[10 + i] * length, EOS] for i, (_, length) in enumerate(lengths)])
    return Encoded(sources, targets, PAD, UNK)


pairs = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 62)), min_size=1, max_size=50)
texts = st.lists(st.tuples(st.integers(1, 64), st.none()), min_size=1, max_size=50)
