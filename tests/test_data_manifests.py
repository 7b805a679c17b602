"""Freight manifests: valid codes, texts that hold what the records say, kinds that are held out, and the score."""

import datetime
import itertools
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.config import BatchConfig, ManifestsData
from flax_transformer.data import tasks
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.examples import Examples
from flax_transformer.data.manifests import freight
from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.names import party
from flax_transformer.data.manifests.phrasing import slips
from flax_transformer.data.manifests.task import Written, load_manifests, score_manifests, to_json, unseen
from flax_transformer.data.manifests.templates import SEEN, UNSEEN, EmailTemplates
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.presets import PRESETS

CONFIG = ManifestsData(train_size=2000, validation_size=100, test_size=100, max_items=4, short=0.0)
SPLITS = load_manifests(CONFIG, seed=0)
PAIRS = list(zip(SPLITS.train.sources, (json.loads(text) for text in SPLITS.train.targets), strict=True))


# CSQU3054383 is the worked example that goes with the standard; the others are painted on containers.
@pytest.mark.parametrize("number", ["CSQU3054383", "MSKU6011672", "TEXU3070079", "TOLU4734787"])
def test_check_digits_agree_with_known_numbers(number):
    assert freight.check_digit(number[:10]) == int(number[10])
    assert freight.is_container_number(number)


@settings(deadline=None)
@given(st.integers(4, 10), st.sampled_from("0123456789"))
def test_a_single_wrong_digit_is_caught(place, digit):
    number = "CSQU3054383"
    slipped = number[:place] + digit + number[place + 1 :]
    assert freight.is_container_number(slipped) == (slipped == number)


@pytest.mark.parametrize("text", ["CSQU3054384", "CSQU305438", "csqu3054383", "CSQ33054383", "CSQU 3054383", ""])
def test_malformed_container_numbers_are_refused(text):
    assert not freight.is_container_number(text)


def test_no_word_stands_for_two_codes():
    for table in (freight.CARRIERS, freight.PORTS, freight.PACKAGES, freight.UNITS):
        by_word = {}
        for code, names in table.items():
            for word in (*names, code):
                assert by_word.setdefault(word.lower(), code) == code


def test_words_are_mistyped_in_every_way_but_at_their_first_letter():
    assert slips("abbc") == ["abc", "abc", "abb", "abbbc", "abbbc", "abbcc", "abcb"]


@pytest.mark.parametrize("table", [freight.CARRIERS, freight.PORTS, freight.PACKAGES])
def test_no_slip_turns_one_code_into_another(table):
    code_of = {}
    for code, names in table.items():
        for name in (*names, code):
            words = name.lower().split()
            mistyped = [[word, *(slips(word) if len(word) >= 5 else [])] for word in words]
            for written in itertools.product(*mistyped):
                assert code_of.setdefault(written, code) == code


def test_records_hold_valid_codes():
    for _, manifest in PAIRS:
        assert list(manifest) == ["carrier", "pol", "pod", "etd", "shipper", "consignee", "items"]
        assert manifest["carrier"] in freight.CARRIERS
        assert {manifest["pol"], manifest["pod"]} <= set(freight.PORTS)
        assert manifest["pol"] != manifest["pod"]
        datetime.date.fromisoformat(manifest["etd"])
        assert 1 <= len(manifest["items"]) <= CONFIG.max_items
        for item in manifest["items"]:
            assert freight.is_container_number(item["container"])
            assert item["kind"] in freight.PACKAGES
            assert item["unit"] in freight.UNITS
            hazard = item["hazard"]
            assert hazard is None or (1001 <= hazard["un"] <= 3550 and hazard["imo"] in freight.IMO_CLASSES)


def squeezed(text):
    return re.sub(r"[^a-z0-9]", "", text.lower())


def test_texts_hold_what_the_records_quote():
    for text, manifest in PAIRS:
        flat = re.sub(r"\s*\n(> )?\s*", " ", text)  # a long name may be broken into two lines
        assert manifest["shipper"] in flat
        assert manifest["consignee"] in flat
        for item in manifest["items"]:
            assert item["goods"] in flat
            for value in (item["container"], f"{item['weight']}", f"{item['packages']}"):
                assert squeezed(value) in squeezed(flat)
            if item["hazard"] is not None:
                assert str(item["hazard"]["un"]) in flat


def test_every_kind_of_text_occurs():
    """Each layout, each way to write a date, a number or a container, several line items, and clutter."""
    text = "\n".join(SPLITS.train.sources)
    for pattern in (
        r"^\w.*: .*$", r"(?i)please book", r"^> ", r" // ", r" \| ", r"\t", r"\w;\w.*;", r"NAD\+CZ\+\+\+",
        r"\w \.+: ", r"We are [^,]* and want to ship", r"\d{4}-\d\d-\d\d", r"\d\d [A-Z][a-z]{2} \d{4}",
        r"\d\d/\d\d/\d\d\b", r"\d\d\.\d\d\.\d{4}", r"\b\d/\d/\d\d\b", r"\d de [a-z]+ de \d{4}",
        r"[a-z] \d+(st|nd|rd|th),? \d{4}", r"\d\d[A-Z]{3}\d\d", r"(Mon|Tue|Wed)\w*,? \d",
        r"\d\. (Januar|Mai|Juni) ", r"\d,\d{3} ?[kK]g", r"\d\.\d{3} ?[kK]g", r"\d \d{3} ?[kK]g", r"\d'\d{3} ?[kK]g",
        r"\d\.\d ?(MT|mt)", r"\d,\d ?(MT|mt)", r"\d ?lbs", r"[A-Z]{4}\d{7}", r"[A-Z]{4} \d{6}-\d", r"UN ?\d{4}",
        r"IMO \d", r"(?i)no DG|non-haz", r"GmbH", r"& Sons", r"[a-z]\-[A-Z]", r"[öéç]", r"Original Message",
        r"(?i)notify", r"Tel \+", r"Absender", r"(?i)consignatario|destinatario",
        r"(?i)acts as shipper|is the importer", r"^[•·§] ?", r"^[a-c]\) ", r"«", r'"$', r"\w \d+%|~\d", r"[őűơěģ]",
        r"\w ?[§¶†‡°¤]+ ?\w", r"\w(?:[—“†→].*[—”†→]).* ", r"(?i)heads to|is owned by", r"\b[B-Z]\. ?[B-Z]\. ?[B-Z]",
    ):  # fmt: skip
        assert re.search(pattern, text, re.MULTILINE), pattern
    assert {len(manifest["items"]) for _, manifest in PAIRS} == {1, 2, 3, 4}


def test_mistyped_words_follow_the_noise():
    def words(noise):
        texts = load_manifests(ManifestsData(2000, 1, 1, noise=noise), seed=0).train.sources
        return re.findall(r"\b(?:S[hip]+er|Container|Cont\w{3,7}|Carr?ie?r+)\b", "\n".join(texts))

    known = {word for word, count in Counter(words(0.0)).items() if count > 1}
    assert not {"Shpiper", "Contaner", "Carrrier"} & known
    share = np.mean([word not in known for word in words(0.1)])
    assert 0.03 < share < 0.15


def test_splits_follow_from_the_seed_and_share_nothing():
    """That the same seed gives the same is seen below, where only the number of training examples differs."""
    assert load_manifests(replace(CONFIG, train_size=10), seed=1).test != SPLITS.test
    parts = (SPLITS.train, SPLITS.validation, SPLITS.test)
    assert [len(part) for part in parts] == [2000, 100, 100]
    for side in ("sources", "targets"):
        texts = [text for part in parts for text in getattr(part, side)]
        assert len(set(texts)) == len(texts)


def quoted(examples):
    """Parties and goods, without regard to capitals."""
    manifests = [json.loads(text) for text in examples.targets]
    parties = [manifest[party] for manifest in manifests for party in ("shipper", "consignee")]
    return {name.casefold() for name in (*parties, *(item["goods"] for one in manifests for item in one["items"]))}


def test_no_party_and_no_goods_are_in_two_splits():
    train, validation, test = map(quoted, (SPLITS.train, SPLITS.validation, SPLITS.test))
    assert len(test) > 250
    assert not train & test
    assert not train & validation
    assert not validation & test
    assert train & quoted(SPLITS.train.take([0]))


def words_of(kinds):
    """Of names and goods, from five letters on: shorter ones may come about by chance."""
    rows = (kinds.stock.forms, kinds.stock.trades, kinds.stock.links, kinds.stock.goods, kinds.stock.qualities)
    return {word for row in rows for entry in row for word in re.findall(r"[^\W\d_]{5,}", entry.casefold())}


def labels_of(kinds):
    return {
        label.casefold() for row in (kinds.english, *kinds.languages) for labels in row.values() for label in labels
    }


def found_in(texts, phrases):
    """Those of the phrases that occur as whole words."""
    text = "\n".join(texts).casefold()
    within = (phrase for phrase in phrases if phrase in text)  # which is told in no time
    return {phrase for phrase in within if re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)}


def test_held_out_kinds_share_nothing_with_the_others():
    assert not set(SEEN.layouts) & set(UNSEEN.layouts)
    assert not set(SEEN.stock.families) & set(UNSEEN.stock.families)
    assert not set(SEEN.stock.forms) & set(UNSEEN.stock.forms)
    assert not words_of(SEEN) & words_of(UNSEEN)
    assert not labels_of(SEEN) & labels_of(UNSEEN)


def test_legal_forms_put_together_from_letters_are_none_of_those_held_out():
    letters = set(SEEN.stock.letters)
    drawn = [party(Draw(np.random.default_rng(seed)), SEEN.stock).split()[-1] for seed in range(2000)]
    invented = {form for form in drawn if set(form.upper()) <= {*letters, "."} and form not in SEEN.stock.forms}
    assert len(invented) > 100
    for form in UNSEEN.stock.forms:
        assert not set(re.sub(r"[\W\d]", "", form).upper()) <= letters, form


def test_held_out_words_and_labels_occur_nowhere_in_training():
    half = len(SPLITS.test) // 2
    held_out, seen = SPLITS.test.sources[:half], SPLITS.test.sources[half:]
    training = [*SPLITS.train.sources, *SPLITS.validation.sources, *seen]
    for find in (words_of, labels_of):
        assert not found_in(training, find(UNSEEN))
        assert len(found_in(held_out, find(UNSEEN))) > 40  # the same search finds them where they are
    assert SPLITS.test.groups == [""] * half + ["seen"] * half


@pytest.mark.parametrize(
    "pattern", [r"^[\[<{]", r"^\| .* \|$", r"(=>|>>|~|--) ", r"should load at|ex .* and want|Load port is"]
)
def test_held_out_layouts_occur_in_the_test_split_alone(pattern):
    held_out, seen = SPLITS.test.sources[:50], SPLITS.test.sources[50:]
    assert any(re.search(pattern, text, re.MULTILINE | re.IGNORECASE) for text in held_out)
    for text in (*SPLITS.train.sources, *seen):
        labelled = [line for line in text.split("\n") if re.search(pattern, line, re.IGNORECASE)]
        assert len(labelled) < 3, text  # a mail's "---- Original Message ----" is no layout


def test_the_main_scores_are_those_of_held_out_kinds():
    half = len(SPLITS.test) // 2
    predictions = ["{}"] * half + list(SPLITS.test.targets[half:])
    scores = tasks.score(CONFIG, predictions, SPLITS.test)
    assert (scores["exact_match"], scores["seen/exact_match"]) == (0.0, 1.0)
    assert (scores["field/shipper"], scores["seen/field/shipper"]) == (0.0, 1.0)
    together = tasks.score(CONFIG, predictions, Examples(SPLITS.test.sources, SPLITS.test.targets))
    assert together["exact_match"] == 0.5


def test_evaluation_does_not_depend_on_the_size_of_train():
    larger = load_manifests(replace(CONFIG, train_size=2100), seed=0)
    assert (larger.test, larger.validation) == (SPLITS.test, SPLITS.validation)
    assert larger.train.take(range(2000)) == SPLITS.train


def written(source, target, shipper="Ann", consignee="Ben"):
    manifest = json.loads(SPLITS.test.targets[0]) | {"shipper": shipper, "consignee": consignee}
    manifest["items"] = [manifest["items"][0] | {"goods": f"goods of {shipper}"}]
    return Written(source, target, manifest)


def test_repeated_texts_records_and_names_are_left_out():
    pairs = [
        written("a", "1"),
        written("b", "1", "Cho", "Dan"),
        written("a", "2"),
        written("c", "3"),
        written("c", "3"),
    ]
    assert [one.source for one in unseen(iter(pairs), set(), grow=False)] == ["a", "c"]
    seen = set()
    assert [one.source for one in unseen(iter(pairs), seen, grow=True)] == ["a"]
    later = [
        written("d", "4", "Ann"),
        written("e", "5", "Eve", "Fay"),
        written("f", "6", "Guy", "BEN"),
        written("g", "7", "Eve", "Hal"),
    ]
    assert [one.source for one in unseen(iter(later), seen, grow=False)] == ["e", "g"]


def test_one_record_can_be_written_in_many_ways():
    manifest = freight.draw_manifest(Draw(np.random.default_rng(0)), SEEN.stock, max_items=2, upper_case=False)
    texts = {EmailTemplates(np.random.default_rng(seed), noise=0.0).write(manifest) for seed in range(50)}
    assert len(texts) == 50


REFERENCES = SPLITS.test.targets[:50]


def test_perfect_predictions_score_one():
    scores = score_manifests(REFERENCES, REFERENCES)
    assert set(scores.values()) == {1.0}
    assert {"exact_match", "field_accuracy", "parsed", "field/carrier", "field/items.container"} <= set(scores)


def changed(change):
    """The references, with ``change`` made to each."""
    predictions = [json.loads(text) for text in REFERENCES]
    for manifest in predictions:
        change(manifest)
    return [to_json(manifest) for manifest in predictions]


def test_spacing_and_order_of_keys_do_not_matter():
    loose = [json.dumps(json.loads(text), indent=1, sort_keys=True) for text in REFERENCES]
    assert score_manifests(loose, REFERENCES)["exact_match"] == 1.0


def test_a_wrong_field_fails_the_record_and_its_own_share_only():
    scores = score_manifests(changed(lambda manifest: manifest.update(carrier="XXXX")), REFERENCES)
    assert (scores["exact_match"], scores["field/carrier"], scores["field/pol"], scores["parsed"]) == (
        0.0,
        0.0,
        1.0,
        1.0,
    )
    half = score_manifests([*REFERENCES[:25], *changed(lambda manifest: manifest.pop("etd"))[25:]], REFERENCES)
    assert (half["exact_match"], half["field/etd"], half["field/shipper"]) == (0.5, 0.5, 1.0)


def test_missing_and_surplus_items_are_wrong():
    missing = score_manifests(changed(lambda manifest: manifest["items"].pop()), REFERENCES)
    last = [len(json.loads(text)["items"]) for text in REFERENCES]
    assert missing["field/items.unit"] == pytest.approx(1 - len(last) / sum(last))
    surplus = score_manifests(changed(lambda manifest: manifest["items"].append(manifest["items"][0])), REFERENCES)
    assert (surplus["exact_match"], surplus["field_accuracy"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"items":3}', '{"items":[3,null]}', "[" * 100_000, "9" * 5000]
)
def test_whatever_a_model_writes_is_scored(text):
    scores = score_manifests([text], REFERENCES[:1])
    assert scores["exact_match"] == scores["field_accuracy"] == 0.0
    assert scores["parsed"] == float(text.startswith('{"'))


@pytest.mark.slow
def test_nearly_all_manifests_fit_the_default_lengths():
    preset = PRESETS["manifests"]["default"]
    tokenizer = train_tokenizer(preset.tokenizer, [*SPLITS.train.sources, *SPLITS.train.targets])
    few_items = SPLITS.train.take(i for i, (_, manifest) in enumerate(PAIRS) if len(manifest["items"]) <= 3)
    assert encode_examples(few_items, tokenizer, preset.batch, training=True).dropped < 0.01 * len(few_items)
    assert encode_examples(SPLITS.train, tokenizer, BatchConfig(max_source_length=128), training=True).dropped > 1000


def test_items_thin_out():
    counts = np.bincount([len(manifest["items"]) for _, manifest in PAIRS])[1:]
    assert all(more > fewer for more, fewer in itertools.pairwise(counts))


def test_short_mails_hold_one_item_and_nothing_around_the_booking():
    sizes = {"train_size": 60, "validation_size": 1, "test_size": 2}
    short = load_manifests(ManifestsData(**sizes, short=0.999), seed=1).train
    long = load_manifests(ManifestsData(**sizes, short=0.0), seed=1).train
    items = [[len(json.loads(target)["items"]) for target in split.targets] for split in (short, long)]
    assert set(items[0]) == {1}
    assert max(items[1]) > 1
    assert np.mean([len(text) for text in short.sources]) < 0.8 * np.mean([len(text) for text in long.sources])
