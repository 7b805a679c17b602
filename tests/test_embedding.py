"""Texts as vectors: what they are, that they do not depend on their neighbours, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_exports import CLASSES, TEXTS, save_model

from flax_transformer import UserError, load
from flax_transformer.cli.main import main
from flax_transformer.interop.export import save_export
from flax_transformer.interop.exported import Exported
from flax_transformer.nn.models import Classifier, create_model

SOME = ["the film", *TEXTS[:9], "loud"]


@pytest.fixture(scope="module", params=["classifier", "seq2seq"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    given = Exported.load(save_model(folder / "classifier", "classifier"))
    model = create_model(replace(given.config, num_classes=0))
    save_export(folder / "bare", model, given.tokenizer)
    (folder / "bare" / "classes.json").write_text("[]\n", encoding="utf-8")
    return folder / "bare"


def by_hand(trained: Exported, text: str, pooling: str) -> np.ndarray:
    """Of one text alone, pooled in numpy."""
    ids = jnp.asarray(trained.tokenizer.encode([text]))
    memory = np.asarray(nnx.jit(lambda model, ids: model.encode(ids))(trained.model, ids))[0]
    pooled = {"mean": memory.mean(axis=0), "first": memory[0], "max": memory.max(axis=0)}[pooling]
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize("pooling", ["mean", "first", "max"])
@pytest.mark.sample(1)
def test_each_text_has_its_own_vector_whatever_stands_beside_it(exported: Path, pooling):
    trained = Exported.load(exported)
    vectors = trained.embed(SOME, pooling, batch_size=4)
    assert vectors.shape == (len(SOME), 16)
    for text, vector in zip(SOME, vectors, strict=True):
        np.testing.assert_allclose(vector, by_hand(trained, text, pooling), rtol=0, atol=1e-5)
    assert not np.allclose(vectors[0], vectors[-1], atol=1e-2)


def test_a_line_for_each_text(exported: Path, capsys: pytest.CaptureFixture[str]):
    texts = ["the film", " ", "very " * 200]
    assert main(["predict", str(exported), *texts, "--embed", "mean", "--long", "cut"]) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3]
    assert np.linalg.norm(lines[0]["embedding"]) == pytest.approx(1, abs=1e-6)
    assert lines[1] == {"row": 2, "text": " ", "prediction": None, "error": "the text is blank"}
    assert lines[2]["cut"] is True
    assert "1 of 3 texts have no prediction (1 blank); 1 of 3 texts were cut" in captured.err


@pytest.mark.slow
def test_a_bare_encoder_embeds_and_does_nothing_else(bare: Path, capsys: pytest.CaptureFixture[str]):
    model = Exported.load(bare).model
    assert isinstance(model, Classifier)
    assert model(jnp.ones((2, 5), int)).shape == (2, 16)
    assert load(bare).embed(["the film"]).shape == (1, 16)
    assert main(["predict", str(bare), "the film"]) == 2
    assert "expected a model with a head for classes, got a bare encoder" in capsys.readouterr().err


def test_wrong_arguments(exported: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError, match="expected a list of texts"):
        load(exported).embed("the film")
    if Exported.load(exported).classes == CLASSES:
        assert main(["predict", str(exported), "a", "--embed", "mean", "--top", "2"]) == 2
        assert "--embed: expected neither --top nor --review" in capsys.readouterr().err
    assert main(["predict", str(exported), "a", "--embed", "sum"]) == 2
    assert "expected one of" in capsys.readouterr().err.lower()


def test_blank_texts_have_no_vector(exported: Path):
    vectors = load(exported).embed(["the film", ""])
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True]
