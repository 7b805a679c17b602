"""Text <-> token ids, through the ``tokenizers`` library: byte-level BPE, WordPiece, or an existing tokenizer.json."""

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from flax_transformer.config import TokenizerConfig, load_config, save_config
from flax_transformer.data.special_tokens import SPECIAL_TOKENS_FILE, SpecialTokens
from flax_transformer.errors import UserError

PAD, BOS, EOS, UNK = "[PAD]", "[BOS]", "[EOS]", "[UNK]"
SPECIAL_TOKENS = [PAD, BOS, EOS, UNK]
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# How tokenizers made elsewhere call the same four tokens.
_NAMES = {
    "pad": (PAD, "<pad>", "<|pad|>"),
    "bos": (BOS, "<s>", "<bos>", "[CLS]", "<|startoftext|>"),
    "eos": (EOS, "</s>", "<eos>", "[SEP]", "<|endoftext|>"),
    "unk": (UNK, "<unk>", "<|unk|>"),
}


# With isolated spaces, parts of a text whose bytes are never merged with those of another part, so that a word has the
# same tokens wherever it stands.
_KEY = r'"[\w.-]+":'
_PARTS = (
    rf'[\[\]{{}}",]*{_KEY}(?:[\[{{]+{_KEY})*[\[{{]*"?',  # keys of JSON with the marks around them: a single token
    r'[\[\]{}":,]+',  # other marks of JSON
    r"\p{N}",
    r"\p{L}+",
    r'[^\s\p{L}\p{N}\[\]{}":,]+',
    r" ",
    r"[^\S ]+",
)
# A text whose tokens are looked for among those of a pair of it.
_PROBE = "a"
# More texts teach a tokenizer nothing new, and take minutes.
_ENOUGH_TEXTS = 100_000
_SPLIT_AT_ONCE = 1_024  # texts, since what the library says of each token takes far more memory than its id


class PairTemplate(NamedTuple):
    """Of a pair of texts: the special tokens between them, and the ids and token types of some pair."""

    between: tuple[int, ...]
    ids: tuple[int, ...]
    types: tuple[int, ...]


class Tokenizer:
    """Text to ids and back. No special token is ever added, nor read from a text: a typed "[EOS]" is plain text.

    Args:
        pretrained: the special tokens of the pre-trained model that it belongs to; otherwise they are found by name,
            and only the end token stands in rows, between the texts of a pair.

    Raises :class:`UserError` where the padding, begin, end or unknown token is missing.
    """

    def __init__(self, backend: tokenizers.Tokenizer, pretrained: SpecialTokens | None = None):
        self._backend, self._pretrained = backend, pretrained
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # special tokens are encoded as the text they look like
        self.special = pretrained or _special_tokens(backend)
        self.pad_id, self.bos_id = self.special.pad_id, self.special.bos_id
        self.eos_id, self.unk_id = self.special.eos_id, self.special.unk_id
        self.vocab_size = self.special.vocab_size
        if pretrained is None:
            # What is written in tokenizer.json, for other programs, is what is done here.
            end = backend.id_to_token(self.eos_id)
            backend.post_processor = processors.TemplateProcessing(
                single="$A", pair=f"$A {end} $B:1", special_tokens=[(end, self.eos_id)]
            )

    @property
    def entries(self) -> int:
        """The first id that no token has; the model's table may have more rows."""
        return max(self._backend.get_vocab().values()) + 1

    @cached_property
    def pair_template(self) -> PairTemplate:
        """How the two texts of a pair stand together.

        Raises :class:`UserError` where the post-processor of a pre-trained model has no place for a second text.
        """
        special, text = self.special, self.encode([_PROBE])[0]
        pair = self._backend.encode(_PROBE, _PROBE)
        around = len(special.source_prefix) + 2 * len(text) + len(special.source_suffix)
        start = len(special.source_prefix) + len(text)
        between = tuple(pair.ids[start : start + len(pair.ids) - around])
        if not between or pair.ids != [*special.source_prefix, *text, *between, *text, *special.source_suffix]:
            raise UserError("expected a tokenizer that puts special tokens between two texts, got one for single texts")
        return PairTemplate(between, tuple(pair.ids), tuple(pair.type_ids))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens.

        Raises :class:`UserError` for a text with half of a surrogate pair, which JSON can spell and UTF-8 cannot.
        """
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            broken = next((text for text in texts if _LONE_SURROGATE.search(text)), None)
            if broken is None:
                raise
            raise UserError(f"expected a text, got one with half a character in it: {broken[:80]!r}") from error
        return [encoding.ids for encoding in encodings]

    def words(self, texts: Sequence[str]) -> Iterator[list[tuple[int, ...]]]:
        """The token ids of each word of each text, where words are the parts across which nothing is merged."""
        for start in range(0, len(texts), _SPLIT_AT_ONCE):
            part = list(texts[start : start + _SPLIT_AT_ONCE])
            for encoding in self._backend.encode_batch(part, add_special_tokens=False):
                numbered = zip(encoding.word_ids, encoding.ids, strict=True)
                words = itertools.groupby(numbered, key=lambda entry: entry[0])
                yield [tuple(token for _, token in word) for _, word in words]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts, without special tokens. Byte-level BPE gives back exactly what was encoded."""
        return self._backend.decode_batch([list(row) for row in ids], skip_special_tokens=True)

    @property
    def is_byte_level(self) -> bool:
        """Whether tokens simply add up to the text."""
        return isinstance(self._backend.decoder, decoders.ByteLevel)

    def token_bytes(self) -> dict[int, bytes]:
        """What each token but the special ones adds to a text, in the order of the ids.

        Raises :class:`UserError` where that depends on the tokens around it: for all but byte-level BPE.
        """
        if not self.is_byte_level:
            raise UserError("expected a byte-level BPE tokenizer, whose tokens simply add up to the text")
        special = self._backend.get_added_tokens_decoder().keys() | {self.pad_id, self.bos_id, self.eos_id, self.unk_id}
        characters = {character: byte for byte, character in enumerate(_byte_characters())}
        return {
            token: bytes(characters[character] for character in text)
            for text, token in sorted(self._backend.get_vocab().items(), key=lambda entry: entry[1])
            if token not in special and characters.keys() >= set(text)
        }

    def token_names(self) -> dict[int, str]:
        """The name of each id, such as ``[SEP]`` of 102."""
        return {token: name for name, token in self._backend.get_vocab().items()}

    def to_json(self) -> str:
        """The ``tokenizers`` library's own JSON."""
        return self._backend.to_str(pretty=True) + "\n"

    def save(self, path: Path) -> None:
        """Write the ``tokenizers`` library's own JSON, and beside it the special tokens of a pre-trained model."""
        path.write_text(self.to_json(), encoding="utf-8")
        if self._pretrained is not None:
            save_config(self._pretrained, path.with_name(SPECIAL_TOKENS_FILE))


def _byte_characters() -> list[str]:
    """The character that stands for each byte in byte-level BPE: itself where Latin-1 prints it, else from 256 on."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printed]
    return [chr(byte if byte in printed else 256 + others.index(byte)) for byte in range(256)]


def train_tokenizer(config: TokenizerConfig, texts: Sequence[str]) -> Tokenizer:
    """Learn a tokenizer of at most ``config.vocab_size`` entries, or load ``config.path`` where it is given.

    The same texts give the same tokenizer, in every process. Of many, evenly spaced ones are enough.

    Raises :class:`UserError` as :func:`load_tokenizer` does.
    """
    if config.path is not None:
        return load_tokenizer(Path(config.path))
    learn = _train_byte_level_bpe if config.kind == "bpe" else _train_word_piece
    return Tokenizer(learn(config, texts[:: max(1, len(texts) // _ENOUGH_TEXTS)]))


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file, with the special tokens that stand beside it if it is one of a pre-trained model.

    Raises :class:`UserError` where ``path`` cannot be read, is no tokenizer.json or lacks a special token.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a tokenizer.json, but it cannot be read ({error})") from error
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: expected a tokenizer.json of the tokenizers library ({error})") from error
    special = path.with_name(SPECIAL_TOKENS_FILE)
    try:
        return Tokenizer(backend, load_config(SpecialTokens, special) if special.is_file() else None)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _train_byte_level_bpe(config: TokenizerConfig, texts: Sequence[str]) -> tokenizers.Tokenizer:
    """Every byte is in the alphabet, so no text is unknown; each digit stands alone, so numbers are copied by digit."""
    backend = tokenizers.Tokenizer(models.BPE())
    if config.lowercase:
        backend.normalizer = normalizers.Lowercase()
    is_isolated = config.spaces == "isolated"
    isolated = pre_tokenizers.Split(tokenizers.Regex("|".join(_PARTS)), "isolated")
    parts = isolated if is_isolated else pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not is_isolated)
    backend.pre_tokenizer = pre_tokenizers.Sequence([parts, bytes_])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _train_word_piece(config: TokenizerConfig, texts: Sequence[str]) -> tokenizers.Tokenizer:
    """As BERT: words and punctuation marks are split into pieces; spacing is not kept.

    The trainer numbers the inner characters ("##a") in an order that changes from process to process, and breaks ties
    between merges by these numbers. So a first pass collects them and the second is given them in sorted order.
    """
    alphabet = _word_piece_vocabulary(config, texts, vocab_size=1, first=SPECIAL_TOKENS)
    inner = sorted(token for token in alphabet if token.startswith("##") and len(token) == 3)
    vocabulary = _word_piece_vocabulary(config, texts, vocab_size=config.vocab_size, first=SPECIAL_TOKENS + inner)
    backend = _word_piece(config, vocabulary)
    backend.add_special_tokens(SPECIAL_TOKENS)
    backend.decoder = decoders.WordPiece()
    return backend


def _word_piece_vocabulary(
    config: TokenizerConfig, texts: Sequence[str], *, vocab_size: int, first: list[str]
) -> dict[str, int]:
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=first, show_progress=False
    )
    backend = _word_piece(config, {})
    backend.train_from_iterator(texts, trainer)
    return backend.get_vocab()


def _word_piece(config: TokenizerConfig, vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))
    backend.normalizer = normalizers.BertNormalizer(lowercase=config.lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _special_tokens(backend: tokenizers.Tokenizer) -> SpecialTokens:
    pad, bos, eos, unk = (_special_id(backend, role) for role in _NAMES)
    return SpecialTokens(pad, bos, eos, unk, vocab_size=max(backend.get_vocab().values()) + 1)


def _special_id(backend: tokenizers.Tokenizer, role: str) -> int:
    for name in _NAMES[role]:
        token_id = backend.token_to_id(name)
        if token_id is not None:
            return token_id
    raise UserError(f"expected a {role} token, one of {', '.join(_NAMES[role])}, but the vocabulary has none of them")
