"""How one sender writes the values of a manifest: dates, numbers, containers, ports, packages, dangerous goods."""

import datetime
import re
from dataclasses import dataclass

from flax_transformer.data.manifests import freight
from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.freight import Item, Manifest
from flax_transformer.data.manifests.labels import Labels
from flax_transformer.data.manifests.names import Stock

_WORD = re.compile(r"(?<![{'\w])[A-Za-z]{5,}(?![}'\w])")  # outside of a template's {slots}
_DATES = (
    "{d:%Y-%m-%d}", "{d:%Y-%m-%d}", "{d:%Y/%m/%d}", "{d:%Y.%m.%d}", "{d:%Y%m%d}", "{d:%d/%m/%Y}", "{d:%d/%m/%Y}",
    "{d:%d/%m/%y}",
    "{d:%d.%m.%Y}", "{d:%d.%m.%Y}", "{d:%d.%m.%y}", "{d:%d-%m-%Y}", "{d:%d-%m-%y}", "{n}/{d:%m/%Y}", "{n}.{m}.{d:%Y}",
    "{n}/{m}/{d:%y}",
    "{d:%d} {mon} {d:%Y}", "{n} {mon} {d:%Y}", "{n} {mon} {d:%y}", "{d:%d}-{mon}-{d:%y}", "{d:%d}-{mon}-{d:%Y}",
    "{n}-{mon}-{d:%Y}",
    "{d:%d}{MON}{d:%y}", "{d:%d}{MON}{d:%Y}", "{d:%d} {MON} {d:%Y}", "{d:%d}-{MON}-{d:%Y}", "{d:%d}/{mon}/{d:%Y}",
    "{d:%d}.{MON}.{d:%y}",
    "{month} {th} {d:%Y}", "{month} {th}, {d:%Y}", "{mon} {n}, {d:%Y}", "{mon} {d:%d} {d:%Y}", "{month} {n}, {d:%Y}",
    "{MON} {d:%d}, {d:%Y}",
    "{th} {month} {d:%Y}", "{th} {mon} {d:%Y}", "{th} of {month} {d:%Y}", "{n} {month} {d:%Y}",
    "{day} {n} {mon} {d:%Y}", "{day}, {n} {month} {d:%Y}",
    "{day} {d:%d/%m/%Y}", "{n} de {mes} de {d:%Y}", "{n} {mois} {d:%Y}", "{n}. {monat} {d:%Y}",
    "{d:%d}. {monat} {d:%Y}", "{n} {mese} {d:%Y}", "{n} {maand} {d:%Y}",
)  # fmt: skip
_MONTHS = {
    "month": "January February March April May June July August September October November December",
    "mes": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "mois": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "monat": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "mese": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "maand": "januari februari maart april mei juni juli augustus september oktober november december",
}
_MONTHS = {language: names.split() for language, names in _MONTHS.items()}
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_CONTAINERS = (
    "{owner}{serial}{check}", "{owner}{serial}{check}", "{owner}{serial}{check}", "{owner}{serial}{check}",
    "{owner} {serial}{check}", "{owner} {serial}-{check}", "{owner}-{serial}-{check}", "{owner}{serial}-{check}",
    "{owner} {serial} {check}", "{owner}-{serial}{check}", "{owner} {serial}/{check}", "{owner}/{serial}-{check}",
)  # fmt: skip
_HAZARDS = (
    "UN{un} class {imo}", "UN {un} cl. {imo}", "IMO {imo}, UN{un}", "DG {imo} UN {un}", "IMO {imo} / UN {un}",
    "UN {un}, class {imo}",
    "class {imo} / UN{un}", "UN{un} cl {imo}", "cl. {imo} UN {un}", "UN No. {un}, IMO class {imo}",
    "IMO {imo} UN {un}", "UN-{un} / {imo}",
    "IMDG {imo}, UN {un}", "UN{un}/{imo}", "haz class {imo} UN#{un}", "DG class {imo}, UN no. {un}",
    "UN {un} Klasse {imo}", "ONU {un} clase {imo}",
    "UN{un} ({imo})", "hazardous cl.{imo}, un{un}", "class {imo}, UN {un}, PG II", "UN {un}, class {imo}, PG III",
    "UN {un}, {imo}, III",
)  # fmt: skip
# What some forms have around a label.
_AROUND_LABELS = (
    "our {}", "the {}", "this {}", "{} (full)", "{} firm", "{} info", "{} data", "{} field", "{} for B/L", "B/L {}",
    "{} as agreed", "{} here", "main {}", "intended {}", "{} requested", "{} (1)", "{}*", "{}, if known", "{} please",
    "booked {}", "{} entry",
)  # fmt: skip
_NOT_DANGEROUS = (
    "not dangerous",
    "non-haz",
    "no DG",
    "non hazardous",
    "NON DG",
    "harmless",
    "no IMO",
    "general cargo",
    "n/a",
    "none",
    "no",
    "-",
)


def slips(word: str) -> list[str]:
    """The ways to mistype a word: one letter is lost, doubled or swapped with the next. The first one stays."""
    lost = [word[:i] + word[i + 1 :] for i in range(1, len(word))]
    doubled = [word[:i] + word[i] + word[i:] for i in range(1, len(word))]
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1)]
    return [slip for slip in lost + doubled + swapped if slip != word]


@dataclass(frozen=True)
class Cells:
    """A line item in words; ``hazard`` is empty where there is none."""

    container: str
    count: str
    kind: str
    goods: str
    number: str
    unit: str
    hazard: str
    un: str
    imo: str

    @property
    def packages(self) -> str:
        return f"{self.count} {self.kind}"


class Sender:
    """One sender's habits: how dates, numbers and containers are written, what fields are called, the share of slips.

    Args:
        stock: of the names that stand beside the record's own.
        english: labels.
        languages: labels, one of which the sender may write beside or, with ``is_monolingual``, in place of English.
    """

    def __init__(
        self,
        draw: Draw,
        noise: float,
        stock: Stock,
        english: Labels,
        languages: tuple[Labels, ...],
        is_monolingual: bool,
    ) -> None:
        self.draw, self.stock, self._noise, self._english = draw, stock, noise, english
        self._foreign = draw.pick(languages) if draw.chance(0.3) else None
        ways = ("{0}/{1}", "{0} / {1}", "{1}/{0}", "{1} / {0}", "{1} ({0})", *("{0}",) * 6 * is_monolingual)
        self._bilingual = draw.pick(ways)
        self._case = draw.pick((str, str, str, str, str.upper, str.upper, str.lower, str.title))
        self._date, self._container = draw.pick(_DATES), draw.pick(_CONTAINERS)
        self._hazard, self._thousands = draw.pick(_HAZARDS), draw.pick(("", "", "", ",", ",", ",", ".", ".", " ", "'"))
        self._space = draw.pick((" ", " ", "", " "))
        self._with_country = draw.chance(0.2)

    def label(self, field: str) -> str:
        """What the sender calls a field."""
        label = self.draw.pick(self._english[field])
        if self.draw.chance(0.15):
            label = self.draw.pick(_AROUND_LABELS).format(label)
        if self._foreign is not None:
            label = self._bilingual.format(self.draw.pick(self._foreign[field]), label)
        return self.mistyped(self._case(label))

    def header(self, manifest: Manifest) -> dict[str, str]:
        """Everything but the items, in words."""
        return {
            "carrier": self.mistyped(self.draw.pick((*freight.CARRIERS[manifest["carrier"]], manifest["carrier"]))),
            "pol": self.port(manifest["pol"]),
            "pod": self.port(manifest["pod"]),
            "etd": self.day(datetime.date.fromisoformat(manifest["etd"])),
            "shipper": manifest["shipper"],
            "consignee": manifest["consignee"],
        }

    def cells(self, item: Item) -> Cells:
        """An item in words."""
        number, hazard = item["container"], item["hazard"] or {"un": "", "imo": ""}
        return Cells(
            container=self._container.format(owner=number[:4], serial=number[4:10], check=number[10]),
            count=self.number(item["packages"]) if self.draw.chance(0.5) else str(item["packages"]),
            kind=self.mistyped(self.draw.pick(freight.PACKAGES[item["kind"]])),
            goods=item["goods"],
            number=self.number(item["weight"]),
            unit=self.draw.pick(freight.UNITS[item["unit"]]),
            hazard=self._hazard.format(**item["hazard"]) if item["hazard"] else "",
            un=str(hazard["un"]),
            imo=hazard["imo"],
        )

    def weight(self, cells: Cells) -> str:
        """Number and unit."""
        return cells.number + self._space + cells.unit

    def no_hazard(self) -> str:
        """As it is said of harmless goods."""
        return self.draw.pick(_NOT_DANGEROUS)

    def number(self, value: float) -> str:
        """With the sender's separators."""
        point = "," if self._thousands in (".", " ") else "."
        if isinstance(value, int):
            return f"{value:,}".replace(",", self._thousands)
        return str(value).replace(".", point)

    def port(self, code: str) -> str:
        """By one of its names or its code, perhaps with more beside it."""
        text = self.mistyped(self.draw.pick((*freight.PORTS[code], freight.PORTS[code][0], code)))
        if self._with_country and text != code:
            country = self.draw.pick((*freight.COUNTRIES[code[:2]], code[:2]))
            text = self.draw.pick(("{}, {}", "{}, {}", "{} ({})", "{}/{}", "{} {}")).format(text, country)
        elif self.draw.chance(0.05):
            text = self.draw.pick(
                (f"{text} ({code})", f"{code} {text}", f"{code[:2]} {code[2:]}", f"port of {text}", f"{text} port")
            )
        return text

    def day(self, day: datetime.date) -> str:
        """A date."""
        suffix = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day not in (11, 12, 13) else 0, "th")
        months = {language: names[day.month - 1] for language, names in _MONTHS.items()}
        mon = months["month"][: self.draw.pick((3, 3, 3, 4))] if day.month == 9 else months["month"][:3]
        weekday = _DAYS[day.weekday()][: self.draw.pick((3, 3, 9))]
        return self._date.format(
            d=day, n=day.day, m=day.month, th=f"{day.day}{suffix}", mon=mon, MON=mon.upper(), day=weekday, **months
        )

    def some_day(self) -> str:
        """A date that is none of the record's."""
        return self.day(datetime.date(2024, 1, 1) + datetime.timedelta(self.draw.below(5 * 365)))

    def say(self, template: str, **values: str) -> str:
        """A sentence with its slots filled."""
        return self.mistyped(template).format(**values)

    def mistyped(self, text: str) -> str:
        """Each word of five letters or more has a chance of a slip."""
        if not self._noise:
            return text
        return _WORD.sub(
            lambda match: self.draw.pick(slips(match[0])) if self.draw.chance(self._noise) else match[0], text
        )
