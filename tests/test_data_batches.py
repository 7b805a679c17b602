"""Batches: every example once, few shapes, an order that follows from the seed, filler, and lengths out of bounds."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from examples_by_length import BOS, EOS, PAD, TOKENIZER, UNK, encoded_of, pairs, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.config import BatchConfig
from flax_transformer.data.batches import Seq2SeqBatch, Sequences, TrainingBatches, evaluation_batches, make_buckets
from flax_transformer.data.encoding import encode_examples, encode_sources
from flax_transformer.data.examples import Examples
from flax_transformer.errors import UserError

CONFIG = BatchConfig(size=4, max_source_length=64, max_target_length=64, buckets=3)
configs = st.builds(
    BatchConfig,
    size=st.integers(1, 9),
    buckets=st.integers(1, 7),
    max_source_length=st.integers(64, 70),
    max_target_length=st.integers(64, 70),
)


def check_rows(batch, indices, lengths, config):
    """Each real row is the example of its index, right-padded; each filler row is empty."""
    assert batch.source.dtype == batch.source_lengths.dtype == np.int32
    assert batch.source.shape[0] == config.size
    assert batch.source.shape[1] <= config.max_source_length
    assert (batch.source_mask == (batch.source != PAD)).all()
    for row, index in enumerate(indices):
        source_length, target_length = lengths[index] if index >= 0 else (0, 0)
        assert batch.source_lengths[row] == source_length
        assert (batch.source[row, :source_length] == 10 + index).all()
        if isinstance(batch, Seq2SeqBatch):
            real = [BOS, *[10 + index] * target_length, EOS] if index >= 0 else []
            assert batch.target_lengths[row] == len(real)
            assert batch.target[row, : len(real)].tolist() == real
            assert batch.target.shape[1] <= config.max_target_length
            assert batch.target.dtype == np.int32
        else:
            assert batch.labels[row] == max(index, 0)


def indices_of(batch):
    return np.where(batch.source_lengths > 0, batch.source[:, 0] - 10, -1)


@settings(deadline=None)
@given(pairs | texts, configs, st.integers(0, 3))
def test_every_epoch_holds_every_example_once_in_few_shapes(lengths, config, seed):
    batches = TrainingBatches(encoded_of(lengths), config, epochs=2, seed=seed)
    assert len(batches) == 2 * batches.steps_per_epoch
    shapes = set()
    for epoch in range(2):
        seen = []
        for step in range(batches.steps_per_epoch):
            batch = batches[epoch * batches.steps_per_epoch + step]
            indices = indices_of(batch)
            check_rows(batch, indices, lengths, config)
            seen += indices[indices >= 0].tolist()
            shapes.add(tuple(array.shape for array in batch))
        assert sorted(seen) == list(range(len(lengths)))
    assert len(shapes) <= config.buckets


@settings(deadline=None)
@given(pairs | texts, configs)
def test_evaluation_holds_every_example_once_short_ones_first(lengths, config):
    seen, sizes = [], []
    for indices, batch in evaluation_batches(encoded_of(lengths), config):
        assert (indices == indices_of(batch)).all()
        check_rows(batch, indices, lengths, config)
        seen += indices[indices >= 0].tolist()
        sizes.append(sum(array.size for array in batch))
    assert sorted(seen) == list(range(len(lengths)))
    assert sizes == sorted(sizes)


def padded_tokens(lengths, config):
    buckets = make_buckets(encoded_of(lengths), config)
    return sum(-(-len(bucket.indices) // config.size) * config.size * sum(bucket.shape) for bucket in buckets)


@settings(deadline=None)
@given(pairs | texts, configs)
def test_another_bucket_never_adds_padding(lengths, config):
    work = [padded_tokens(lengths, dataclasses.replace(config, buckets=buckets)) for buckets in range(1, 6)]
    assert work == sorted(work, reverse=True)


def test_the_cut_that_saves_most_is_made():
    lengths = [(8, None)] * 8 + [(16, None)] * 8 + [(64, None)] * 8
    shapes = [
        [bucket.shape.source for bucket in make_buckets(encoded_of(lengths), dataclasses.replace(CONFIG, buckets=n))]
        for n in range(1, 5)
    ]
    assert shapes == [[64], [16, 64], [8, 16, 64], [8, 16, 64]]


def test_buckets_follow_both_lengths():
    lengths = [(source, target) for source in (8, 64) for target in (7, 55) for _ in range(8)]
    buckets = make_buckets(encoded_of(lengths), dataclasses.replace(CONFIG, buckets=4))
    assert [bucket.shape for bucket in buckets] == [(8, 9), (8, 57), (64, 9), (64, 57)]
    assert all(len({lengths[i] for i in bucket.indices}) == 1 for bucket in buckets)


def test_filler_counts_as_work():
    """Three more rows in a batch of their own cost more than padding them to the length of the others."""
    lengths = [(56, None)] * 3 + [(64, None)] * 5
    assert len(make_buckets(encoded_of(lengths), CONFIG)) == 1


def test_lengths_are_rounded_up_but_never_over_the_maximum():
    config = dataclasses.replace(CONFIG, buckets=1, max_source_length=20, max_target_length=30)
    for length, target, shape in [(9, 14, (16, 17)), (16, 15, (16, 17)), (17, 16, (20, 25)), (20, 28, (20, 30))]:
        (bucket,) = make_buckets(encoded_of([(length, target)]), config)
        assert bucket.shape == shape  # a target of n text tokens has n + 2


def run_of(lengths, config, **arguments):
    batches = TrainingBatches(encoded_of(lengths), config, **arguments)
    return [indices_of(batch).tolist() for batch in batches]


def test_order_is_a_function_of_seed_and_epoch():
    lengths = [(n % 60 + 1, n % 31) for n in range(100)]
    run = run_of(lengths, CONFIG, epochs=2, seed=1)
    assert run == run_of(lengths, CONFIG, epochs=2, seed=1)
    assert run == run_of(lengths, CONFIG, epochs=5, seed=1)[: len(run)]
    assert run[: len(run) // 2] != run[len(run) // 2 :]
    assert run != run_of(lengths, CONFIG, epochs=2, seed=2)


def test_a_step_can_be_asked_for_at_any_time():
    config = dataclasses.replace(CONFIG, word_dropout=0.3)
    lengths = [(n % 60 + 1, n % 31) for n in range(40)]
    forwards = list(TrainingBatches(encoded_of(lengths), config, epochs=3, seed=1))
    batches = TrainingBatches(encoded_of(lengths), config, epochs=3, seed=1)
    for step in reversed(range(len(batches))):
        for one, other in zip(forwards[step], batches[step], strict=True):
            np.testing.assert_array_equal(one, other)
    for step in (-1, len(batches)):
        with pytest.raises(IndexError):
            batches[step]


def test_word_dropout_replaces_its_share_of_source_tokens_in_training_only():
    config = dataclasses.replace(CONFIG, word_dropout=0.2)
    encoded = encoded_of([(60, 20)] * 400)
    batches = list(TrainingBatches(encoded, config, epochs=1, seed=0))
    source = np.concatenate([batch.source for batch in batches])
    assert abs((source == UNK).sum() / (60 * 400) - 0.2) < 0.01
    assert ((source == PAD) == ~np.concatenate([batch.source_mask for batch in batches])).all()
    assert not any((batch.target == UNK).any() for batch in batches if isinstance(batch, Seq2SeqBatch))
    assert not any((batch.source == UNK).any() for _, batch in evaluation_batches(encoded, config))


def test_examples_are_encoded_with_begin_and_end():
    encoded = encode_examples(Examples(["ab", ""], ["b", ""]), TOKENIZER, CONFIG, training=False)
    ((indices, batch),) = evaluation_batches(encoded, CONFIG)
    assert isinstance(batch, Seq2SeqBatch)
    assert indices.tolist() == [1, 0, -1, -1]
    (a, b), (b_alone,) = TOKENIZER.encode(["ab", "b"])
    assert b == b_alone
    assert batch.source[:2, :3].tolist() == [
        [UNK, PAD, PAD],
        [a, b, PAD],
    ]  # a text without tokens is one unknown token, not filler
    assert batch.target[:2, :3].tolist() == [[BOS, EOS, PAD], [BOS, b, EOS]]
    assert batch.target_lengths.tolist() == [2, 3, 0, 0]


def test_long_texts_are_cut_for_classification_and_counted():
    encoded = encode_examples(Examples(["b" * 65, "b" * 64], [1, 0]), TOKENIZER, CONFIG, training=True)
    assert (encoded.truncated, encoded.dropped) == (1, 0)
    assert encoded.sources.lengths.tolist() == [64, 64]


def test_long_pairs_are_left_out_and_counted():
    pairs = Examples(["b" * 65, "b", "b" * 64], ["b", "b" * 63, "b" * 62])
    encoded = encode_examples(pairs, TOKENIZER, CONFIG, training=True)
    assert (len(encoded), encoded.dropped, encoded.truncated) == (1, 2, 0)
    assert encoded.kept is not None
    assert encoded.kept.tolist() == [2]
    assert isinstance(encoded.targets, Sequences)
    assert encoded.sources.lengths.tolist() == encoded.targets.lengths.tolist() == [64]
    with pytest.raises(UserError, match="all 1 texts are longer"):
        encode_examples(Examples(["b" * 65], ["b"]), TOKENIZER, CONFIG, training=True)


def test_evaluation_leaves_long_sources_out_and_cuts_long_targets_for_the_loss():
    """Never by the luck of the split: what training leaves out, evaluation does not refuse."""
    pairs = Examples(["b", "b" * 70, "b"], ["b" * 70, "b", "b"])
    encoded = encode_examples(pairs, TOKENIZER, CONFIG, training=False)
    assert (encoded.dropped, encoded.truncated) == (1, 1)
    assert encoded.kept is not None
    assert encoded.kept.tolist() == [0, 2]
    assert isinstance(encoded.targets, Sequences)
    assert encoded.targets.lengths.tolist() == [64, 3]


@pytest.mark.parametrize("training", [False, True])
def test_long_texts_are_what_the_config_says(training: bool):
    pairs = Examples(["b" * 65, "b", "b"], ["b", "b" * 63, "b"], ["f.csv, line 2", "f.csv, line 3", "f.csv, line 4"])
    labelled = Examples(["b", "b" * 65], [0, 1], ["f.csv, line 2", "f.csv, line 3"])
    cut = replace(CONFIG, long="cut")
    encoded = encode_examples(pairs, TOKENIZER, cut, training=training)
    assert (len(encoded), encoded.dropped, encoded.truncated) == (3, 0, 2)
    skip = encode_examples(labelled, TOKENIZER, replace(CONFIG, long="skip"), training=training)
    assert (len(skip), skip.dropped, skip.truncated) == (1, 1, 0)
    assert skip.labels.tolist() == [0]
    refuse = replace(CONFIG, long="error")
    message = r"f\.csv, line 2 \('bbb.*'\.\.\.\): expected a source of at most 64 tokens, got 65, and 0 more"
    with pytest.raises(UserError, match=message):
        encode_examples(pairs, TOKENIZER, refuse, training=training)
    with pytest.raises(UserError, match=r"f\.csv, line 3 .* raise --batch\.max-source-length, or choose --batch\.long"):
        encode_examples(labelled, TOKENIZER, refuse, training=training)
    if training:
        with pytest.raises(UserError, match=r"f\.csv, line 3 .*: expected a target of at most 64 tokens, got 65"):
            encode_examples(pairs.take([1, 2]), TOKENIZER, refuse, training=True)


def test_each_text_to_predict_for_has_tokens_or_a_reason():
    texts = ["ab", "", " \t", None, "b" * 65, "\ud800", "b" * 64]
    for what in ("cut", "skip", "error"):
        sources = encode_sources(texts, TOKENIZER, 64, what)
        problems = ["", "is blank", "is blank", "no text", "" if what == "cut" else "65 tokens", "surrogate", ""]
        for problem, expected in zip(sources.problems, problems, strict=True):
            assert bool(problem) == bool(expected)
            assert expected in problem
        lengths = [2, 64, 64] if what == "cut" else [2, 64]
        assert sources.sequences.lengths.tolist() == lengths
        assert sources.cut == [what == "cut" and i == 4 for i in range(7)]
    assert encode_sources([], TOKENIZER, 64, "cut").problems == []
    assert encode_sources(["", None], TOKENIZER, 64, "cut").sequences.lengths.tolist() == []


def test_no_examples_are_a_users_mistake_and_uneven_ones_a_programmers():
    with pytest.raises(UserError, match="at least one example"):
        encode_examples(Examples([], []), TOKENIZER, CONFIG, training=False)
    with pytest.raises(ValueError, match="2 and 1"):
        Examples(["a", "b"], [0])


def test_unanswered_texts_have_placeholder_targets():
    assert Examples.unanswered(["a"], "seq2seq").targets == [""]
    assert Examples.unanswered(["a"], "classifier").targets == [0]
