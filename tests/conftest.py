"""Shared by the tests of training and the command line: small data, and exports with random weights."""

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flax_transformer.config import BatchConfig, ClassificationData, ModelConfig, TokenizerConfig, TrainConfig

# Fixtures import the twins: the conftest of parity_tests first installs a hook that checks their signatures.
if TYPE_CHECKING:
    from flax_transformer.training.run import Run


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 80 labelled texts; one word of each decides its label."""
    rng = random.Random(0)
    lines = ["text,label"]
    for _ in range(80):
        label = rng.choice(["good", "poor"])
        words = rng.choices(["the", "film", "was", "very", "long", "and", "loud"], k=rng.randint(2, 9))
        words.insert(rng.randrange(len(words)), label)
        lines.append(f"{' '.join(words)},{label}")
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def classifier_run(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Of two classes, trained for two epochs. It is read by many tests, and written by none."""
    from flax_transformer import train

    config = TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig("classifier", d_model=8, num_heads=2, d_ff=12, num_encoder_layers=1, max_length=64),
        batch=BatchConfig(size=8, max_source_length=16, buckets=1),
        epochs=2,
    )
    return train(config, tmp_path_factory.mktemp("runs") / "classifier")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three classes. It is read by many tests, and written by none."""
    from random_exports import save_model

    return save_model(tmp_path_factory.mktemp("exports") / "classifier", "classifier")


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from random_exports import save_model

    return save_model(tmp_path_factory.mktemp("exports") / "generator", "seq2seq")


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A checkpoint of transformers, with three classes."""
    from checkpoints import make_checkpoint

    return make_checkpoint(tmp_path / "bert")


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed is not the point of a test."""
    from flax_transformer.bench import measure

    monkeypatch.setattr(measure, "TURN_SECONDS", 0.05)
