"""Pairs of texts, such as premise and hypothesis: read, split, encoded, trained on, scored and predicted for."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from checkpoints import CLS, FILM, GOOD, SEP, THE, WAS, WORDS, make_checkpoint

from flax_transformer import load, train
from flax_transformer.cli.main import main
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    MaskedData,
    ModelConfig,
    MultilabelData,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from flax_transformer.data.batches import TrainingBatches
from flax_transformer.data.encoding import Sources, check_pairs, encode_examples, encode_sources
from flax_transformer.data.examples import Examples
from flax_transformer.data.fingerprint import fingerprint, trained_on
from flax_transformer.data.tasks import load_splits
from flax_transformer.data.tokenizer import Tokenizer, train_tokenizer
from flax_transformer.errors import UserError
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.huggingface.importing import import_checkpoint
from flax_transformer.interop.imported import save_imported
from flax_transformer.training.evaluate import Evaluator
from flax_transformer.training.pretrained import start_from
from flax_transformer.training.run import Run
from flax_transformer.training.step import TrainStep

OWN = train_tokenizer(TokenizerConfig(vocab_size=300), ["the film was good", "a poor film"])
COLUMNS = ("premise", "hypothesis")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("checkpoints") / "bert", max_position_embeddings=24, num_hidden_layers=1
    )


@pytest.fixture(scope="module")
def imported(checkpoint: Path) -> Tokenizer:
    tokenizer = import_checkpoint(checkpoint).tokenizer
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only the order of two texts tells their label."""
    rng, rows = np.random.default_rng(0), ["premise,hypothesis,label"]
    for _ in range(60):
        texts = [" ".join([*rng.choice(WORDS[4:7], rng.integers(1, 6)), word]) for word in ("good", "poor")]
        label = rng.choice(["yes", "no"])
        rows.append(",".join([*(texts if label == "yes" else texts[::-1]), label]))
    path = tmp_path_factory.mktemp("data") / "pairs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(checkpoint: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    save_imported(folder / "bert", import_checkpoint(checkpoint), "bert")
    config = TrainConfig(
        data=ClassificationData(path=(str(table),), text_column=COLUMNS),
        model=load(folder / "bert").model_config,
        batch=BatchConfig(size=8, buckets=1, max_source_length=16),
        optimizer=OptimizerConfig(weight_decay=0.0),
        epochs=1,
        pretrained=str(folder / "bert"),
    )
    return train(config, folder / "run")


def rows_of(sources: Sources) -> list[list[int]]:
    sequences = sources.sequences
    ids, lengths = sequences.padded(np.arange(len(sequences.lengths)), int(sequences.lengths.max()), 0)
    return [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]


def random_texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[4:], rng.integers(1, 12))) for _ in range(count)]


# Reading


def test_both_columns_are_read_and_exchanging_them_is_another_data_set(table: Path):
    data = ClassificationData(path=(str(table),), text_column=COLUMNS)
    splits = load_splits(data, seed=0)
    first, second = splits.train.sources[0]
    assert f"\n{first},{second}," in table.read_text(encoding="utf-8")
    exchanged = load_splits(replace(data, text_column=COLUMNS[::-1]), seed=0)
    assert fingerprint(splits)["splits"] != fingerprint(exchanged)["splits"]
    # What is known is the pair, not one of its texts, and not both in another order.
    record = fingerprint(splits)
    seen = Examples([(first, second), (f" {first.upper()}", second), (second, first), (first, first), first], [0] * 5)
    assert trained_on(record, seen) == [0, 1]
    assert not {*splits.train.sources} & {*splits.validation.sources, *splits.test.sources}


def test_a_pair_without_its_second_text_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "pairs.csv"
    rows = [f"a{i},b{i},{'yes' if i % 2 else 'no'}" for i in range(20)]
    path.write_text("\n".join(["premise,hypothesis,label", "alone,,yes", *rows]) + "\n", encoding="utf-8")
    splits = load_splits(ClassificationData(path=(str(path),), text_column=COLUMNS), seed=0)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 20
    assert "1 of 21 rows are left out ('hypothesis' is blank: line 2)" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [{"label_columns": ("x", "y")}, {}], ids=["columns", "lists"])
def test_pairs_have_several_labels(tmp_path: Path, labels: dict[str, Any]):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"q": f"q{i}", "p": f"p{i}", "x": i % 2, "y": 1, "labels": ["x", "y"] if i % 2 else ["y"]} for i in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    splits = load_splits(MultilabelData(path=(str(path),), text_column=("q", "p"), **labels), seed=0)
    found = dict(zip(splits.train.sources, splits.train.targets, strict=True))
    assert len(found) == len(splits.train)
    assert all(pair[0][1:] == pair[1][1:] for pair in found)
    assert all(truth == (int(pair[0][1:]) % 2 == 1, True) for pair, truth in found.items())


# Encoding


def test_a_pair_stands_as_its_tokenizer_has_it(imported: Tokenizer):
    pairs = [("the film", "was good"), ("was good", "the film")]
    assert rows_of(encode_sources(pairs, imported, 16, "cut")) == [
        [CLS, THE, FILM, SEP, WAS, GOOD, SEP],
        [CLS, WAS, GOOD, SEP, THE, FILM, SEP],
    ]
    first, second = (OWN.encode([text])[0] for text in ("the film", "was good"))
    own = rows_of(encode_sources(pairs, OWN, 99, "cut"))
    assert own == [[*first, OWN.eos_id, *second], [*second, OWN.eos_id, *first]]
    # A typed separator is text.
    assert rows_of(encode_sources([("[SEP]", "[EOS]")], imported, 16, "cut"))[0].count(SEP) == 2
    assert rows_of(encode_sources([("[SEP]", "[EOS]")], OWN, 99, "cut"))[0].count(OWN.eos_id) == 1


@pytest.mark.parametrize("longest", [5, 6, 9, 12])
def test_the_longer_text_is_cut_first_as_the_tokenizers_library_cuts(
    imported: Tokenizer, checkpoint: Path, longest: int
):
    theirs = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    theirs.no_padding()
    theirs.enable_truncation(longest, strategy="longest_first")
    pairs = list(zip(random_texts(150, 0), random_texts(150, 1), strict=True))
    expected = [theirs.encode(*pair).ids for pair in pairs]
    sources = encode_sources(pairs, imported, longest, "cut")
    assert rows_of(sources) == expected
    assert 0 < sum(sources.cut) < len(pairs)
    assert [len(row) == longest for row in expected] >= sources.cut
    batch = BatchConfig(max_source_length=longest)
    encoded = encode_examples(Examples(pairs, [0] * len(pairs)), imported, batch, training=True)
    assert rows_of(Sources(encoded.sources, [], [])) == expected
    assert encoded.truncated == sum(sources.cut)


def test_pairs_that_are_too_long_may_be_left_out_or_refused(imported: Tokenizer):
    examples = Examples([("the film", "was good"), ("the " * 9, "film")], [0, 1])
    skipped = encode_examples(examples, imported, BatchConfig(max_source_length=9, long="skip"), training=True)
    assert skipped.kept is not None
    assert skipped.kept.tolist() == [0]
    with pytest.raises(UserError, match=r"'the the .* at most 9 tokens, got 13"):
        encode_examples(examples, imported, BatchConfig(max_source_length=9, long="error"), training=True)
    with pytest.raises(UserError, match="room for a token of each text of a pair, got room for 1 beside"):
        encode_examples(examples, imported, BatchConfig(max_source_length=4), training=True)


def test_what_tokenizer_json_says_to_others_is_what_is_encoded(tmp_path: Path):
    """Of a tokenizer that was trained here, and of a file whose own template frames texts, which is not done here."""
    framing = tokenizers.Tokenizer.from_str(OWN.to_json())
    framing.post_processor = tokenizers.processors.TemplateProcessing(
        single="[BOS] $A", pair="[BOS] $A $B", special_tokens=[("[BOS]", OWN.bos_id)]
    )
    for tokenizer in (OWN, Tokenizer(framing)):
        tokenizer.save(tmp_path / "tokenizer.json")
        theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        first, second = tokenizer.encode(["the film", "was good"])
        pair = theirs.encode("the film", "was good")
        assert pair.ids == rows_of(encode_sources([("the film", "was good")], tokenizer, 99, "cut"))[0]
        assert pair.type_ids == [0] * (len(first) + 1) + [1] * len(second)
        assert theirs.encode("the film").ids == first


def test_word_dropout_leaves_the_separators(imported: Tokenizer):
    pairs = Examples([("the film", "was good")] * 8, [0] * 8)
    batch = BatchConfig(size=8, buckets=1, max_source_length=16, word_dropout=0.9)
    encoded = encode_examples(pairs, imported, batch, training=True)
    source = TrainingBatches(encoded, batch, epochs=1, seed=0)[0].source
    assert (source[:, [0, 3, 6]] == [CLS, SEP, SEP]).all()
    assert (source == imported.unk_id).sum() > 16


def test_a_tokenizer_for_single_texts_is_refused(imported: Tokenizer):
    backend = tokenizers.Tokenizer.from_str(imported.to_json())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    with pytest.raises(UserError, match="expected a tokenizer that puts special tokens between two texts"):
        check_pairs(Tokenizer(backend, imported.special), ModelConfig("classifier"))
    with pytest.raises(UserError, match="expected an encoder alone to read pairs of texts, got a seq2seq model"):
        check_pairs(imported, ModelConfig())


# Training, evaluation and prediction


def test_an_encoder_is_pre_trained_on_pairs_and_a_classifier_of_them_starts_from_it(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    labelled = ClassificationData(path=(str(table),), text_column=COLUMNS)
    config = TrainConfig(
        data=MaskedData(path=labelled.path, of="classification", text_column=COLUMNS),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig("masked", d_model=8, num_heads=1, d_ff=8, num_encoder_layers=1, token_types=2, max_length=32),
        batch=BatchConfig(size=8, buckets=1, max_source_length=32),
        epochs=1,
    )
    splits = load_splits(config.data, seed=0)
    assert splits.train.sources == load_splits(labelled, seed=0).train.sources
    before = train(config, tmp_path / "before")
    assert before.prediction_config.text_column == COLUMNS
    flags = ["--file", str(table), "--text-column", *COLUMNS]
    assert main(["evaluate", str(tmp_path / "before"), *flags]) == 0
    assert main(["evaluate", str(tmp_path / "before"), *flags[:-1]]) == 2
    assert "expected 2, as many as the run reads, got premise" in capsys.readouterr().err
    model = replace(config.model, architecture="classifier")
    after = train(replace(config, data=labelled, model=model, pretrained=str(before.folder)), tmp_path / "after")
    assert after.scores is not None


def with_other_second_type(run: Run) -> Any:
    """The best model, but for the row of the second texts in its table of token types."""
    model: Any = run.best_model()
    table = model.source_embedding.types.embedding
    table[...] = table[...].at[1].add(jnp.linspace(-2, 2, table.shape[1]))
    return model


def test_token_types_reach_the_model_in_training_evaluation_and_prediction(run: Run, monkeypatch: pytest.MonkeyPatch):
    source = Exported.load(str(run.config.pretrained))
    start, _, _ = start_from(source, run.config, run.classes, TrainStep(run.config, 10))
    begun: Any = TrainStep(run.config, 10).model(start)
    trained: Any = run.best_model()
    before, after = (model.source_embedding.types.embedding[...] for model in (begun, trained))
    assert (before[1] != after[1]).all()

    other = with_other_second_type(run)
    test = load_splits(run.config.data, run.config.seed).test
    evaluator = Evaluator(test, run.tokenizer, run.config, classes=run.classes)
    (found, scores), (_, changed) = evaluator.predict(trained), evaluator.predict(other)
    assert abs(float(scores["loss"]) - float(changed["loss"])) > 1e-3
    predictions = run.predict(test.sources)
    assert [one.class_id for one in found] == [run.classes.index(str(one.value)) for one in predictions]
    assert np.allclose([one.score for one in found], [one.score for one in predictions], atol=1e-6)
    exchanged = run.predict([(second, first) for first, second in test.sources])
    assert all(abs(one.score - two.score) > 1e-5 for one, two in zip(predictions, exchanged, strict=True))
    monkeypatch.setitem(vars(run), "model", other)
    assert all(
        abs(one.score - two.score) > 1e-5 for one, two in zip(predictions, run.predict(test.sources), strict=True)
    )


def test_a_table_and_the_command_line_give_the_predictions_of_python(
    run: Run, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run.export(tmp_path / "export")
    rows = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()[1:9]]
    pairs = [(first, second) for first, second, _ in rows]
    expected = [(one.value, round(one.score, 4)) for one in run.predict(pairs)]

    def predicted(*arguments: object) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["predict", *map(str, arguments)]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    for folder in (run.folder, tmp_path / "export"):
        lines = predicted(folder, "--file", table)[:8]
        assert [tuple(line["text"]) for line in lines] == pairs
        assert [(line["prediction"], line["score"]) for line in lines] == expected
    lines = predicted(run.folder, *(text for pair in pairs for text in pair))
    assert [(line["prediction"], line["score"]) for line in lines] == expected
    other = tmp_path / "other.csv"
    other.write_text(f"b,a\n{pairs[0][1]},{pairs[0][0]}\n,x\n", encoding="utf-8")
    first, blank = predicted(run.folder, "--file", other, "--column", "a", "b")
    assert (first["prediction"], first["score"]) == expected[0]
    assert blank["error"] == "the text is blank in 'b'"
    # An import was not trained here: it reads what it is given.
    assert len(predicted(run.config.pretrained, "--file", table, "--column", *COLUMNS, "--embed", "mean")) == 60


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["one", "two", "three"], "expected pairs of texts, premise and hypothesis, got 3 texts"),
        ([], "expected pairs of texts, two arguments each or --file with premise and hypothesis, got none"),
        (["--file", "TABLE", "--column", "premise", "absent"], "expected one column 'absent', got none"),
        (["--file", "TABLE", "--column", "premise"], "expected pairs of texts (premise, hypothesis), got the single"),
        (["--file", "TABLE", "--column", *COLUMNS, "label"], "--column: expected one column of texts, or two"),
    ],
)
def test_what_is_no_pair_is_refused(
    run: Run, table: Path, arguments: Sequence[str], expected: str, capsys: pytest.CaptureFixture[str]
):
    given = [str(table) if argument == "TABLE" else argument for argument in arguments]
    assert main(["predict", str(run.folder), *given]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_python_is_told_what_the_model_reads(run: Run):
    for texts, expected in (
        (["a film"], "got the single text 'a film'"),
        ([("a", "film"), "alone"], "got the single text 'alone'"),
        ([("a", "b", "c")], "expected texts, or tuples of two texts"),
        ([["a", "b"]], "expected texts, or tuples of two texts"),
    ):
        with pytest.raises(UserError, match=expected):
            run.predict(texts)  # pyright: ignore[reportArgumentType]
    single = replace(run, config=replace(run.config, data=ClassificationData()))
    with pytest.raises(UserError, match=r"expected single texts, which it was trained on, got the pair \('a', 'b'\)"):
        single.predict([("a", "b")])


def test_columns_that_are_no_pair_are_refused(table: Path):
    for names in (("a", "b", "c"), ("a", "a"), ()):
        with pytest.raises(UserError, match="text_column: expected one column of texts, or two different ones"):
            ClassificationData(path=(str(table),), text_column=names)
    with pytest.raises(UserError, match="expected different columns, and not 'a' and 'b', of the texts"):
        MultilabelData(path=(str(table),), text_column=("a", "b"), label_columns=("b", "c"))
    data: Any = {"text_column": "body"}
    assert ClassificationData(**data).text_column == ("body",)  # as configs of earlier versions have it
