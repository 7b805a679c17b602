"""Models trained here in the classes of transformers: logits and tokens, pipelines, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served_models import LIMITS, OWN, POST_LN, SEQ2SEQ, TEXTS, TOKENIZER, padded, random_export
from twins import STACK, ulps

from flax_transformer.cli import main as cli
from flax_transformer.config import GenerationConfig
from flax_transformer.data.encoding import encode_sources
from flax_transformer.errors import UserError
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.huggingface import own
from flax_transformer.interop.huggingface.exporting import write_model
from flax_transformer.interop.huggingface.shapes import weight_shapes
from flax_transformer.training.run import load_trained
from torch_reference.decoding.generate import generate, read_tokens
from torch_reference.interop.export import load_export

transformers = pytest.importorskip("transformers", reason="needs transformers, to read what is exported for it")

AS_BERT = {"positions": "learned", "embedding_norm": True, "pooling": "first", "head_hidden": "tanh"}


def export(source: Path, directory: Path) -> Path:
    assert cli.main(["export", str(source), str(directory), "--format", "hf"]) == 0
    return directory


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_a_generator_of_ours_writes_the_same_tokens_in_transformers(name: str, tmp_path: Path):
    change, expected_class = SEQ2SEQ[name]
    source = random_export(tmp_path / "ours", dataclasses.replace(OWN, **change))
    folder = export(source, tmp_path / "theirs")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert type(theirs).__name__ == expected_class
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    ids, lengths = padded(TEXTS)
    assert encoded["input_ids"].tolist() == ids.tolist()
    ours = load_export(source)
    target = torch.full((len(TEXTS), 5), 7)
    target[:, 0] = OWN.bos_id
    with torch.no_grad():
        mine = ours(torch.tensor(ids), target, torch.tensor(lengths)).numpy()
        logits = theirs(**_known(encoded), decoder_input_ids=target).logits.numpy()
    assert ulps(mine, logits) <= STACK
    tokens = read_tokens(generate(ours, torch.tensor(ids), torch.tensor(lengths), GenerationConfig(12)))
    # The limit and the begin token are those of generation_config.json.
    assert [_until_end(row) for row in theirs.generate(**_known(encoded)).tolist()] == tokens


def _known(encoded: Any) -> dict[str, torch.Tensor]:
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def _until_end(row: list[int]) -> list[int]:
    row = row[1:]
    return row[: row.index(OWN.eos_id)] if OWN.eos_id in row else row


def test_weights_that_do_not_turn_with_the_sinusoids_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(own, "_RESIDUAL_AXES", own._RESIDUAL_AXES[:-1])
    source = random_export(tmp_path / "ours", OWN)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(export(source, tmp_path / "theirs")).eval()
    ids, target = torch.tensor([[5, 6, 7]]), torch.tensor([[OWN.bos_id, 8]])
    with torch.no_grad():
        mine, logits = load_export(source)(ids, target), theirs(input_ids=ids, decoder_input_ids=target).logits
    assert ulps(mine, logits) > 1000 * STACK


def test_a_classifier_of_ours_answers_in_a_pipeline(tmp_path: Path):
    config = dataclasses.replace(OWN, architecture="classifier", num_classes=3, **POST_LN, **AS_BERT)
    source = random_export(tmp_path / "ours", config)
    folder = export(source, tmp_path / "theirs")
    ours = Exported.load(source).predict(TEXTS)
    theirs = transformers.pipeline("text-classification", model=str(folder), batch_size=len(TEXTS))(TEXTS)
    assert [prediction.value for prediction in ours] == [answer["label"] for answer in theirs]
    assert np.allclose([prediction.score for prediction in ours], [answer["score"] for answer in theirs], atol=1e-6)
    assert len({answer["score"] for answer in theirs}) == len(TEXTS)


def test_labels_that_a_text_has_several_of_there_and_back(tmp_path: Path):
    """The problem type decides for sigmoids: pipelines agree, and the import predicts the same."""
    config = dataclasses.replace(OWN, architecture="classifier", num_classes=3, **POST_LN, **AS_BERT)
    halves = dataclasses.replace(LIMITS, thresholds=(0.5, 0.5, 0.5))
    source = random_export(tmp_path / "ours", config, halves)
    folder = export(source, tmp_path / "theirs")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    assert theirs.config.problem_type == "multi_label_classification"
    pipeline = transformers.pipeline("text-classification", model=str(folder), batch_size=len(TEXTS), top_k=None)
    scores = [{answer["label"]: answer["score"] for answer in answers} for answers in pipeline(TEXTS)]
    ids, lengths = padded(TEXTS)
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    assert cli.main(["import", str(folder), str(tmp_path / "back")]) == 0
    for ours in (source, tmp_path / "back"):
        with torch.no_grad():
            mine = load_export(ours)(torch.tensor(ids), torch.tensor(lengths)).numpy()
            assert ulps(mine, theirs(**_known(encoded)).logits.numpy()) <= STACK
        for prediction, expected in zip(Exported.load(ours).predict(TEXTS, threshold=0.0), scores, strict=True):
            assert isinstance(prediction.value, tuple)
            found = dict(zip(prediction.value, prediction.label_scores, strict=True))
            assert found == pytest.approx(expected, abs=1e-6)


def test_without_the_problem_type_the_probabilities_are_others(tmp_path: Path):
    """The planted mistake: classes that exclude each other."""
    config = dataclasses.replace(OWN, architecture="classifier", num_classes=3, **POST_LN, **AS_BERT)
    source = random_export(tmp_path / "ours", config, dataclasses.replace(LIMITS, thresholds=(0.5, 0.5, 0.5)))
    settings = export(source, tmp_path / "theirs") / "config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    del values["problem_type"]
    settings.write_text(json.dumps(values), encoding="utf-8")
    assert cli.main(["import", str(tmp_path / "theirs"), str(tmp_path / "back")]) == 0
    assert not Exported.load(tmp_path / "back").thresholds()
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path / "theirs"), top_k=None)
    assert sum(answer["score"] for answer in pipeline(TEXTS[:1])[0]) == pytest.approx(1)


def test_pairs_of_texts_have_the_same_ids_and_logits(tmp_path: Path):
    """The tokenizer that was trained here says in its file where the second text stands, and of which type it is."""
    config = dataclasses.replace(OWN, architecture="classifier", num_classes=3, token_types=2, **POST_LN, **AS_BERT)
    source = random_export(tmp_path / "ours", config)
    folder = export(source, tmp_path / "theirs")
    limits: Any = {"padding": True, "truncation": True, "max_length": 12}
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, TEXTS[::-1], return_tensors="pt", **limits)
    sources = encode_sources(list(zip(TEXTS, TEXTS[::-1], strict=True)), TOKENIZER, 12, "cut")
    assert any(sources.cut)
    ids, lengths = sources.sequences.padded(np.arange(len(TEXTS)), 12, TOKENIZER.pad_id)
    assert encoded["input_ids"].tolist() == ids.tolist()
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        mine = load_export(source)(torch.tensor(ids), torch.tensor(lengths))
        logits = theirs.eval()(**encoded).logits
        of_one_text = theirs(**_known(encoded)).logits
    assert ulps(mine.numpy(), logits.numpy()) <= STACK
    assert ulps(of_one_text.numpy(), logits.numpy()) > 2 * STACK


@pytest.mark.slow
def test_a_fine_tuned_import_answers_in_a_pipeline(tmp_path: Path):
    """Its tokenizer frames texts with the special tokens of the checkpoint, in training and everywhere after it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "good", "poor"]
    settings = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
    )
    transformers.BertForMaskedLM(settings).save_pretrained(tmp_path / "bert")
    transformers.BertTokenizer(vocab=dict(zip(words, range(9), strict=True))).save_pretrained(tmp_path / "bert")
    texts = [f"the film was {word} {'the ' * n}" for n in range(20) for word in ("good", "poor")]
    rows = [f"{text},{text.split()[3]}\n" for text in texts]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    data = ["--data.path", str(tmp_path / "reviews.csv"), "--batch.buckets", "1", "--batch.size", "8"]
    train = ["train", "classification", *data, "--epochs", "1", "--model.head-hidden", "tanh"]
    assert cli.main(["import", str(tmp_path / "bert"), str(tmp_path / "imported")]) == 0
    run = tmp_path / "run"
    assert cli.main([*train, "--pretrained", str(tmp_path / "imported"), "--run", str(run)]) == 0
    ours = load_trained(run).predict(texts)
    folder = export(run, tmp_path / "theirs")
    theirs = transformers.pipeline("text-classification", model=str(folder), batch_size=8)(texts)
    assert [prediction.value for prediction in ours] == [answer["label"] for answer in theirs]
    assert np.allclose([prediction.score for prediction in ours], [answer["score"] for answer in theirs], atol=1e-5)
    assert len({answer["score"] for answer in theirs}) > 2


def test_files_are_readable_and_marked(tmp_path: Path):
    import safetensors

    folder = export(random_export(tmp_path / "ours", OWN), tmp_path / "theirs")
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    with safetensors.safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
    # What CTranslate2 reads of a Pegasus.
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (settings["normalize_before"], settings["normalize_embedding"]) == (True, False)


# Of a config -> the flags to train with instead.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rope": ({"positions": "rope", "d_ff": 29, "num_heads": 3}, "train with --model.positions sinusoidal"),
    "separate tables": ({"tie_embeddings": "none"}, "train with --model.tie-embeddings all"),
    "no biases": ({"bias": False}, "train with --model.bias"),
    "another epsilon": ({"norm_eps": 1e-6}, "train with --model.norm-eps 1e-05"),
    "mean pooling": (
        {"architecture": "classifier", **POST_LN, **AS_BERT, "pooling": "mean"},
        "BertForSequenceClassification: train with --model.pooling first",
    ),
    "pre-LN classifier": (
        {"architecture": "classifier", **AS_BERT},
        "train with --model.no-norm-first --model.no-final-norm",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_transformers_has_no_class_for_is_refused(name: str):
    change, advice = REFUSED[name]
    config = dataclasses.replace(OWN, **change)
    weights = {key: np.zeros(shape, np.float32) for key, shape in weight_shapes(config).items()}
    with pytest.raises(UserError, match="expected a model that transformers has a class for") as caught:
        write_model(config, weights)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_export_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = random_export(tmp_path / "ours", dataclasses.replace(OWN, positions="rope"))
    assert cli.main(["export", str(source), str(tmp_path / "theirs"), "--format", "hf"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours"]
