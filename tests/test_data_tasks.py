"""Tasks: what each one reads, how it is split, how its predictions are scored; on made-up files."""

import csv
import json
from dataclasses import replace
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.config import (
    DATA_CONFIGS,
    ImdbData,
    ManifestsData,
    Multi30kData,
    MultilabelData,
    SnipsData,
)
from flax_transformer.data.examples import Examples
from flax_transformer.data.splitting import first_of_each, set_aside
from flax_transformer.data.tasks import TASKS, load_splits, score
from flax_transformer.errors import UserError


def shared_texts(splits):
    train, validation, test = (set(part.sources) for part in (splits.train, splits.validation, splits.test))
    return len(train & validation) + len(train & test) + len(validation & test)


def sizes(splits):
    return [len(part) for part in (splits.train, splits.validation, splits.test)]


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), st.integers(0, 3), st.integers(0, 3))
def test_parts_share_no_text_and_lose_none(texts, first, second):
    distinct = len(set(texts))
    if distinct <= first + second:
        with pytest.raises(UserError, match=f"expected more than {first + second} distinct texts"):
            set_aside(texts, [first, second], seed=0)
        return
    parts = set_aside(texts, [first, second], seed=0)
    assert sorted(i for part in parts for i in part) == list(range(len(texts)))
    assert [len({texts[i] for i in part}) for part in parts] == [first, second, distinct - first - second]


def test_parts_follow_from_the_seed():
    texts = [str(n) for n in range(100)]
    parts = [set_aside(texts, [10], seed) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


def test_the_first_of_each_text_is_kept():
    assert first_of_each(["a", "b", "a", "c", "b"], exclude=["c"]) == [0, 1]


def write_csv(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """As many rows as the assignment's split needs, with copies within train and in both official splits."""
    rows = [("train", i % 2, f"review {i}<br /><br />of train") for i in range(15_000)]
    rows += [("test", i % 2, f"review {i} of test") for i in range(15_000)]
    rows += [("train", 0, "review 0<br /><br />of train"), ("train", 0, "review 0 of test")]
    return write_csv(tmp_path_factory.mktemp("imdb") / "reviews.csv", ("split", "label", "text"), rows)


def test_imdb_assignment_split(reviews):
    splits = load_splits(ImdbData(path=reviews), seed=0)
    assert sizes(splits) == [15_000, 10_000, 5_000]
    assert shared_texts(splits) == 0
    assert splits.classes == ("negative", "positive")
    assert splits.train != load_splits(ImdbData(path=reviews), seed=1).train
    for text, label in zip(splits.train.sources, splits.train.targets, strict=True):
        assert int(text.split()[1]) % 2 == label
        assert "<br" not in text


def test_imdb_official_split(reviews):
    splits = load_splits(ImdbData(path=reviews, split="official"), seed=0)
    assert sizes(splits) == [13_500, 1_500, 15_000]
    assert shared_texts(splits) == 0
    assert {text.split()[-1] for text in splits.test.sources} == {"test"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("train", 0, "a"), ("test", 2, "b")], "line 3: expected split train or test and label 0 or 1"),
        ([("dev", 0, "a")], "line 2: expected split train or test"),
        ([("train", 0, " ")], "line 2: expected a text"),
        ([("train", 0, "a")], "expected reviews of the split 'test', got none"),
        ([("train", 0, "a"), ("test", 1, "b")], "expected more than 25000 distinct texts"),
    ],
)
def test_imdb_mistakes(tmp_path, rows, message):
    path = write_csv(tmp_path / "reviews.csv", ("split", "label", "text"), rows)
    with pytest.raises(UserError, match=message):
        load_splits(ImdbData(path=path), seed=0)


def write_multi30k(folder, **lines):
    for name in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            text = lines.get(f"{name}_{language}", f"{name} {language} 1 \n{name} {language} 2\n")
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return str(folder)


KAGGLE = [(f"review {i}<br /><br />end", "Positive" if i % 2 else "negative ") for i in range(30_000)]


def test_imdb_as_on_kaggle(tmp_path):
    path = write_csv(tmp_path / "IMDB Dataset.csv", ("review", "sentiment"), KAGGLE)
    splits = load_splits(ImdbData(path=path), seed=0)
    assert sizes(splits) == [15_000, 10_000, 5_000]
    for text, label in zip(splits.test.sources, splits.test.targets, strict=True):
        assert int(text.split()[1]) % 2 == label
    with pytest.raises(UserError, match=r"expected a column that tells train from test.*--data\.split assignment"):
        load_splits(ImdbData(path=path, split="official"), seed=0)
    write_csv(tmp_path / "IMDB Dataset.csv", ("review", "sentiment"), [("a", "neutral")])
    with pytest.raises(UserError, match="line 2: expected the sentiment negative or positive, got 'neutral'"):
        load_splits(ImdbData(path=path), seed=0)
    write_csv(tmp_path / "IMDB Dataset.csv", ("words", "sentiment"), [("a", "neutral")])
    with pytest.raises(UserError, match=r"none in words, sentiment .*; expected the columns split, label and text, or"):
        load_splits(ImdbData(path=path), seed=0)


def test_multi30k_reads_either_direction(tmp_path):
    path = write_multi30k(tmp_path)
    splits = load_splits(Multi30kData(path=path, direction="de-en"), seed=0)
    assert splits.train == Examples(["train de 1", "train de 2"], ["train en 1", "train en 2"])
    assert splits.test == Examples(["test_2016_flickr de 1", "test_2016_flickr de 2"], splits.test.targets)
    assert load_splits(Multi30kData(path=path), seed=0).train.sources == splits.train.targets


def test_multi30k_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"val\.de: expected as many lines in one as in the other, got 2 and 1"):
        load_splits(Multi30kData(path=write_multi30k(tmp_path, val_de="one\n")), seed=0)
    with pytest.raises(UserError, match="expected as many lines"):
        load_splits(Multi30kData(path=write_multi30k(tmp_path, val_de="", val_en="")), seed=0)
    with pytest.raises(UserError, match=r"expected a folder with train\.en"):
        load_splits(Multi30kData(path=str(tmp_path / "none")), seed=0)


def test_the_hub_is_asked_where_there_is_no_file(monkeypatch):
    hub = {
        "stanfordnlp/imdb": {
            "train": {"text": [f"a<br />{i}" for i in range(20)], "label": [0] * 20},
            "test": {"text": ["b", "b"], "label": [1, 1]},
        },
        "bentrevett/multi30k": {name: {"de": ["ein"], "en": ["a"]} for name in ("train", "validation", "test")},
    }
    monkeypatch.setattr(datasets, "load_dataset", hub.__getitem__)
    reviews = load_splits(ImdbData(split="official"), seed=0)
    assert sizes(reviews) == [18, 2, 2]
    assert "a\n0" in {*reviews.train.sources, *reviews.validation.sources}
    assert load_splits(Multi30kData(direction="de-en"), seed=0).test == Examples(["ein"], ["a"])


@pytest.mark.parametrize("config", [ImdbData(), Multi30kData()])
def test_a_hub_out_of_reach_is_a_users_mistake(monkeypatch, config):
    def unreachable(name):
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"expected to load it from the hub \(Couldn't reach .*--data\.path"):
        load_splits(config, seed=0)


def frame(intent, **slots):
    return {"intent": intent, "slots": slots}


def write_snips(folder, train, test):
    for name, rows in (("train", train), ("test", test)):
        lines = [json.dumps({"text": text, "target": target}) for text, target in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return SnipsData(path=str(folder))


def test_snips_drops_copies_and_carves_validation(tmp_path):
    train = [(f"play {i}", frame("Play", song=str(i))) for i in range(40)]
    test = [("add a and b", frame("Add", item=["a", "ü"])), ("add", frame("Add")), ("add", frame("Add"))]
    splits = load_splits(write_snips(tmp_path, [*train, *train[:5], test[0]], test), seed=0)
    assert sizes(splits) == [36, 4, 3]
    assert shared_texts(splits) == 0
    assert splits.test.targets[0] == '{"intent":"Add","slots":{"item":["a","ü"]}}'
    for text, target in zip(splits.train.sources, splits.train.targets, strict=True):
        assert json.loads(target) == frame("Play", song=text.split()[1])


def test_snips_copies_have_other_values_in_their_slots(tmp_path):
    """As whole words, and only where it is clear which words they are."""
    train = [(f"play {i} by lay{i}", frame("Play", song=str(i), artist=f"lay{i}")) for i in range(40)]
    twice = ("sing a in a", frame("Sing", song="a", items=["in"]))
    config = write_snips(tmp_path, [*train, twice], [("add", frame("Add"))])
    plain, swapped, again = (load_splits(replace(config, swapped_copies=copies), seed=0) for copies in (0, 3, 3))
    assert sizes(swapped) == [4 * len(plain.train.sources), *sizes(plain)[1:]]
    assert swapped.train == again.train
    assert swapped.validation == plain.validation
    count = len(plain.train.sources)
    assert swapped.train.sources[:count] == plain.train.sources
    values = {name: set() for name in ("song", "artist")}
    for target in plain.train.targets:
        for name in values:
            values[name] |= {json.loads(target)["slots"].get(name)}
    moved = 0
    for i, (text, target) in enumerate(zip(swapped.train.sources, swapped.train.targets, strict=True)):
        slots, original = json.loads(target)["slots"], json.loads(plain.train.targets[i % count])["slots"]
        if "items" in slots:
            assert (text, slots) == (twice[0], twice[1]["slots"])
            continue
        assert text == f"play {slots['song']} by {slots['artist']}"
        assert all(slots[name] in values[name] for name in values)
        moved += slots != original
    assert moved > 2 * count


def test_snips_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"snips: expected --data\.path"):
        load_splits(SnipsData(), seed=0)
    with pytest.raises(UserError, match="line 1: expected a target of intent and slots, got 'Play'"):
        load_splits(write_snips(tmp_path, [("play", "Play")], []), seed=0)


def test_every_task_has_a_config_and_a_description():
    assert TASKS.keys() == DATA_CONFIGS.keys()
    assert {name for name, task in TASKS.items() if task.schema} == {"manifests", "snips"}


def number(value):
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize("kind", DATA_CONFIGS.values())
def test_perfect_predictions_have_the_best_primary_metric(kind):
    target = json.dumps(frame("Play", song="Für Elise"))
    if kind is ManifestsData:
        target = load_splits(ManifestsData(1, 1, 1), seed=0).train.targets[0]
    pairs = {"classifier": (1, 0), "masked": ([5, 6], [6, 7]), "seq2seq": (target, "something else")}
    right, wrong = ((True, False), (False, True)) if kind is MultilabelData else pairs[kind.architecture]
    examples = Examples(["a", "b"], [right, right])
    config = kind()
    perfect, half, none = (
        number(score(config, predictions, examples)[TASKS[config.task].metric])
        for predictions in ([right, right], [right, wrong], [wrong, wrong])
    )
    assert perfect == pytest.approx(100.0 if kind is Multi30kData else 1.0)
    assert perfect > half > none >= 0
    with pytest.raises(ValueError, match="each of 2 examples, got 1"):
        score(config, [right], examples)


def test_translations_are_scored_with_a_signature():
    scores: dict[str, Any] = score(
        Multi30kData(), ["A man runs fast today."], Examples(["x"], ["a man runs fast today."])
    )
    assert scores["bleu"] < scores["bleu_lowercase"] == pytest.approx(100.0)
    assert "case:mixed|eff:no|tok:13a" in str(scores["bleu_signature"])


def test_frames_are_scored_as_a_whole_and_by_slot():
    examples = Examples(["x"] * 2, [json.dumps(frame("Play", song="a", mood=["b", "c"])), json.dumps(frame("Stop"))])
    swapped = json.dumps({"slots": {"mood": ["b", "c"], "song": "a"}, "intent": "Play"})
    assert score(SnipsData(), [swapped, examples.targets[1]], examples)["exact_match"] == 1.0
    scores = score(SnipsData(), [json.dumps(frame("Play", song="a", mood="b")), '{"slots": 3}'], examples)
    assert scores == {"exact_match": 0.0, "intent_accuracy": 0.5, "slot_f1": pytest.approx(0.8), "parsed": 1.0}
    assert score(SnipsData(), ["", "{"], examples)["parsed"] == 0.0
