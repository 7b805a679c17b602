"""The review of predicted manifests: confidence from tokens, places in the text, and flags."""

import json
import math

import pytest

from flax_transformer.data.manifests.review import leaves, review_manifest

TEXT = "Shipper: Müller & Co. KG\nCnee Lone Pine\n  LLC, CSQU 305438-3, 1.250 ctns of frozen peas, 16,4 t UN 1210"
RECORD = {
    "carrier": "MAEU",
    "etd": "2026-04-17",
    "shipper": "Müller & Co. KG",
    "consignee": "Lone Pine LLC",
    "items": [
        {"container": "CSQU3054383", "packages": 1250, "goods": "frozen peas", "weight": 16.4, "hazard": {"un": 1210}}
    ],
}


def reviewed(record, text=TEXT, pieces=None):
    output = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return review_manifest(text, output, pieces or [(output.encode(), 0.0)])


def changed(**values):
    return {**RECORD, "items": [{**RECORD["items"][0], **values}]}


def test_copied_values_have_their_place():
    fields = reviewed(RECORD)
    spans = {path: TEXT[slice(*field["place"])] for path, field in fields.items() if field["place"]}
    assert spans == {
        "shipper": "Müller & Co. KG",
        "consignee": "Lone Pine\n  LLC",
        "items.0.container": "CSQU 305438-3",
        "items.0.packages": "1.250",
        "items.0.goods": "frozen peas",
        "items.0.weight": "16,4",
        "items.0.hazard.un": "1210",
    }
    assert not any(field["flags"] for field in fields.values())


@pytest.mark.parametrize(
    ("record", "path", "flag"),
    [
        (RECORD | {"shipper": "Kowalski Industries BV"}, "shipper", "not in text"),
        (changed(goods="water pumps"), "items.0.goods", "not in text"),
        (changed(packages=1251), "items.0.packages", "not in text"),
        (changed(packages=25), "items.0.packages", "not in text"),
        (RECORD | {"consignee": "Pine LL"}, "consignee", "not in text"),
        (changed(container="CSQU3054384"), "items.0.container", "check digit"),
        (RECORD | {"carrier": "XXXX"}, "carrier", "not in list"),
        (RECORD | {"etd": "2026-02-30"}, "etd", "not a date"),
        (RECORD | {"etd": 7}, "etd", "not a date"),
    ],
)
def test_what_looks_wrong_is_flagged(record, path, flag):
    assert flag in reviewed(record)[path]["flags"]


def test_confidence_is_the_probability_of_the_tokens_of_a_value():
    pieces = [('{"', 0.0), ("goods", 0.0), ('":"', -0.1), ("pé", -0.2), ("as", -0.3), ('","', -0.4), ("weight", -9.0)]
    pieces += [('":', -0.5), ("1", -0.6), ("2", -0.7), ("}", -0.8)]
    fields = review_manifest("12 péas", "".join(piece for piece, _ in pieces), [(p.encode(), s) for p, s in pieces])
    assert fields["goods"]["confidence"] == pytest.approx(math.exp(-1.0), abs=1e-4)
    assert fields["weight"]["confidence"] == pytest.approx(math.exp(-2.1), abs=1e-4)


@pytest.mark.parametrize(
    ("field", "confidence", "flags"),
    [
        ("goods", 0.94, ["unsure"]),
        ("goods", 0.96, []),
        ("shipper", 0.97, ["unsure"]),
        ("consignee", 0.97, ["unsure"]),
        ("shipper", 0.99, []),
    ],
)
def test_a_value_of_low_confidence_is_flagged(field, confidence, flags):
    pieces = [(f'{{"{field}":"'.encode(), 0.0), (b"peas", math.log(confidence)), (b'"}', 0.0)]
    assert review_manifest("12 peas", f'{{"{field}":"peas"}}', pieces)[field]["flags"] == flags


def test_a_party_that_stands_in_the_text_several_times_is_flagged():
    text = "SHIPPER DETAILS: Peas Ltd, consignee details: Pea Mills, details of peas: 2 boxes of peas"
    fields = reviewed({"shipper": "details", "consignee": "Peas Ltd", "items": [{"goods": "peas"}]}, text)
    assert {path: field["flags"] for path, field in fields.items()} == {
        "shipper": ["not unique"],
        "consignee": [],
        "items.0.goods": [],
    }
    assert fields["shipper"]["place"] == (text.index("details"), text.index("details") + len("details"))


def test_leaves_are_those_of_the_parsed_value():
    text = ' { "a" : [1, {"b": "x\\"]}"}, [ ], null] , "c":{} , "d" : -2.5e1 }'
    found = [(leaf.path, leaf.value) for leaf in leaves(text)]
    assert found == [("a.0", 1), ("a.1.b", 'x"]}'), ("a.3", None), ("d", -25.0)]
    assert [json.loads(text[leaf.start : leaf.end]) for leaf in leaves(text)] == [value for _, value in found]


@pytest.mark.parametrize("output", ["", "{", "[]", '{"a":'])
def test_an_output_that_is_no_record_has_no_review(output):
    assert review_manifest(TEXT, output, [(output.encode(), 0.0)]) == {}
