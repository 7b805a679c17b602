"""Freight manifests as clerks paste them into e-mails -> JSON. Generated, so there is nothing to download.

Carrier, ports, packages and units become codes, dates ISO 8601, container numbers lose their separators; parties and
goods are quoted as they are written. In dates of digits only, the day precedes the month.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from flax_transformer.config import ManifestsData
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.freight import CARRIERS, PACKAGES, PORTS, UNITS, Manifest, draw_manifest
from flax_transformer.data.manifests.templates import SEEN, UNSEEN, EmailTemplates, Kinds
from flax_transformer.data.scoring import mean, parse_json


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


# JSON schema of the targets; for ``copied`` see :mod:`flax_transformer.data.copying`.
MANIFEST_SCHEMA = _object(
    carrier={"enum": list(CARRIERS)},
    pol={"enum": list(PORTS)},
    pod={"enum": list(PORTS)},
    etd={"type": "string", "format": "date"},
    shipper={"type": "string", "copied": True},
    consignee={"type": "string", "copied": True},
    items={
        "type": "array",
        "minItems": 1,
        "items": _object(
            container={"type": "string", "pattern": "[A-Z]{4}[0-9]{7}"},
            packages={"type": "integer"},
            kind={"enum": list(PACKAGES)},
            goods={"type": "string", "copied": True},
            weight={"type": "number"},
            unit={"enum": list(UNITS)},
            hazard={"anyOf": [{"type": "null"}, _object(un={"type": "integer"}, imo={"type": "string"})]},
        ),
    },
)


class Written(NamedTuple):
    """A manifest in free text, and as the JSON to be read from it."""

    source: str
    target: str
    manifest: Manifest


def load_manifests(config: ManifestsData, seed: int) -> Splits:
    """Splits from separate random streams that share no text, record, party or goods; all follows from ``seed``.

    Half of the test split, the one that the main scores are of, is of kinds that training does not have: names, goods,
    layouts and labels. The group ``seen`` and the validation split are of the kinds of training.
    """
    seen: set[str] = set()
    streams = (_stream(config, np.random.default_rng((seed, number)), kinds) for number, kinds in enumerate(_KINDS))
    sizes = (config.test_size - config.test_size // 2, config.test_size // 2, config.validation_size)
    held_out, known, validation = (
        list(itertools.islice(unseen(stream, seen, grow=True), size))
        for size, stream in zip(sizes, streams, strict=False)
    )
    train = list(itertools.islice(unseen(next(streams), seen, grow=False), config.train_size))
    groups = [""] * len(held_out) + ["seen"] * len(known)
    return Splits(_examples(train), _examples(validation), _examples([*held_out, *known], groups))


# Of the two halves of the test split, of validation and of training.
_KINDS = (UNSEEN, SEEN, SEEN, SEEN)


def unseen(manifests: Iterator[Written], seen: set[str], *, grow: bool) -> Iterator[Written]:
    """Those of which neither text nor record nor a party or goods are in ``seen``, which has no capitals.

    Args:
        grow: add the parties and goods to ``seen`` too, so that they do not come again.
    """
    for written in manifests:
        whole, names = {written.source, written.target}, _names(written.manifest)
        if seen.isdisjoint(whole | names):
            seen.update(whole | names if grow else whole)
            yield written


def _names(manifest: Manifest) -> set[str]:
    names = [manifest["shipper"], manifest["consignee"], *(item["goods"] for item in manifest["items"])]
    return {name.casefold() for name in names}


def _examples(written: Sequence[Written], groups: Sequence[str] = ()) -> Examples:
    return Examples([one.source for one in written], [one.target for one in written], groups=groups)


def _stream(config: ManifestsData, rng: np.random.Generator, kinds: Kinds) -> Iterator[Written]:
    while True:
        templates = EmailTemplates(rng, config.noise, kinds, config.short)
        most = 1 if templates.is_short else config.max_items
        manifest = draw_manifest(Draw(rng), kinds.stock, most, templates.shouts)
        yield Written(templates.write(manifest), to_json(manifest), manifest)


def to_json(manifest: Manifest) -> str:
    """Without spaces, keys in their order."""
    return json.dumps(manifest, separators=(",", ":"), ensure_ascii=False)


def score_manifests(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """Shares of outputs that are right as a whole and that parse, and of right values of each field.

    Line items are compared by place; a missing item has all its fields wrong, a surplus one only fails the whole.
    """
    predicted, expected = [parse_json(text) for text in predictions], [json.loads(text) for text in references]
    pairs = list(zip(predicted, expected, strict=True))
    right: dict[str, list[bool]] = {}
    for one, other in pairs:
        fields = _fields(one)
        for (name, place), value in _fields(other).items():
            right.setdefault(name, []).append((name, place) in fields and fields[name, place] == value)
    return {
        "exact_match": mean(one == other for one, other in pairs),
        "field_accuracy": mean(itertools.chain.from_iterable(right.values())),
        "parsed": mean(one is not None for one in predicted),
        **{f"field/{name}": mean(outcomes) for name, outcomes in right.items()},
    }


def _fields(manifest: dict[str, Any] | None) -> dict[tuple[str, int], Any]:
    """Values by field and place of the item, of whatever a model may have written."""
    fields = {(name, 0): value for name, value in (manifest or {}).items() if name != "items"}
    items = (manifest or {}).get("items")
    for place, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            fields |= {(f"items.{name}", place): value for name, value in item.items()}
    return fields
