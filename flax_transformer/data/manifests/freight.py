"""Sea freight: codes with the ways in which people write them, container numbers, and records drawn from these.

Codes are public standards: SCAC for carriers, UN/LOCODE for ports, UNECE Recommendation 20 for units and 21 for
packages, UN numbers with IMO classes for dangerous goods, ISO 6346 for containers.
"""

import datetime
import string
from collections.abc import Callable, Sequence
from typing import TypedDict, TypeVar

import numpy as np

T = TypeVar("T")

# SCAC -> names and abbreviations.
CARRIERS = {
    "MAEU": ("Maersk", "Maersk Line", "MSK"),
    "MSCU": ("MSC", "Med Shipping"),
    "CMDU": ("CMA CGM", "CMA-CGM", "CMA"),
    "HLCU": ("Hapag-Lloyd", "Hapag", "HLAG"),
    "ONEY": ("ONE", "Ocean Network Express"),
    "EGLV": ("Evergreen", "EMC", "Evergreen Line"),
    "COSU": ("COSCO", "Cosco Shipping"),
    "HDMU": ("HMM", "Hyundai MM"),
    "YMLU": ("Yang Ming", "YML"),
    "ZIMU": ("ZIM", "ZIM Line"),
    "OOLU": ("OOCL", "Orient Overseas"),
    "WHLC": ("Wan Hai", "WHL"),
}

# UN/LOCODE -> names and abbreviations.
PORTS = {
    "CNSHA": ("Shanghai", "SHA"),
    "CNNGB": ("Ningbo", "NGB"),
    "CNYTN": ("Yantian", "YTN"),
    "CNTAO": ("Qingdao", "Tsingtao"),
    "HKHKG": ("Hong Kong", "HKG"),
    "SGSIN": ("Singapore", "S'pore", "SIN"),
    "KRPUS": ("Busan", "Pusan"),
    "JPYOK": ("Yokohama", "YOK"),
    "TWKHH": ("Kaohsiung", "KHH"),
    "VNSGN": ("Ho Chi Minh", "HCMC", "Saigon"),
    "THLCH": ("Laem Chabang", "LCB"),
    "MYPKG": ("Port Klang", "Port Kelang"),
    "INNSA": ("Nhava Sheva", "JNPT"),
    "INMUN": ("Mundra", "MUN"),
    "LKCMB": ("Colombo", "CMB"),
    "AEJEA": ("Jebel Ali", "J. Ali"),
    "SAJED": ("Jeddah", "Jidda"),
    "GRPIR": ("Piraeus", "PIR"),
    "ITGOA": ("Genoa", "Genova"),
    "ESVLC": ("Valencia", "VLC"),
    "FRLEH": ("Le Havre", "LEH"),
    "BEANR": ("Antwerp", "Antwerpen", "ANR"),
    "NLRTM": ("Rotterdam", "R'dam", "RTM"),
    "DEHAM": ("Hamburg", "HAM"),
    "DEBRV": ("Bremerhaven", "B'haven"),
    "GBFXT": ("Felixstowe", "FXT"),
    "PLGDN": ("Gdansk", "GDN"),
    "SEGOT": ("Gothenburg", "Goteborg"),
    "USNYC": ("New York", "NYC"),
    "USLAX": ("Los Angeles", "LAX", "L.A."),
    "USSAV": ("Savannah", "SAV"),
    "USHOU": ("Houston", "HOU"),
    "BRSSZ": ("Santos", "SSZ"),
    "ZADUR": ("Durban", "DUR"),
    "AUMEL": ("Melbourne", "MEL"),
    "AUSYD": ("Sydney", "SYD"),
}

# UNECE Recommendation 21 -> words for many of them.
PACKAGES = {
    "CT": ("cartons", "ctns", "ctn"),
    "PX": ("pallets", "plts", "plt"),
    "DR": ("drums", "drms"),
    "BG": ("bags", "bgs"),
    "CS": ("cases", "cs"),
    "CR": ("crates", "crts"),
    "RO": ("rolls", "rls"),
    "BX": ("boxes", "bxs"),
}

# UNECE Recommendation 20 -> words.
UNITS = {
    "KGM": ("kg", "kgs", "KGS", "kilos"),
    "LBR": ("lb", "lbs", "LBS", "pounds"),
    "TNE": ("t", "MT", "mt", "tonnes"),
}

GOODS = (
    "ceramic tiles", "cotton shirts", "office chairs", "machine parts", "green coffee", "frozen shrimp", "steel coils",
    "copper wire", "plywood", "printing paper", "garden furniture", "toys", "car tyres", "glassware", "water pumps",
    "solar panels", "LED lamps", "bicycles", "rubber gloves", "olive oil", "canned tuna", "rice", "black tea",
    "leather shoes", "kitchenware", "hand tools", "ball bearings", "pvc resin", "wooden doors", "cocoa beans",
)  # fmt: skip

# Dangerous goods: name, UN number, IMO class.
DANGEROUS_GOODS = (
    ("paint", 1263, "3"),
    ("ethanol", 1170, "3"),
    ("acetone", 1090, "3"),
    ("adhesives", 1133, "3"),
    ("perfume", 1266, "3"),
    ("aerosols", 1950, "2.1"),
    ("propane", 1978, "2.1"),
    ("safety matches", 1944, "4.1"),
    ("charcoal", 1361, "4.2"),
    ("calcium carbide", 1402, "4.3"),
    ("ammonium nitrate", 1942, "5.1"),
    ("hydrogen peroxide", 2014, "5.1"),
    ("pesticide", 2902, "6.1"),
    ("hydrochloric acid", 1789, "8"),
    ("caustic soda", 1824, "8"),
    ("lithium batteries", 3480, "9"),
)

# A party is one word of each row.
PARTY_NAMES = (
    ("Baltic", "Nordwind", "Kestrel", "Sunrise", "Golden Bay", "Alpine", "Meridian", "Blue Star", "Harbour", "Orchid",
     "Falcon", "Cedar", "Pacific", "Delta", "Evans", "Kowalski", "Tanaka", "Oliveira", "Bergmann", "Rossi", "Jansen",
     "Novak", "Lindqvist", "Mehta", "Okafor", "Silva", "Dubois", "Haddad", "Nguyen", "Castillo"),
    ("Timber", "Textiles", "Foods", "Chemicals", "Trading", "Import", "Export", "Tools", "Steel", "Paper", "Plastics",
     "Motors", "Supplies", "Ceramics", "Marine", "Home", "Sports", "Electric", "Industries", "Partners"),
    ("GmbH", "Ltd", "BV", "SA", "Inc", "Co Ltd", "Pte Ltd", "SpA", "AB", "LLC"),
)  # fmt: skip

# Owner codes of carriers and lessors, each with the equipment category U for containers.
OWNERS = (
    "MSKU", "MRKU", "MSCU", "MEDU", "CMAU", "HLXU", "HLBU", "ONEU", "NYKU", "EGHU", "EISU", "CCLU", "HDMU", "YMLU",
    "ZIMU", "OOLU", "WHLU", "TCLU", "TGHU", "TRHU", "CAIU", "GESU", "FCIU", "BMOU",
)  # fmt: skip

# ISO 6346 gives letters the values 10, 12, 13, ... and leaves out the multiples of 11.
_VALUES = dict(zip(string.digits, range(10), strict=True)) | dict(
    zip(string.ascii_uppercase, (value for value in range(10, 39) if value % 11), strict=True)
)


def check_digit(code: str) -> int:
    """Of a container's owner code and serial number, ``"CSQU305438"`` -> 3 (ISO 6346, annex A)."""
    return sum(_VALUES[character] << place for place, character in enumerate(code)) % 11 % 10


def is_container_number(text: str) -> bool:
    """Four letters, six digits and the check digit that they call for."""
    well_formed = (
        len(text) == 11 and text.isascii() and text[:4].isalpha() and text[:4].isupper() and text[4:].isdigit()
    )
    return well_formed and check_digit(text[:10]) == int(text[10])


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


def draw_manifest(rng: np.random.Generator, max_items: int, upper_case: bool) -> Manifest:
    """A record with 1 to ``max_items`` line items, fewer rather than more; its texts in capitals where asked."""
    case = str.upper if upper_case else str
    ports = list(PORTS)
    pol = pick(rng, ports)
    pod = pick(rng, [port for port in ports if port != pol])
    day = datetime.date(2025, 1, 1) + datetime.timedelta(_below(rng, 3 * 365))
    return {
        "carrier": pick(rng, list(CARRIERS)),
        "pol": pol,
        "pod": pod,
        "etd": day.isoformat(),
        "shipper": case(_draw_party(rng)),
        "consignee": case(_draw_party(rng)),
        "items": [_draw_item(rng, case) for _ in range(min(int(rng.geometric(0.6)), max_items))],
    }


def _draw_item(rng: np.random.Generator, case: Callable[[str], str]) -> Item:
    serial = pick(rng, OWNERS) + f"{_below(rng, 10**6):06d}"
    goods, hazard = pick(rng, GOODS), None
    if rng.random() < 0.25:
        goods, un, imo = pick(rng, DANGEROUS_GOODS)
        hazard = Hazard(un=un, imo=imo)
    unit = pick(rng, ("KGM", "KGM", "LBR", "TNE"))
    weight = (11 + _below(rng, 269)) / 10 if unit == "TNE" else (10 + _below(rng, 2790)) * 10
    return {
        "container": f"{serial}{check_digit(serial)}",
        "packages": 2 + _below(rng, 998),
        "kind": pick(rng, list(PACKAGES)),
        "goods": case(goods),
        "weight": int(weight) if weight == int(weight) else weight,
        "unit": unit,
        "hazard": hazard,
    }


def _draw_party(rng: np.random.Generator) -> str:
    return " ".join(pick(rng, names) for names in PARTY_NAMES)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each as likely as the others."""
    return options[_below(rng, len(options))]


def _below(rng: np.random.Generator, limit: int) -> int:
    """As ``rng.integers(limit)``, several times as fast for one number."""
    return int(rng.random() * limit)
