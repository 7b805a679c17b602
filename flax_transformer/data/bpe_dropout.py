"""BPE dropout (Provilkov et al., ACL 2020): words are split into other tokens each time that a model reads them.

The ``tokenizers`` library can do it as well, but its random numbers cannot be seeded, so that a resumed run would not
read what the uninterrupted one would have read.
"""

import functools
import itertools
import json
import random
from collections.abc import Iterator, Sequence

from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError

_Word = tuple[int, ...]
_SPLITS = 32  # of a word in a reading: an occurrence takes one of them, so that frequent words are split no more often


class BpeDropout:
    """Texts in which each merge of byte-level BPE is left out with the chance ``rate``. All draws follow from ``seed``.

    Raises :class:`UserError` where the tokenizer is not byte-level BPE.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Tokenizer, rate: float, seed: tuple[int, ...]):
        self._merges = _Merges(tokenizer, rate)
        self._seed = seed
        known: dict[_Word, _Word] = {}  # the same word is kept once
        self._texts = [[known.setdefault(word, word) for word in words] for words in tokenizer.words(texts)]

    def whole(self) -> Iterator[list[int]]:
        """Token ids of each text as the tokenizer has them, without special tokens."""
        return ([token for word in words for token in word] for words in self._texts)

    def reading(self, number: int) -> Iterator[list[int]]:
        """Token ids of each text, without special tokens; the same for the same number."""
        rng = random.Random(f"{self._seed} {number}")
        split = functools.cache(lambda word, _: self._merges.split(word, rng))
        for words in self._texts:
            yield [token for word in words for token in split(word, rng.randrange(_SPLITS))]


class _Merges:
    """The merges of a byte-level BPE tokenizer, of which some are left out."""

    def __init__(self, tokenizer: Tokenizer, rate: float):
        model = json.loads(tokenizer.to_json())["model"]
        if not tokenizer.is_byte_level or model["type"] != "BPE":
            raise UserError(
                f"BPE dropout: expected a byte-level BPE tokenizer, got one of {model['type']}; leave it out with "
                "--batch.bpe-dropout 0 and --batch.target-bpe-dropout 0"
            )
        # Older files have a pair as one text.
        pairs = (tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"])
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._ids: dict[str, int] = model["vocab"]
        self._names = tokenizer.token_names()
        self._rate = rate

    def split(self, word: _Word, rng: random.Random) -> Sequence[int]:
        """The word split once more; as it was where that is not possible, as with an added token.

        Of the merges that are possible, each is left out with the chance of the rate, and the first of the others is
        done; until none is left.
        """
        symbols = list("".join(self._names[token] for token in word))
        if not self._ids.keys() >= set(symbols):
            return word
        while merges := [
            (self._ranks[pair], place)
            for place, pair in enumerate(itertools.pairwise(symbols))
            if pair in self._ranks and rng.random() >= self._rate
        ]:
            _, place = min(merges)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        return [self._ids[symbol] for symbol in symbols]
