"""How freight clerks write a manifest into an e-mail: layouts, labels, abbreviations, formats and slips of the keys."""

import datetime
import re
from collections.abc import Sequence

import numpy as np

from flax_transformer.data.manifests import freight
from flax_transformer.data.manifests.freight import Item, Manifest, T

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
_TITLES = (
    ("Cntr", "Container", "Cntr no", "Equipment"),
    ("Pkgs", "Packages", "Qty"),
    ("Goods", "Description", "Commodity", "Cargo"),
    ("Weight", "GW", "Gross wt", "Wt"),
)


def slips(word: str) -> list[str]:
    """The ways to mistype a word: one letter is lost, doubled or swapped with the next. The first one stays."""
    lost = [word[:i] + word[i + 1 :] for i in range(1, len(word))]
    doubled = [word[:i] + word[i] + word[i:] for i in range(1, len(word))]
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1)]
    return [slip for slip in lost + doubled + swapped if slip != word]


class EmailTemplates:
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
        return freight.pick(self._rng, options)
