"""The public face: what is imported from ``flax_transformer``, from Python instead of the command line."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jaxtyping
import numpy as np
import pytest

import flax_transformer
from flax_transformer import ModelConfig, UserError, create_model, generate, load, train
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    GenerationConfig,
    ImdbData,
    Multi30kData,
    SnipsData,
    TokenizerConfig,
    TrainConfig,
    load_config,
)
from flax_transformer.training.run import Run

ROOT = Path(__file__).parent.parent
TINY: dict[str, Any] = {"d_model": 16, "num_heads": 2, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}
SEQ2SEQ = ModelConfig(**TINY, source_vocab_size=30, target_vocab_size=30, max_length=12)
CLASSIFIER = ModelConfig(**TINY, architecture="classifier", source_vocab_size=30, max_length=12)


def config_of(reviews: Path) -> TrainConfig:
    return TrainConfig(
        data=ClassificationData(path=(str(reviews),)),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(**TINY, architecture="classifier"),
        batch=BatchConfig(size=8, max_source_length=32, buckets=1),
    )


@pytest.fixture(autouse=True)
def without_checks_of_types() -> Iterator[None]:
    """The hook of the parity suite, where it is installed, would be first to refuse what is refused here in words."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def run(classifier_run: Run) -> Run:
    return classifier_run


def test_every_public_name_can_be_imported():
    for name in flax_transformer.__all__:
        assert getattr(flax_transformer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = flax_transformer.nonsense  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_loads_no_framework():
    program = "import sys, flax_transformer; print([m for m in ('jax', 'flax', 'torch', 'numpy') if m in sys.modules])"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_a_run_predicts_what_its_export_predicts(run: Run, tmp_path: Path):
    texts = ["the film was good", "the film was poor"]
    exported = run.export(str(tmp_path / "export"))
    assert exported.predict(texts) == run.predict(texts) == load(str(tmp_path / "export")).predict(texts)
    assert {prediction.value for prediction in run.predict(texts)} <= {"good", "poor"}
    assert 0 <= float(run.scores["accuracy"]) <= 1


def test_a_model_is_called_without_lengths():
    ids = np.array([[3, 4, 5]])
    full = np.array([3])
    classifier, model = (cast(Any, create_model(config)) for config in (CLASSIFIER, SEQ2SEQ))
    assert (classifier(ids) == classifier(ids, full)).all()
    assert (model(ids, ids) == model(ids, ids, full, full)).all()
    assert (generate(model, ids).tokens == generate(model, ids, full, GenerationConfig(12)).tokens).all()


IDS = np.array([[3, 4, 5]])
generate_with: Any = generate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IDS.astype(float), IDS), "source: expected integer token ids, got float"),
        ((IDS[0], IDS), r"source: expected token ids of shape \(batch, length\), got shape \(3,\)"),
        ((IDS + 30, IDS), r"source: expected token ids in \[0, 30\), got 33 to 35"),
        ((IDS - 9, IDS), r"source: expected token ids in \[0, 30\), got -6 to -4"),
        ((IDS, IDS + 30), r"target: expected token ids in \[0, 30\)"),
        ((IDS, IDS, np.array([4])), r"source_lengths: expected lengths in \[0, 3\], the width of the rows, got 4 to 4"),
        ((IDS, IDS, np.array([3, 3])), r"source_lengths: expected one length for each of 1 rows, got shape \(2,\)"),
        ((IDS, IDS, np.array([3.0])), "source_lengths: expected integer lengths"),
        ((IDS, IDS, None, np.array([-1])), "target_lengths: expected lengths in"),
        ((np.ones((1, 13), int), IDS), "max_length=12 positions, got 13"),
    ],
)
def test_wrong_arguments_of_a_model_are_one_clear_error(arguments: tuple[Any, ...], message: str):
    with pytest.raises(UserError, match=message):
        create_model(SEQ2SEQ)(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run, tmp: load(tmp / "nothing"), "expected the folder of a run or of an export, but there is none"),
        (lambda run, tmp: load(tmp), "config"),
        (lambda run, tmp: run.predict("one text"), r"expected a list of texts, got the single text 'one text'"),
        (lambda run, tmp: run.predict(["a text"], top=0), "top: expected a whole number of at least 1, got 0"),
        (
            lambda run, tmp: run.predict(["a text"], batch_size=0),
            "BatchConfig.size: expected a whole number of at least",
        ),
        (lambda run, tmp: run.embed(["a text"], "horse"), "pooling: expected one of mean, first, max, got 'horse'"),
        (lambda run, tmp: run.export(run.folder), "exists|empty|taken"),
        (lambda run, tmp: train(run.config, run.folder), "exists"),
        (lambda run, tmp: train(run.config.model, tmp / "new"), "config: expected a TrainConfig, got ModelConfig"),
        (lambda run, tmp: train(run.config, tmp / "new", resume=True), "run"),
        (
            lambda run, tmp: generate_with(create_model(CLASSIFIER), IDS),
            "expected a seq2seq model to generate with",
        ),
        (
            lambda run, tmp: generate_with(create_model(SEQ2SEQ), IDS.astype(float)),
            "source: expected whole numbers",
        ),
        (lambda run, tmp: generate_with(create_model(SEQ2SEQ), IDS + 30), r"source: expected ids in \[0, 30\)"),
    ],
)
def test_wrong_arguments_elsewhere_are_one_clear_error(run: Run, tmp_path: Path, call: Any, message: str):
    with pytest.raises(UserError, match=message):
        call(run, tmp_path)


def test_texts_may_come_from_a_generator(run: Run):
    """Which can be gone through only once; and none at all have a shape as well."""
    texts = ["the film was good", "the film was poor"]
    assert run.predict(text for text in texts) == run.predict(texts)
    assert np.array_equal(run.embed(map(str, texts)), run.embed(texts))
    assert run.predict([]) == []
    assert run.embed([]).shape == (0, run.config.model.d_model)


def test_paths_are_as_good_as_their_names(reviews: Path):
    config = replace(config_of(reviews), pretrained=cast(Any, reviews.parent))
    assert config.pretrained == str(reviews.parent)
    single: Any = reviews
    assert ClassificationData(path=single) == ClassificationData(path=(single,)) == config.data
    for kind in (ImdbData, Multi30kData, SnipsData, TokenizerConfig):
        assert kind(path=single).path == str(reviews)


def test_training_shows_no_warnings_of_libraries(reviews: Path, tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from test_api import config_of; from flax_transformer import train\n"
        f"train(config_of(Path({str(reviews)!r})), {str(tmp_path / 'run')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not re.search("warn|absl", done.stdout + done.stderr, re.IGNORECASE), done.stderr


# --- version 0.1.0 ---


def test_an_export_of_version_0_1_0_is_read(run: Run, tmp_path: Path):
    """Its weights had other names, and it knew no limits of prediction."""
    import safetensors.numpy

    old = tmp_path / "old"
    shutil.copytree(run.export(tmp_path / "new").folder, old)
    (old / "prediction.json").unlink()
    weights = safetensors.numpy.load_file(old / "model.safetensors")
    names = {"up_proj": "expand", "down_proj": "contract"}
    renamed = {re.sub("up_proj|down_proj", lambda match: names[match[0]], name): w for name, w in weights.items()}
    assert renamed.keys() != weights.keys()
    safetensors.numpy.save_file(renamed, old / "model.safetensors")
    assert load(old).predict(["the film was good"]) == run.predict(["the film was good"])
    pytest.importorskip("torch")
    import torch_reference

    assert torch_reference.load(old).state_dict().keys() == weights.keys()


def test_tables_shared_as_in_version_0_1_0_are_read(run: Run, tmp_path: Path):
    run.export(tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    for old, new in ((True, "all"), (False, "none")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_embeddings": old}), encoding="utf-8")
        assert load_config(ModelConfig, path).tie_embeddings == new


def test_a_run_of_version_0_1_0_is_refused_with_the_way_out(run: Run, tmp_path: Path):
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    for file in [old / "config.json", *old.glob("checkpoints/*/_CHECKPOINT_METADATA")]:
        text = file.read_text().replace("gradient_accumulation_steps", "accumulation")
        file.write_text(text.replace("max_grad_norm", "clip_norm"))
        json.loads(text)
    with pytest.raises(UserError, match=r"got one of 0\.1\.0; export the run with version 0\.1\.0"):
        load(old).predict(["the film was good"])


def test_a_config_of_version_0_1_0_without_validation_and_test_files_is_read(tmp_path: Path):
    data = {"task": "classification", "path": "reviews.csv", "validation_path": None, "test_path": None}
    values = {"data": data, "model": {"architecture": "classifier"}, "accumulation": 2}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = load_config(TrainConfig, tmp_path / "config.json")
    assert config.data == ClassificationData(path=("reviews.csv",))
    assert config.gradient_accumulation_steps == 2
