"""Masked tokens: which are predicted, what is read in their place, and that all of it follows from seed and step."""

from typing import Any

import numpy as np
import pytest

from flax_transformer.config import BatchConfig, TokenizerConfig
from flax_transformer.data.batches import Encoded, Sequences, TrainingBatches, evaluation_batches
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.examples import Examples
from flax_transformer.data.masking import MaskedBatch, Masking, count_predicted
from flax_transformer.data.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(TokenizerConfig(vocab_size=300), ["ab"])
MASKING = Masking.of(TOKENIZER)
PAD, UNK, VOCABULARY = TOKENIZER.pad_id, TOKENIZER.unk_id, TOKENIZER.vocab_size
SPECIAL = {TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id}
LENGTHS = np.array([40, 1, 0, 23, 7, 38], np.int32)
CONFIG = BatchConfig(size=4, max_source_length=40, buckets=2)


def random_source(seed: int = 0) -> np.ndarray:
    """Rows as an imported model has them, framed by special tokens where there is room."""
    source = np.random.default_rng(seed).integers(4, VOCABULARY, size=(len(LENGTHS), 40)).astype(np.int32)
    source[:, 0] = TOKENIZER.bos_id
    source[1, 0] = 9  # a text of one token
    return np.where(np.arange(40) < LENGTHS[:, None], source, PAD).astype(np.int32)


def mask(source: np.ndarray, seed: int = 0) -> MaskedBatch:
    return MASKING.batch(source, LENGTHS, [(seed, row) for row in range(len(source))])


def mistakes(source: np.ndarray, batch: MaskedBatch) -> set[str]:
    """What is wrong with a masked batch."""
    wrong = set()
    changed = batch.source != source
    for row, count in enumerate(batch.counts):
        positions, labels = batch.positions[row, :count], batch.labels[row, :count]
        candidates = sum(token not in SPECIAL for token in source[row, : LENGTHS[row]].tolist())
        if count != count_predicted(candidates) or len(set(positions.tolist())) != count:
            wrong.add("count")
        if (positions >= LENGTHS[row]).any():
            wrong.add("padding")
        if SPECIAL & set(source[row, positions].tolist()):
            wrong.add("special")
        if (labels != source[row, positions]).any():
            wrong.add("labels")
        changed[row, positions] = False
    read = batch.source[batch.source != source]
    if changed.any():
        wrong.add("others")
    if (read >= VOCABULARY).any() or SPECIAL & set(read.tolist()):
        wrong.add("vocabulary")
    return wrong


def test_real_tokens_are_predicted_from_their_labels() -> None:
    for seed in range(20):
        source = random_source(seed)
        batch = mask(source, seed)
        assert mistakes(source, batch) == set()
        assert batch.counts.tolist() == [6, 1, 0, 3, 1, 6]  # 15% of 39, 1, 0, 22, 6 and 37, rounded
        assert batch.positions.shape == batch.labels.shape == (len(LENGTHS), count_predicted(40))
        assert all(array.dtype == np.int32 for array in batch)
        assert (np.diff(batch.positions[0]) > 0).all()


def changed(array: np.ndarray, at: tuple[int, int], value: int) -> np.ndarray:
    array = array.copy()
    array[at] = value
    return array


def test_planted_mistakes_are_seen() -> None:
    source = random_source()
    batch = mask(source)
    place = 3, batch.positions[3, 0]
    after_masking = np.take_along_axis(batch.source, batch.positions, axis=1)
    for name, mistaken in {
        "labels": batch._replace(labels=after_masking),
        "vocabulary": batch._replace(source=changed(batch.source, place, VOCABULARY)),
        "padding": batch._replace(positions=changed(batch.positions, (3, 0), 30)),
        "special": batch._replace(positions=changed(batch.positions, (3, 0), 0)),
        "others": batch._replace(source=np.where(batch.source_mask, UNK, batch.source)),
        "count": batch._replace(counts=batch.counts - (batch.counts > 0)),
    }.items():
        assert name in mistakes(source, mistaken), name


def test_most_are_masked_some_are_random_and_some_are_kept() -> None:
    source = np.random.default_rng(0).integers(4, VOCABULARY, size=(400, 200)).astype(np.int32)
    batch = MASKING.batch(source, np.full(400, 200, np.int32), [(row,) for row in range(400)])
    read = np.take_along_axis(batch.source, batch.positions, axis=1)
    assert read.size == 400 * 30
    masked, kept = (read == UNK).mean(), (read == batch.labels).mean()
    # Four standard deviations; a token drawn at random may be the one that stood there.
    assert abs(masked - 0.8) < 0.015
    assert abs(kept - (0.1 + 0.1 / (VOCABULARY - 4))) < 0.011
    random = read[(read != UNK) & (read != batch.labels)]
    assert set(random.tolist()) <= set(range(4, VOCABULARY))
    assert len(set(random.tolist())) > 0.95 * (VOCABULARY - 4)
    assert np.bincount(batch.positions.ravel(), minlength=200).min() > 30  # each place is predicted


def encoded(count: int = 11) -> Encoded:
    texts = ["abcdefghijklmnopqrstuvwxyz"[: 3 + 2 * i] for i in range(count)]
    return encode_examples(Examples(texts, [None] * count), TOKENIZER, CONFIG, training=True)


def training_batches(encoded: Encoded, config: BatchConfig, **named: Any) -> Any:
    return TrainingBatches(encoded, config, **named)


def fixed_batches(encoded: Encoded, config: BatchConfig) -> Any:
    return evaluation_batches(encoded, config)


def same(a: MaskedBatch, b: MaskedBatch) -> bool:
    return all(np.array_equal(*pair) for pair in zip(a, b, strict=True))


def test_what_a_step_masks_follows_from_seed_and_step_alone() -> None:
    batches = [training_batches(encoded(), CONFIG, epochs=3, seed=seed) for seed in (0, 0, 1)]
    steps = range(len(batches[0]))
    assert all(same(batches[0][step], batches[1][step]) for step in reversed(steps))
    shown = [{batch[step].source.tobytes() for step in steps} for batch in batches]
    assert len(shown[0]) == len(steps)
    assert not shown[0] & shown[2]


def test_another_step_masks_other_tokens_of_the_same_text() -> None:
    one = encode_examples(Examples(["abcdefghijklmnopqrstuvwxyz"], [None]), TOKENIZER, CONFIG, training=True)
    batches = training_batches(one, CONFIG, epochs=8, seed=0)
    assert len({batches[step].positions.tobytes() for step in range(8)}) > 4


@pytest.mark.parametrize("rows", [[0], [1, 3], [0, 1, 2, 3]])
def test_a_host_that_makes_some_rows_masks_them_as_all_hosts_do(rows: list[int]) -> None:
    whole = training_batches(encoded(), CONFIG, epochs=2, seed=3)
    part = training_batches(encoded(), CONFIG, epochs=2, seed=3, rows=np.array(rows))
    for step in range(len(whole)):
        assert same(part[step], type(whole[step])(*(array[rows] for array in whole[step])))


def test_an_evaluation_masks_the_same_tokens_whatever_its_batches() -> None:
    def by_text(size: int, buckets: int) -> dict[int, tuple]:
        found = {}
        for indices, batch in fixed_batches(encoded(), BatchConfig(size=size, buckets=buckets)):
            for row, index in enumerate(indices.tolist()):
                if index >= 0:
                    count = batch.counts[row]
                    length = batch.source_lengths[row]
                    found[index] = (
                        batch.source[row, :length].tolist(),
                        batch.positions[row, :count].tolist(),
                        batch.labels[row, :count].tolist(),
                    )
        return found

    assert by_text(4, 3) == by_text(1, 1)
    assert len({str(places) for _, places, _ in by_text(4, 3).values()}) > 5


def test_filler_and_texts_of_special_tokens_alone_predict_nothing() -> None:
    only_special = Encoded(Sequences([[TOKENIZER.bos_id, TOKENIZER.eos_id]]), MASKING, PAD, UNK)
    (_, batch), *_ = fixed_batches(only_special, CONFIG)
    assert batch.counts.tolist() == [0, 0, 0, 0]
    assert batch.source[0, :2].tolist() == [TOKENIZER.bos_id, TOKENIZER.eos_id]


def test_long_texts_that_are_skipped_leave_the_others_masked() -> None:
    config = BatchConfig(size=4, max_source_length=8, long="skip")
    texts = Examples(["abcdef", "abcdefghijklmnop", "fedcba"], [None] * 3)
    kept = encode_examples(texts, TOKENIZER, config, training=True)
    assert kept.dropped == 1
    assert [batch.counts.tolist() for _, batch in fixed_batches(kept, config)] == [[1, 1, 0, 0]]
