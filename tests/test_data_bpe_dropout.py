"""BPE dropout: the texts stay the same, merges are left out at the rate, and every part of a run draws the same."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from flax_transformer.config import BatchConfig, TokenizerConfig
from flax_transformer.data.batches import Sequences, TrainingBatches
from flax_transformer.data.bpe_dropout import BpeDropout
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.examples import Examples
from flax_transformer.data.packed_batches import training_batches
from flax_transformer.data.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer
from flax_transformer.errors import UserError

TEXTS = ["Booked 40 bags, 1250 kg", "booked 12 drums from Łódź to Rotterdam", "", "  a\n日本 [EOS]"] * 3
JOINED = train_tokenizer(TokenizerConfig(vocab_size=400), TEXTS)
ISOLATED = train_tokenizer(TokenizerConfig(vocab_size=400, spaces="isolated"), TEXTS)
# Longer than any reading, so that nothing is cut.
CONFIG = BatchConfig(
    size=4, max_source_length=128, max_target_length=128, buckets=3, bpe_dropout=0.3, target_bpe_dropout=0.3
)


@pytest.mark.parametrize("tokenizer", [JOINED, ISOLATED], ids=["joined", "isolated"])
def test_from_none_to_all_of_the_merges(tokenizer: Tokenizer):
    whole, half, bytes_ = (list(BpeDropout(TEXTS, tokenizer, rate, (0,)).reading(0)) for rate in (0.0, 0.5, 1.0))
    assert whole == tokenizer.encode(TEXTS) == list(BpeDropout(TEXTS, tokenizer, 0.5, (0,)).whole())
    assert [len(row) for row in bytes_] == [len(text.encode()) for text in TEXTS]
    assert tokenizer.decode(half) == tokenizer.decode(bytes_) == TEXTS
    assert sum(map(len, whole)) < sum(map(len, half)) < sum(map(len, bytes_))


def test_each_possible_merge_is_left_out_at_the_rate():
    """The chances of section 3.1 of the paper, for a word in which a b and b c may be merged, and then ab c."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [*SPECIAL_TOKENS, *letters, "ab", "bc", "abc"]
    model = models.BPE({name: i for i, name in enumerate(names)}, [("a", "b"), ("b", "c"), ("ab", "c")])
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    # Each of them is a word of its own, since the end differs.
    words = ["abc" + "".join(end) for end in itertools.product(letters[3:], repeat=3)]
    rate = 0.3
    found = Counter(
        tuple(names[token] for token in row[:-3])
        for row in BpeDropout(words, Tokenizer(backend), rate, seed=(0,)).reading(0)
    )
    kept = 1 - rate
    expected = {
        ("a", "b", "c"): rate * rate,
        ("a", "bc"): rate * kept,
        ("ab", "c"): kept * rate,
        ("abc",): kept * kept,
    }
    assert found.keys() == expected.keys()
    for split, chance in expected.items():
        deviation = (chance * (1 - chance) * len(words)) ** 0.5
        assert abs(found[split] - chance * len(words)) < 4 * deviation, split


def test_a_reading_follows_from_its_seed_and_number():
    first, other = BpeDropout(TEXTS, JOINED, 0.3, seed=(0,)), BpeDropout(TEXTS, JOINED, 0.3, seed=(1,))
    late = BpeDropout(TEXTS, JOINED, 0.3, seed=(0,))
    assert list(late.reading(2)) == list(first.reading(2))
    assert list(late.reading(0)) == list(first.reading(0))
    assert list(first.reading(0)) != list(first.reading(1))
    assert list(first.reading(0)) != list(other.reading(0))


def test_a_word_that_is_one_added_token_stays_whole():
    backend = tokenizers.Tokenizer.from_str(JOINED.to_json())
    backend.add_tokens(["<phone number>"])
    tokenizer = Tokenizer(backend)
    (row,) = BpeDropout(["call <phone number>"], tokenizer, 1.0, (0,)).reading(0)
    assert tokenizer.token_names()[row[-1]] == "<phone number>"
    assert len(row) == len("call ") + 1


def test_other_tokenizers_are_refused():
    word_piece = train_tokenizer(TokenizerConfig(kind="wordpiece", vocab_size=300), TEXTS)
    with pytest.raises(UserError, match="BPE dropout: expected a byte-level BPE tokenizer, got one of WordPiece"):
        BpeDropout(TEXTS, word_piece, 0.1, (0,))


EXAMPLES = Examples(TEXTS, [text.lower() for text in TEXTS])


def _by_epoch(batches: TrainingBatches) -> list[list[Any]]:
    starts = range(0, len(batches), batches.steps_per_epoch)
    return [[batches[start + step] for step in range(batches.steps_per_epoch)] for start in starts]


def test_epochs_take_the_readings_in_turns_and_resumed_ones_the_same():
    encoded = encode_examples(EXAMPLES, JOINED, CONFIG, training=True, seed=5)
    batches = training_batches(encoded, CONFIG, epochs=5, seed=5)
    epochs = [
        sorted(
            tuple(row[:n])
            for batch in steps
            for row, n in zip(batch.source.tolist(), batch.source_lengths, strict=True)
            if n
        )
        for steps in _by_epoch(batches)
    ]
    assert epochs[0] == epochs[4]
    assert all(one != other for one, other in itertools.combinations(epochs[:4], 2))
    for rows in epochs:
        assert sorted(JOINED.decode(rows)) == sorted(text or "" for text in TEXTS)
    again = training_batches(encode_examples(EXAMPLES, JOINED, CONFIG, training=True, seed=5), CONFIG, epochs=9, seed=5)
    last = len(batches) - 1
    assert all(np.array_equal(one, other) for one, other in zip(batches[last], again[last], strict=True))


def test_packed_rows_hold_the_texts_of_each_reading():
    config = BatchConfig(
        size=2, max_source_length=128, max_target_length=128, packing=True, bpe_dropout=0.3, target_bpe_dropout=0.3
    )
    encoded = encode_examples(EXAMPLES, JOINED, config, training=True)
    batches = training_batches(encoded, config, epochs=2, seed=0)
    for steps in _by_epoch(batches):
        found = [
            row[part == segment]
            for batch in steps
            for row, part in zip(batch.source, batch.source_segments, strict=True)
            for segment in range(1, part.max() + 1)
        ]
        assert sorted(JOINED.decode(found)) == sorted(TEXTS)


def test_only_training_reads_so():
    encoded = encode_examples(EXAMPLES, JOINED, CONFIG, training=False)
    rows, lengths = encoded.sources.reading(1).padded(np.arange(len(TEXTS)), 64, JOINED.pad_id)
    whole = Sequences([ids or [JOINED.unk_id] for ids in JOINED.encode(TEXTS)])
    assert np.array_equal(rows, whole.padded(np.arange(len(TEXTS)), 64, JOINED.pad_id)[0])
    assert lengths.tolist() == whole.lengths.tolist()


def test_a_reading_that_would_be_too_long_is_taken_whole():
    """Nothing is cut or left out because of the dropout alone."""
    longest = max(map(len, JOINED.encode(TEXTS)))
    config = BatchConfig(size=4, max_source_length=longest, long="error", bpe_dropout=0.9)
    examples = Examples(TEXTS, list(range(len(TEXTS))))
    encoded = encode_examples(examples, JOINED, config, training=True)
    assert (encoded.dropped, encoded.truncated) == (0, 0)
    rows, lengths = encoded.sources.padded(np.arange(len(TEXTS)), longest, JOINED.pad_id)
    assert JOINED.decode([row[:n] for row, n in zip(rows.tolist(), lengths, strict=True)]) == TEXTS
    assert lengths.max() <= longest
