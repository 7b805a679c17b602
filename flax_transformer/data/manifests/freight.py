"""Sea freight: codes with the ways in which people write them, container numbers, and records.

Codes are public standards: SCAC for carriers, UN/LOCODE for ports, UNECE Recommendation 20 for units and 21 for
packages, UN numbers with IMO classes for dangerous goods, ISO 6346 for containers.
"""

import datetime
import string
from collections.abc import Callable
from typing import TypedDict

from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.names import Stock, goods, party

# SCAC -> names and abbreviations.
CARRIERS = {
    "MAEU": ("Maersk", "Maersk Line", "MSK", "Maersk A/S", "A.P. Moller Maersk", "Moller-Maersk", "Mærsk"),
    "MSCU": ("MSC", "Med Shipping", "MSC Mediterranean Shipping Company", "Mediterranean Shipping Co", "M.S.C."),
    "CMDU": ("CMA CGM", "CMA-CGM", "CMA", "CMA CGM S.A.", "CMACGM", "CMA/CGM"),
    "HLCU": ("Hapag-Lloyd", "Hapag", "HLAG", "Hapag Lloyd", "Hapag-Lloyd AG", "HPL", "Hapag Lloyd A.G."),
    "ONEY": ("ONE", "Ocean Network Express", "ONE Line", "O.N.E.", "Ocean Network Express Pte. Ltd."),
    "EGLV": ("Evergreen", "EMC", "Evergreen Line", "Evergreen Marine", "Evergreen Marine Corp.", "EVG"),
    "COSU": (
        "COSCO", "Cosco Shipping", "COSCO Shipping Lines", "Cosco Container Lines", "COSCON", "China Ocean Shipping",
    ),
    "HDMU": ("HMM", "Hyundai MM", "Hyundai Merchant Marine", "HMM Co., Ltd.", "H.M.M.", "Hyundai"),
    "YMLU": ("Yang Ming", "YML", "Yang Ming Line", "Yangming", "Yang Ming Marine Transport", "YM Line"),
    "ZIMU": ("ZIM", "ZIM Line", "Zim Integrated Shipping", "Zim Integrated", "ZIM Lines"),
    "OOLU": ("OOCL", "Orient Overseas", "Orient Overseas Container Line", "O.O.C.L.", "OOCL Ltd"),
    "WHLC": ("Wan Hai", "WHL", "Wan Hai Lines", "Wanhai", "Wan Hai Line", "WHL Lines"),
}  # fmt: skip

# UN/LOCODE -> names and abbreviations.
PORTS = {
    "CNSHA": ("Shanghai", "SHA", "Shang Hai", "Shanghai Port"),
    "CNNGB": ("Ningbo", "NGB", "Ningpo", "Ning Bo", "Ningbo-Zhoushan"),
    "CNYTN": ("Yantian", "YTN", "Yan Tian", "Shenzhen Yantian"),
    "CNTAO": ("Qingdao", "Tsingtao", "TAO", "Qing Dao"),
    "HKHKG": ("Hong Kong", "HKG", "Hongkong", "H.K."),
    "SGSIN": ("Singapore", "S'pore", "SIN", "Spore", "Singapur", "PSA Singapore"),
    "KRPUS": ("Busan", "Pusan", "PUS", "Busan New Port"),
    "JPYOK": ("Yokohama", "YOK", "Y'hama"),
    "TWKHH": ("Kaohsiung", "KHH", "Kaohsiung City"),
    "VNSGN": ("Ho Chi Minh", "HCMC", "Saigon", "SGN", "Ho Chi Minh City", "Cat Lai", "HCM City"),
    "THLCH": ("Laem Chabang", "LCB", "Laemchabang", "LCH"),
    "MYPKG": ("Port Klang", "Port Kelang", "PKG", "Klang", "Port Klang Westport", "Pelabuhan Klang"),
    "INNSA": ("Nhava Sheva", "JNPT", "NSA", "Nhavasheva", "Jawaharlal Nehru Port", "Navi Mumbai JNPT"),
    "INMUN": ("Mundra", "MUN", "Mundra Port"),
    "LKCMB": ("Colombo", "CMB", "Kolombo"),
    "AEJEA": ("Jebel Ali", "J. Ali", "JEA", "Jebel-Ali", "Dubai Jebel Ali"),
    "SAJED": ("Jeddah", "Jidda", "JED", "Djeddah", "Yeda", "Jeddah Islamic Port"),
    "GRPIR": ("Piraeus", "PIR", "Pireus", "Piräus", "Le Pirée"),
    "ITGOA": ("Genoa", "Genova", "GOA", "Genua", "Gênes"),
    "ESVLC": ("Valencia", "VLC", "València", "Valence"),
    "FRLEH": ("Le Havre", "LEH", "Havre", "LeHavre"),
    "BEANR": ("Antwerp", "Antwerpen", "ANR", "Anvers", "Amberes"),
    "NLRTM": ("Rotterdam", "R'dam", "RTM", "Rdam", "Rotterdam Maasvlakte"),
    "DEHAM": ("Hamburg", "HAM", "Hambourg", "Hamburgo", "HH"),
    "DEBRV": ("Bremerhaven", "B'haven", "BRV", "Bremerhafen", "Bhv"),
    "GBFXT": ("Felixstowe", "FXT", "F'stowe", "Felixst."),
    "PLGDN": ("Gdansk", "GDN", "Gdańsk", "Danzig"),
    "SEGOT": ("Gothenburg", "Goteborg", "GOT", "Göteborg"),
    "USNYC": ("New York", "NYC", "Port Newark NY", "NY", "New York/New Jersey", "NY NJ"),
    "USLAX": ("Los Angeles", "LAX", "L.A.", "LA", "San Pedro LA", "Los Angeles CA"),
    "USSAV": ("Savannah", "SAV", "Savannah GA"),
    "USHOU": ("Houston", "HOU", "Houston TX", "Barbours Cut Houston"),
    "BRSSZ": ("Santos", "SSZ", "Porto de Santos", "Santos SP"),
    "ZADUR": ("Durban", "DUR", "Durban Harbour"),
    "AUMEL": ("Melbourne", "MEL", "Melb", "Melbourne VIC"),
    "AUSYD": ("Sydney", "SYD", "Port Botany Sydney", "Sydney NSW"),
}

# The first two letters of a UN/LOCODE -> the country.
COUNTRIES = {
    "CN": ("China", "PR China", "P.R.C."), "HK": ("Hong Kong SAR", "China"), "SG": ("Singapore",),
    "KR": ("South Korea", "Korea", "Rep. of Korea"), "JP": ("Japan",), "TW": ("Taiwan", "ROC"),
    "VN": ("Vietnam", "Viet Nam"),
    "TH": ("Thailand",), "MY": ("Malaysia",), "IN": ("India",), "LK": ("Sri Lanka",), "AE": ("UAE", "U.A.E.", "Dubai"),
    "SA": ("Saudi Arabia", "KSA"), "GR": ("Greece", "Griechenland"), "IT": ("Italy", "Italia", "Italien"),
    "ES": ("Spain", "España"), "FR": ("France",), "BE": ("Belgium", "Belgien", "België"),
    "NL": ("Netherlands", "Holland"),
    "DE": ("Germany", "Deutschland", "Allemagne"), "GB": ("UK", "United Kingdom", "England"),
    "PL": ("Poland", "Polska"),
    "SE": ("Sweden", "Sverige"), "US": ("USA", "U.S.A.", "United States"), "BR": ("Brazil", "Brasil"),
    "ZA": ("South Africa", "RSA"), "AU": ("Australia",),
}  # fmt: skip

# UNECE Recommendation 21 -> words for many of them.
PACKAGES = {
    "CT": ("cartons", "cartons", "ctns", "ctns", "ctn", "carton", "cartns", "Kartons", "cartones", "cartoni"),
    "PX": ("pallets", "pallets", "plts", "plt", "pallet", "pals", "Paletten", "palettes", "palets", "plls"),
    "DR": ("drums", "drums", "drms", "drum", "Fässer", "fûts", "bidones", "fusti", "vaten"),
    "BG": ("bags", "bags", "bgs", "bag", "Säcke", "sacs", "sacos", "sacchi", "zakken"),
    "CS": ("cases", "cases", "cs", "case", "cses", "caisses", "casse"),
    "CR": ("crates", "crates", "crts", "crate", "Verschläge", "kratten"),
    "RO": ("rolls", "rolls", "rls", "roll", "Rollen", "rouleaux", "rollos", "rotoli"),
    "BX": ("boxes", "boxes", "bxs", "box", "Schachteln", "boîtes", "cajas", "scatole"),
}  # fmt: skip

# UNECE Recommendation 20 -> words.
UNITS = {
    "KGM": ("kg", "kg", "kgs", "KGS", "KG", "Kg", "kilos", "kgm", "kilograms", "Kgs.", "KGM"),
    "LBR": ("lb", "lbs", "LBS", "pounds", "lbs.", "Lbs", "LBR"),
    "TNE": ("t", "MT", "mt", "tonnes", "to", "tons", "mtons", "M/T", "metric tons", "TNE"),
}

# Classes of dangerous goods (IMDG code), the frequent ones several times.
IMO_CLASSES = (
    "1.4", "2.1", "2.2", "2.3", "3", "3", "3", "3", "4.1", "4.2", "4.3", "5.1", "5.2", "6.1", "6.2", "8", "8", "8",
    "9", "9",
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


def draw_manifest(draw: Draw, stock: Stock, max_items: int, upper_case: bool) -> Manifest:
    """A record with 1 to ``max_items`` line items, fewer rather than more; its texts in capitals where asked.

    A third has one owner code for all of its containers, which is usual.
    """
    case = str.upper if upper_case else str
    pol, pod = draw.shuffled(list(PORTS))[:2]
    day = datetime.date(2024, 1, 1) + datetime.timedelta(draw.below(5 * 365))
    owner = _draw_owner(draw) if draw.chance(0.33) else None
    return {
        "carrier": draw.pick(list(CARRIERS)),
        "pol": pol,
        "pod": pod,
        "etd": day.isoformat(),
        "shipper": case(party(draw, stock)),
        "consignee": case(party(draw, stock)),
        "items": [_draw_item(draw, stock, case, owner) for _ in range(min(int(draw.rng.geometric(0.6)), max_items))],
    }


def _draw_item(draw: Draw, stock: Stock, case: Callable[[str], str], owner: str | None) -> Item:
    serial = (owner or _draw_owner(draw)) + draw.digits(6)
    unit = draw.pick(("KGM", "KGM", "KGM", "LBR", "TNE"))
    weight = (11 + draw.below(269)) / 10 if unit == "TNE" else (100 + draw.below(27_900)) * draw.pick((1, 1, 1, 2))
    is_dangerous = draw.chance(0.25)
    return {
        "container": f"{serial}{check_digit(serial)}",
        "packages": 2 + draw.below(draw.pick((98, 998, 998, 1998))),
        "kind": draw.pick(list(PACKAGES)),
        "goods": case(goods(draw, stock)),
        "weight": int(weight) if weight == int(weight) else weight,
        "unit": unit,
        "hazard": Hazard(un=1001 + draw.below(2550), imo=draw.pick(IMO_CLASSES)) if is_dangerous else None,
    }


def _draw_owner(draw: Draw) -> str:
    """Of a large company, or of any."""
    letters = string.ascii_uppercase
    return draw.pick(OWNERS) if draw.chance(0.4) else "".join(draw.pick(letters) for _ in range(3)) + "U"
