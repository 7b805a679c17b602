"""Freight manifests: valid codes, texts that hold what the records say, disjoint splits, and the score."""

import datetime
import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.config import ManifestsData
from flax_transformer.data.manifests import freight
from flax_transformer.data.manifests.task import load_manifests, score_manifests, to_json, unseen
from flax_transformer.data.manifests.templates import EmailTemplates, slips

CONFIG = ManifestsData(train_size=2000, validation_size=100, test_size=100, max_items=4)
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
            assert hazard is None or (item["goods"].lower(), hazard["un"], hazard["imo"]) in freight.DANGEROUS_GOODS


def squeezed(text):
    return re.sub(r"[^a-z0-9.]", "", text.lower())


def test_texts_hold_what_the_records_quote():
    for text, manifest in PAIRS:
        assert manifest["shipper"] in text
        assert manifest["consignee"] in text
        for item in manifest["items"]:
            assert item["goods"] in text
            for value in (item["container"], f"{item['weight']}", f"{item['packages']}"):
                assert squeezed(value) in squeezed(text)
            if item["hazard"] is not None:
                assert str(item["hazard"]["un"]) in text


def test_every_kind_of_text_occurs():
    """Each layout, each way to write a date, a number or a container, and several line items."""
    text = "\n".join(SPLITS.train.sources)
    for pattern in (
        r"^\w.*: .*$", r"Pls book with", r"^[A-Z0-9 .,'/:-]+ // ", r" \| ", r"\t",
        r"\d{4}-\d\d-\d\d", r"\d\d [A-Z][a-z]{2} \d{4}", r"\d\d/\d\d/\d\d", r"\d\d\.\d\d\.\d{4}",
        r"[a-z] \d+(st|nd|rd|th) \d{4}", r"\d\d[A-Z]{3}\d\d", r"\d,\d{3}", r"\d\.\d ?MT", r"\d ?lbs",
        r"[A-Z]{4}\d{7}", r"[A-Z]{4} \d{6}-\d", r"UN ?\d{4}", r"IMO \d",
    ):  # fmt: skip
        assert re.search(pattern, text, re.MULTILINE), pattern
    assert {len(manifest["items"]) for _, manifest in PAIRS} == {1, 2, 3, 4}


def test_mistyped_words_follow_the_noise():
    def words(noise):
        texts = load_manifests(ManifestsData(2000, 1, 1, noise=noise), seed=0).train.sources
        return re.findall(r"[A-Z][a-z]{4,}", "\n".join(texts))

    known = set(words(0.0))
    assert not {"Shpiper", "Rotterdm", "Carrrier"} & known
    noisy = words(0.1)
    share = np.mean([word not in known for word in noisy])
    assert 0.02 < share < 0.1  # parties, goods and dates are never mistyped


def test_splits_follow_from_the_seed_and_share_nothing():
    again = load_manifests(CONFIG, seed=0)
    assert (again.train, again.validation, again.test) == (SPLITS.train, SPLITS.validation, SPLITS.test)
    assert load_manifests(CONFIG, seed=1).test != SPLITS.test
    parts = (SPLITS.train, SPLITS.validation, SPLITS.test)
    assert [len(part) for part in parts] == [2000, 100, 100]
    for side in ("sources", "targets"):
        texts = [text for part in parts for text in getattr(part, side)]
        assert len(set(texts)) == len(texts)


def test_evaluation_does_not_depend_on_the_size_of_train():
    larger = load_manifests(ManifestsData(2100, 100, 100, max_items=4), seed=0)
    assert (larger.test, larger.validation) == (SPLITS.test, SPLITS.validation)
    assert larger.train.sources[:2000] == SPLITS.train.sources


def test_repeated_texts_and_records_are_left_out():
    pairs = [("a", "1"), ("b", "1"), ("a", "2"), ("c", "3"), ("c", "3")]
    seen = set()
    assert list(unseen(iter(pairs), seen)) == [("a", "1"), ("c", "3")]
    assert list(unseen(iter([("d", "3"), ("e", "4")]), seen)) == [("e", "4")]


def test_one_record_can_be_written_in_many_ways():
    manifest = freight.draw_manifest(np.random.default_rng(0), max_items=2, upper_case=False)
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


def test_a_manifest_is_short_enough_for_the_default_lengths():
    sources, targets = (max(map(len, side)) for side in (SPLITS.train.sources, SPLITS.train.targets))
    assert sources < 600
    assert targets < 900


def test_items_thin_out():
    counts = np.bincount([len(manifest["items"]) for _, manifest in PAIRS])[1:]
    assert all(more > fewer for more, fewer in itertools.pairwise(counts))
