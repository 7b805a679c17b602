"""Texts -> token ids, held to the longest lengths: longer ones are cut, left out or refused, and counted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from flax_transformer.config import BatchConfig, Long, ModelConfig
from flax_transformer.data.batches import Encoded, Sequences
from flax_transformer.data.bpe_dropout import BpeDropout
from flax_transformer.data.examples import Examples, Source, texts_of
from flax_transformer.data.masking import Masking
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError, warn

_TOKENIZED_AT_ONCE = 4096
_READINGS = 4  # of a training text with BPE dropout
_SAMPLED = 1000  # targets that are looked at
_SHOWN = 40  # characters of a text in a message


def encode_examples(
    examples: Examples, tokenizer: Tokenizer, config: BatchConfig, *, training: bool, seed: int = 0
) -> Encoded:
    """Tokenize a split and hold it to the longest lengths of ``config``. A row without tokens is one unknown token.

    The special tokens of a pre-trained model stand around each text; those at the end of a source stay where it is cut.
    Of a pair the longer text is cut, and both where they are equally long.

    ``config.long`` says what becomes of longer texts. The long targets of an evaluation are cut in any case, since only
    the loss sees them: a model is scored by what it generates for them.

    With BPE dropout, whose draws follow from ``seed``, a training split has several readings. What is too long without
    it is too long; a reading that is too long only with it is taken without it.

    Raises:
        UserError: a text is too long and ``config.long`` is ``error``; no example is left; or merges are to be left out
            of a tokenizer that has none.
    """
    if len(examples) == 0:
        raise UserError("expected at least one example, got none")
    is_generation = isinstance(examples.targets[0], str)
    what = resolve_long(config.long, is_generation)
    rates = (config.bpe_dropout, config.target_bpe_dropout) if training else (0.0, 0.0)
    source_split, target_split = (_Split(tokenizer, rate, (seed, side)) for side, rate in enumerate(rates))
    sources, lengths = _read(examples.sources, source_split, config.max_source_length)
    is_long = lengths > config.max_source_length
    if what == "error":
        _refuse(is_long, lengths, examples, "source", config)
    if is_generation:
        targets, target_lengths = _write(examples.targets, target_split, config.max_target_length)
        is_long_target = target_lengths > config.max_target_length
        if what == "error" and training:
            _refuse(is_long_target, target_lengths, examples, "target", config)
    else:
        targets = _labels(examples.targets, tokenizer)
        is_long_target = np.zeros_like(is_long)
    is_dropped = (is_long | (is_long_target & training)) & (what == "skip")
    truncated = int(np.count_nonzero((is_long | is_long_target) & ~is_dropped))
    encoded = Encoded(sources, targets, tokenizer.pad_id, tokenizer.unk_id, _frame(tokenizer), truncated=truncated)
    return _take(encoded, np.flatnonzero(~is_dropped), config) if is_dropped.any() else encoded


def _labels(
    targets: Sequence[Any], tokenizer: Tokenizer
) -> Int32[np.ndarray, " examples"] | Bool[np.ndarray, "examples classes"] | Masking:
    """Class ids, or rows of labels, or which tokens are masked."""
    if targets[0] is None:
        return Masking.of(tokenizer)
    return np.array(targets, bool if isinstance(targets[0], tuple) else np.int32)


def _frame(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens around texts, and between those of a pair."""
    return (*tokenizer.special.source_prefix, *tokenizer.special.source_suffix, tokenizer.eos_id)


def _take(encoded: Encoded, kept: Int[np.ndarray, " kept"], config: BatchConfig) -> Encoded:
    if kept.size == 0:
        raise UserError(
            f"all {len(encoded)} texts are longer than batch.max_source_length={config.max_source_length} or "
            f"batch.max_target_length={config.max_target_length} tokens; raise these, or cut them with --batch.long cut"
        )
    match targets := encoded.targets:
        case Sequences():
            targets = targets.take(kept)
        case np.ndarray():
            targets = targets[kept]
    dropped = len(encoded) - len(kept)
    return replace(encoded, sources=encoded.sources.take(kept), targets=targets, dropped=dropped, kept=kept)


def resolve_long(long: Long, is_generation: bool) -> Literal["cut", "skip", "error"]:
    """What ``auto`` means: the class of a text shows in its beginning, but what is to be written may need all of it."""
    if long != "auto":
        return long
    return "skip" if is_generation else "cut"


def _refuse(
    is_long: Bool[np.ndarray, " n"],
    lengths: Int[np.ndarray, " n"],
    examples: Examples,
    side: str,
    config: BatchConfig,
) -> None:
    """Raises :class:`UserError`, which names the first, where any text is too long."""
    if not is_long.any():
        return
    first, others = int(is_long.argmax()), np.count_nonzero(is_long) - 1
    place = examples.places[first] if examples.places else f"example {first + 1}"
    text = texts_of((examples.sources if side == "source" else examples.targets)[first])[0]
    raise UserError(
        f"{place} ({text[:_SHOWN]!r}...): expected a {side} of at most {getattr(config, f'max_{side}_length')} tokens, "
        f"got {lengths[first]}, and {others:,} more that are too long; raise --batch.max-{side}-length, or choose "
        "--batch.long cut or skip"
    )


def tell_changed_targets(examples: Examples, tokenizer: Tokenizer) -> None:
    """Warn where targets do not come back from their tokens, so that no output can be equal to them."""
    if not isinstance(examples.targets[0], str):
        return
    texts = examples.targets[:_SAMPLED]
    decoded = tokenizer.decode(list(_tokenize(texts, tokenizer)))
    changed = [(text, other) for text, other in zip(texts, decoded, strict=True) if text != other]
    if changed:
        text, other = changed[0]
        first = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), len(other))
        shown, instead = (repr(whole[max(first - _SHOWN // 2, 0) :][:_SHOWN]) for whole in (text, other))
        warn(
            f"{len(changed):,} of the first {len(texts):,} training targets cannot be generated as they are: the "
            f"tokenizer makes {instead} of {shown}; byte-level BPE without --tokenizer.lowercase keeps every text"
        )


@dataclass(frozen=True)
class Sources:
    """Texts to predict for.

    ``sequences`` are those that can be predicted for; ``problems`` says of each text why it cannot, and is empty where
    it can; ``cut`` is true where its end was left out.
    """

    sequences: Sequences
    problems: list[str]
    cut: list[bool]


def encode_sources(
    texts: Sequence[Source | None], tokenizer: Tokenizer, longest: int, what: Literal["cut", "skip", "error"]
) -> Sources:
    """Tokenize texts to predict for. One that is too long, blank or None becomes a problem of its own.

    Args:
        longest: in tokens.
        what: becomes of longer texts.
    """
    problems = [_problem(text) for text in texts]
    pairs = zip(texts, problems, strict=True)
    readable = [text if text and not problem else " " for text, problem in pairs]
    read, lengths = _read(readable, _Split(tokenizer), longest)
    too_long = (lengths > longest) & np.array([not problem for problem in problems], bool)
    if what != "cut":
        for i in np.flatnonzero(too_long).tolist():
            problems[i] = f"the text has {lengths[i]} tokens, and the model reads at most {longest}"
    usable = np.flatnonzero([not problem for problem in problems])
    return Sources(read.take(usable), problems, (too_long & (what == "cut")).tolist())


def _problem(text: Source | None) -> str:
    if text is None:
        return "there is no text"
    if isinstance(text, tuple):
        return next(filter(None, map(_problem, text)), "")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "the text holds half of a surrogate pair"
    return "" if text.strip() else "the text is blank"


def check_pairs(tokenizer: Tokenizer, model: ModelConfig) -> None:
    """
    Raises:
        UserError: the tokenizer has no place for a second text, or the model would not read it as its tokenizer means.
    """
    if model.architecture == "seq2seq":
        raise UserError("expected an encoder alone to read pairs of texts, got a seq2seq model")
    _, ids, types = tokenizer.pair_template
    is_separator = np.array(ids) == tokenizer.eos_id
    parts = np.minimum(np.cumsum(is_separator) - is_separator, model.token_types - 1)
    if model.token_types > 1 and parts.tolist() != list(types):
        raise UserError(
            f"expected a tokenizer whose separators end the parts of a pair, so that its token types are "
            f"{parts.tolist()}, got {list(types)}; this model cannot read pairs of texts here"
        )


@dataclass(frozen=True)
class _Split:
    """Splits texts into tokens: once as the tokenizer does it, and with BPE dropout ``_READINGS`` more times."""

    tokenizer: Tokenizer
    dropout: float = 0.0
    seed: tuple[int, ...] = ()

    def __call__(self, texts: Sequence[str]) -> list[Iterator[list[int]]]:
        """Of each time, the token ids of each text without special tokens."""
        if self.dropout == 0:
            return [_tokenize(texts, self.tokenizer)]
        dropout = BpeDropout(texts, self.tokenizer, self.dropout, self.seed)
        return [dropout.whole(), *map(dropout.reading, range(_READINGS))]


class _Rows(NamedTuple):
    """Token ids with special tokens, and how many there are of each text before it is cut."""

    ids: list[Int32[np.ndarray, " row"]]
    lengths: Int[np.ndarray, " texts"]


def _read(sources: Sequence[Source], split: _Split, longest: int) -> tuple[Sequences, Int[np.ndarray, " sources"]]:
    """Each source with its special tokens, cut to ``longest`` tokens; and the tokens that each has uncut."""
    parts = split([text for source in sources for text in texts_of(source)])
    found = [_source_rows(sources, ids, split.tokenizer, longest) for ids in parts]
    return _cut(found, longest, split.tokenizer.special.source_suffix)


def _source_rows(sources: Sequence[Source], ids: Iterator[list[int]], tokenizer: Tokenizer, longest: int) -> _Rows:
    """Pairs are already cut: both of their texts end before ``longest``."""
    before, behind = tokenizer.special.source_prefix, tokenizer.special.source_suffix
    rows, lengths = [], []
    for source in sources:
        row = next(ids)
        length = len(row)
        if isinstance(source, tuple):
            first, second, between = row, next(ids), tokenizer.pair_template.between
            length += len(between) + len(second)
            first, second = _longest_first(first, second, longest - len(before) - len(between) - len(behind))
            row = [*first, *between, *second]
        lengths.append(len(before) + length + len(behind))
        rows.append(np.array([*before, *row, *behind] or [tokenizer.unk_id], np.int32))
    return _Rows(rows, np.array(lengths, np.int64))


def _write(targets: Sequence[str], split: _Split, longest: int) -> tuple[Sequences, Int[np.ndarray, " targets"]]:
    """As :func:`_read`, of texts to write."""
    tokenizer = split.tokenizer
    begin = [tokenizer.bos_id, *tokenizer.special.target_prefix]
    found = []
    for ids in split(targets):
        rows = [np.array([*begin, *target, tokenizer.eos_id], np.int32) for target in ids]
        found.append(_Rows(rows, np.array([len(row) for row in rows], np.int64)))
    return _cut(found, longest)


def _cut(found: Sequence[_Rows], longest: int, end: Sequence[int] = ()) -> tuple[Sequences, Int[np.ndarray, " texts"]]:
    """What is read in training, cut to ``longest`` tokens; and the tokens of each text uncut and without dropout."""
    whole, *dropped = found
    fitting = [
        [row if length <= longest else other for row, length, other in zip(*rows, whole.ids, strict=True)]
        for rows in dropped
    ]
    return Sequences(*(fitting or [whole.ids])).cut(longest, end), whole.lengths


def _longest_first(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """A pair cut to ``room`` tokens: the longer text to what the other leaves, or else both to a half.

    Of an odd number of tokens the longer text has the one more, as the ``tokenizers`` library has it.
    """
    if room < 2:
        raise UserError(
            f"expected room for a token of each text of a pair, got room for {max(room, 0)} beside the special tokens; "
            "raise --batch.max-source-length"
        )
    kept = min(len(first), len(second), room // 2)  # of the shorter text
    return (first[: room - kept], second[:kept]) if len(first) > len(second) else (first[:kept], second[: room - kept])


def _tokenize(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """In parts, since the tokenizer's own output takes far more memory than the ids."""
    for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
        yield from tokenizer.encode(texts[start : start + _TOKENIZED_AT_ONCE])
