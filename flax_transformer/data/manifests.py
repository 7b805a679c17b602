"""Freight manifests as clerks paste them from e-mails -> JSON. Generated, so there is nothing to download.

Carrier, ports, packages and units become codes, dates ISO 8601, container numbers lose their separators; parties and
goods are quoted as they are written. In dates of digits only, the day precedes the month.
"""

import datetime
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict, TypeVar

import numpy as np

from flax_transformer.config import ManifestsData
from flax_transformer.data import freight
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.scoring import mean, parse_json

T = TypeVar("T")


class Hazard(TypedDict):
    un: int
    imo: str


class Item(TypedDict):
    container: str
    packages: int
    kind: str
    goods: str
    weight: int | float
    unit: str
    hazard: Hazard | None


class Manifest(TypedDict):
    """The target, in the order in which it is written."""

    carrier: str
    pol: str  # port of loading
    pod: str  # port of discharge
    etd: str  # estimated date of departure
    shipper: str
    consignee: str
    items: list[Item]


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


def _stream(config: ManifestsData, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    while True:
        clerk = Clerk(rng, config.noise)
        manifest = draw_manifest(rng, config.max_items, clerk.shouts)
        yield clerk.write(manifest), to_json(manifest)


def to_json(manifest: Manifest) -> str:
    return json.dumps(manifest, separators=(",", ":"))


def draw_manifest(rng: np.random.Generator, max_items: int, upper_case: bool) -> Manifest:
    case = str.upper if upper_case else str
    ports = list(freight.PORTS)
    pol = _pick(rng, ports)
    pod = _pick(rng, [port for port in ports if port != pol])
    day = datetime.date(2025, 1, 1) + datetime.timedelta(_below(rng, 3 * 365))
    return {
        "carrier": _pick(rng, list(freight.CARRIERS)),
        "pol": pol,
        "pod": pod,
        "etd": day.isoformat(),
        "shipper": case(_draw_party(rng)),
        "consignee": case(_draw_party(rng)),
        "items": [_draw_item(rng, case) for _ in range(min(int(rng.geometric(0.6)), max_items))],
    }


def _draw_item(rng: np.random.Generator, case: Callable[[str], str]) -> Item:
    serial = _pick(rng, freight.OWNERS) + f"{_below(rng, 10**6):06d}"
    goods, hazard = _pick(rng, freight.GOODS), None
    if rng.random() < 0.25:
        goods, un, imo = _pick(rng, freight.DANGEROUS_GOODS)
        hazard = Hazard(un=un, imo=imo)
    unit = _pick(rng, ("KGM", "KGM", "LBR", "TNE"))
    weight = (11 + _below(rng, 269)) / 10 if unit == "TNE" else (10 + _below(rng, 2790)) * 10
    return {
        "container": f"{serial}{freight.check_digit(serial)}",
        "packages": 2 + _below(rng, 998),
        "kind": _pick(rng, list(freight.PACKAGES)),
        "goods": case(goods),
        "weight": int(weight) if weight == int(weight) else weight,
        "unit": unit,
        "hazard": hazard,
    }


def _draw_party(rng: np.random.Generator) -> str:
    return " ".join(_pick(rng, names) for names in freight.PARTY_NAMES)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[_below(rng, len(options))]


def _below(rng: np.random.Generator, limit: int) -> int:
    """As ``rng.integers(limit)``, several times as fast for one number."""
    return int(rng.random() * limit)


_WORD = re.compile(r"(?<![{'\w])[A-Za-z]{5,}(?![}'\w])")  # outside of a template's {slots}
_DATES = ("%Y-%m-%d", "%d %b %Y", "%d-%b-%y", "%d/%m/%y", "%d.%m.%Y", "%B {th} %Y", "%b %d, %Y", "%d%b%y", "{th} %B %Y")
_CONTAINERS = (
    "{owner}{serial}{check}",
    "{owner} {serial}{check}",
    "{owner} {serial}-{check}",
    "{owner}-{serial}-{check}",
)
_NUMBERS = ("{}", "{:,}")
_HAZARDS = ("UN{un} class {imo}", "UN {un} cl. {imo}", "IMO {imo}, UN{un}", "DG {imo} UN {un}", "IMO {imo} / UN {un}")
_LABELS = {
    "carrier": ("Carrier", "Line", "Shipping line", "SSL"),
    "pol": ("POL", "Port of loading", "Load port", "From"),
    "pod": ("POD", "Port of discharge", "Disch. port", "To"),
    "etd": ("ETD", "Sailing", "Departure", "ETS", "Date"),
    "shipper": ("Shipper", "Shpr", "SHPR", "Shipper name"),
    "consignee": ("Consignee", "Cnee", "CNEE", "Receiver"),
}
_OPENERS = ("", "", "Dear all,\n", "Hi team,\n", "Good day,\n", "Booking as below.\n", "Pls see below:\n", "FYI\n")
_CLOSERS = ("", "", "\nRgds", "\nThanks & regards", "\nPls confirm.", "\nBest regards, Anna", "\nTks, Jim")
_ROUTES = (
    "Pls book with {carrier} from {pol} to {pod}, {sails} {etd}.",
    "We need space on {carrier} ex {pol} to {pod}, {sails} {etd}.",
    "Kindly arrange shipment with {carrier}, POL {pol}, POD {pod}, {sails} {etd}.",
    "{sails} {etd} with {carrier}, loading {pol}, discharging {pod}.",
)
_PARTIES = (
    "Shipper is {shipper}, cnee {consignee}.",
    "{shipper} ships to {consignee}.",
    "Consignee: {consignee}. Shipper: {shipper}.",
    "On behalf of {shipper} for {consignee}.",
)
_ITEMS = (
    "{packages} {goods}, {weight}, {container}",
    "{container}: {packages} {goods}, {weight}",
    "{container} {weight} {packages} {goods}",
    "{packages} of {goods}, {weight}, in {container}",
    "{goods} - {packages} - {weight} - {container}",
)


def slips(word: str) -> list[str]:
    """The ways to mistype a word: one letter is lost, doubled or swapped with the next. The first one stays."""
    lost = [word[:i] + word[i + 1 :] for i in range(1, len(word))]
    doubled = [word[:i] + word[i] + word[i:] for i in range(1, len(word))]
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1)]
    return [slip for slip in lost + doubled + swapped if slip != word]


class Clerk:
    """One sender's habits: a layout, a way to write dates, numbers and containers, and a share of mistyped words."""

    def __init__(self, rng: np.random.Generator, noise: float):
        self._rng = rng
        self._noise = noise
        self._layout = self._pick((self._write_form, self._write_mail, self._write_telex, self._write_table))
        self.shouts = self._layout == self._write_telex
        self._date, self._container, self._number = (self._pick(ways) for ways in (_DATES, _CONTAINERS, _NUMBERS))
        self._hazard, self._item = self._pick(_HAZARDS), self._pick(_ITEMS)

    def write(self, manifest: Manifest) -> str:
        """The free text from which ``manifest`` is to be read."""
        return self._layout(manifest)

    def _write_form(self, manifest: Manifest) -> str:
        """A labelled line for each field, in any order."""
        header = self._header(manifest)
        separator = self._pick((": ", " : ", " - ", ":"))
        order = self._rng.permutation(len(header))
        names = [list(header)[i] for i in order]
        lines = [self._mistype(self._pick(_LABELS[name])) + separator + header[name] for name in names]
        return self._pick(_OPENERS) + "\n".join(lines + self._items(manifest)) + self._pick(_CLOSERS)

    def _write_mail(self, manifest: Manifest) -> str:
        """Sentences."""
        header = self._header(manifest)
        sails = self._pick(("ETD", "sailing", "departure", "dep.", "ETS"))
        cargo = self._pick(("Cargo: ", "Goods: ", "", "Commodity: ", "We have "))
        sentences = [
            self._say(self._pick(_ROUTES), sails=sails, **header),
            self._say(self._pick(_PARTIES), **header),
            self._mistype(cargo) + "; ".join(self._items(manifest, bullets=("",))) + ".",
        ]
        return self._pick(_OPENERS) + self._pick((" ", "\n")).join(sentences) + self._pick(_CLOSERS)

    def _write_telex(self, manifest: Manifest) -> str:
        """Everything in capitals, with slashes between."""
        header = self._header(manifest)
        parts = [
            header["carrier"],
            self._pick(("{pol} TO {pod}", "EX {pol} TO {pod}", "POL {pol} POD {pod}", "{pol}-{pod}")).format(**header),
            self._pick(("ETD ", "ETS ", "SAILING ", "")) + header["etd"],
            self._pick(("SHPR ", "SHIPPER ", "SHPR: ")) + header["shipper"],
            self._pick(("CNEE ", "CONSIGNEE ", "CNEE: ")) + header["consignee"],
            *self._items(manifest, bullets=("",)),
        ]
        return self._pick((" // ", "\n", " / ")).join(parts).upper()

    def _write_table(self, manifest: Manifest) -> str:
        """A line for the voyage, one for the parties, and a row under titles for each item."""
        header = self._header(manifest)
        bar = self._pick((" | ", "\t", "; "))
        voyage = [header["carrier"], *(f"{self._pick(_LABELS[name])} {header[name]}" for name in ("pol", "pod", "etd"))]
        parties = [f"{self._pick(_LABELS[name])} {header[name]}" for name in ("shipper", "consignee")]
        titles = [self._mistype(self._pick(titles)) for titles in _TITLES]
        rows = [bar.join(self._cells(item)) for item in manifest["items"]]
        return self._pick(_OPENERS) + "\n".join([bar.join(voyage), bar.join(parties), bar.join(titles), *rows])

    def _header(self, manifest: Manifest) -> dict[str, str]:
        """Everything but the items, in words."""
        return {
            "carrier": self._mistype(self._pick(freight.CARRIERS[manifest["carrier"]])),
            "pol": self._port(manifest["pol"]),
            "pod": self._port(manifest["pod"]),
            "etd": self._day(datetime.date.fromisoformat(manifest["etd"])),
            "shipper": manifest["shipper"],
            "consignee": manifest["consignee"],
        }

    def _items(self, manifest: Manifest, bullets: Sequence[str] = ("", "- ", "{n}) ", "{n}. ", "* ")) -> list[str]:
        bullet = self._pick(bullets)
        lines = []
        for n, item in enumerate(manifest["items"], start=1):
            container, packages, goods, weight = self._cells(item)
            cells = {"container": container, "packages": packages, "goods": goods, "weight": weight}
            lines.append(bullet.format(n=n) + self._say(self._item, **cells))
        return lines

    def _cells(self, item: Item) -> list[str]:
        goods = item["goods"]
        if item["hazard"] is not None:
            goods += " " + self._hazard.format(**item["hazard"])
        return [
            self._container.format(
                owner=item["container"][:4], serial=item["container"][4:10], check=item["container"][10]
            ),
            f"{item['packages']} {self._mistype(self._pick(freight.PACKAGES[item['kind']]))}",
            goods,
            self._number.format(item["weight"]) + self._pick((" ", "")) + self._pick(freight.UNITS[item["unit"]]),
        ]

    def _port(self, code: str) -> str:
        return self._mistype(self._pick((*freight.PORTS[code], code)))

    def _day(self, day: datetime.date) -> str:
        suffix = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day not in (11, 12, 13) else 0, "th")
        return day.strftime(self._date).format(th=f"{day.day}{suffix}")

    def _say(self, template: str, **values: str) -> str:
        return self._mistype(template).format(**values)

    def _mistype(self, text: str) -> str:
        """Each word of five letters or more has a chance of a slip."""
        return _WORD.sub(
            lambda match: self._pick(slips(match[0])) if self._rng.random() < self._noise else match[0], text
        )

    def _pick(self, options: Sequence[T]) -> T:
        return _pick(self._rng, options)


_TITLES = (
    ("Cntr", "Container", "Cntr no", "Equipment"),
    ("Pkgs", "Packages", "Qty"),
    ("Goods", "Description", "Commodity", "Cargo"),
    ("Weight", "GW", "Gross wt", "Wt"),
)


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
