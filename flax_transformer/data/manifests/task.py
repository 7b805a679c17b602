"""Freight manifests as clerks paste them into e-mails -> JSON. Generated, so there is nothing to download.

Carrier, ports, packages and units become codes, dates ISO 8601, container numbers lose their separators; parties and
goods are quoted as they are written. In dates of digits only, the day precedes the month.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flax_transformer.config import ManifestsData
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.freight import CARRIERS, PACKAGES, PORTS, UNITS, Manifest, draw_manifest
from flax_transformer.data.manifests.templates import SEEN, EmailTemplates, Kinds
from flax_transformer.data.scoring import mean, parse_json


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


# JSON schema of the targets.
MANIFEST_SCHEMA = _object(
    carrier={"enum": list(CARRIERS)},
    pol={"enum": list(PORTS)},
    pod={"enum": list(PORTS)},
    etd={"type": "string", "format": "date"},
    shipper={"type": "string"},
    consignee={"type": "string"},
    items={
        "type": "array",
        "minItems": 1,
        "items": _object(
            container={"type": "string", "pattern": "[A-Z]{4}[0-9]{7}"},
            packages={"type": "integer"},
            kind={"enum": list(PACKAGES)},
            goods={"type": "string"},
            weight={"type": "number"},
            unit={"enum": list(UNITS)},
            hazard={"anyOf": [{"type": "null"}, _object(un={"type": "integer"}, imo={"type": "string"})]},
        ),
    },
)


def load_manifests(config: ManifestsData, seed: int) -> Splits:
    """Splits from separate random streams that share no text and no record; each follows from ``seed`` alone."""
    seen: set[str] = set()
    test, validation, train = (
        _take(size, unseen(_stream(config, np.random.default_rng((seed, split))), seen))
        for split, size in enumerate((config.test_size, config.validation_size, config.train_size))
    )
    return Splits(train, validation, test)


def unseen(pairs: Iterator[tuple[str, str]], seen: set[str]) -> Iterator[tuple[str, str]]:
    """The pairs of which neither side is in ``seen``, which grows by them."""
    for pair in pairs:
        if seen.isdisjoint(pair):
            seen.update(pair)
            yield pair


def _take(size: int, pairs: Iterator[tuple[str, str]]) -> Examples:
    taken = list(itertools.islice(pairs, size))
    return Examples([source for source, _ in taken], [target for _, target in taken])


def _stream(config: ManifestsData, rng: np.random.Generator, kinds: Kinds = SEEN) -> Iterator[tuple[str, str]]:
    while True:
        templates = EmailTemplates(rng, config.noise, kinds)
        manifest = draw_manifest(Draw(rng), kinds.stock, config.max_items, templates.shouts)
        yield templates.write(manifest), to_json(manifest)


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
