"""The tasks on the real data sets: sizes, known defects, and token lengths that fit the presets."""

from pathlib import Path

import numpy as np
import pytest

from flax_transformer.config import ImdbData, Multi30kData, SnipsData
from flax_transformer.data.batches import Seq2SeqBatch, TrainingBatches
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.tasks import load_splits
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.presets import PRESETS

SHARED = Path(__file__).parents[2] / "shared" / "data"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data sets in ../shared/data")]


def load(kind, name, **arguments):
    splits = load_splits(kind(path=str(SHARED / name), **arguments), seed=0)
    return splits, [set(part.sources) for part in (splits.train, splits.validation, splits.test)]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("split", "sizes"), [("assignment", (15_000, 10_000, 24_581)), ("official", (22_302, 2_478, 25_000))]
)
def test_imdb(split, sizes):
    splits, (train, validation, test) = load(ImdbData, "imdb/reviews.csv.gz", split=split)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == sizes
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)
    assert not any("<br" in text for text in test)
    for part in (splits.train, splits.validation, splits.test):
        assert np.mean(np.array(part.targets)) == pytest.approx(0.5, abs=0.02)


def test_snips():
    splits, (train, validation, test) = load(SnipsData, "snips")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12_909, 700, 700)
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)
    assert sum("[" in target for target in splits.train.targets) > 40


def test_multi30k():
    splits, (train, validation, test) = load(Multi30kData, "multi30k")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (29_000, 1_014, 1_000)
    assert not (train | validation) & test
    backwards, _ = load(Multi30kData, "multi30k", direction="de-en")
    assert (backwards.test.sources, backwards.test.targets) == (splits.test.targets, splits.test.sources)


@pytest.mark.slow
def test_seq2seq_presets_lose_no_pair_and_pad_little():
    splits, _ = load(SnipsData, "snips")
    preset = PRESETS["snips"]["default"]
    tokenizer = train_tokenizer(preset.tokenizer, [*splits.train.sources, *splits.train.targets])
    assert tokenizer.decode(tokenizer.encode(splits.test.targets)) == splits.test.targets
    encoded = encode_examples(splits.train, tokenizer, preset.batch, training=True)
    assert encoded.dropped == 0
    masks = []
    for batch in TrainingBatches(encoded, preset.batch, epochs=1, seed=0):
        assert isinstance(batch, Seq2SeqBatch)
        masks += [batch.source_mask.ravel(), batch.target_mask.ravel()]
    assert 0.7 < np.concatenate(masks).mean() < 1
