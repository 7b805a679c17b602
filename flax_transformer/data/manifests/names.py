"""Names without end: of people and companies, from the syllables of many languages, and of goods."""

from typing import NamedTuple

from flax_transformer.data.manifests.draw import Draw


class Family(NamedTuple):
    """Syllables of a language: what a syllable begins with, its vowels, what closes it, and what ends a name."""

    onsets: tuple[str, ...]
    vowels: tuple[str, ...]
    codas: tuple[str, ...]
    endings: tuple[str, ...]


class Stock(NamedTuple):
    """What names are put together from.

    Args:
        families: of the invented words.
        forms: legal forms of companies.
        trades: words for what a company does.
        links: between two names, and before or after one.
        goods: nouns.
        qualities: words before the noun.
        letters: of legal forms that no list has; where there are any, trades may be invented words, too.
    """

    families: tuple[Family, ...]
    forms: tuple[str, ...]
    trades: tuple[str, ...]
    links: tuple[str, ...]
    goods: tuple[str, ...]
    qualities: tuple[str, ...]
    letters: str = ""


def family(onsets: str, vowels: str, codas: str, endings: str) -> Family:
    """Each a row of syllables; - is nothing."""
    return Family(*(tuple(part.replace("-", "") for part in row.split()) for row in (onsets, vowels, codas, endings)))


def word(draw: Draw, language: Family) -> str:
    """An invented word of one to four syllables, in lower case."""
    syllables = [
        draw.pick(language.onsets)
        + draw.pick(language.vowels)
        + (draw.pick(language.codas) if draw.chance(0.6) else "")
        for _ in range(draw.pick((1, 1, 2, 2, 2, 3)))
    ]
    text = "".join(syllables) + (draw.pick(language.endings) if draw.chance(0.5) else "")
    return text if len(text) > 2 else text + draw.pick(language.endings) + draw.pick(language.onsets)


def name(draw: Draw, stock: Stock) -> str:
    """An invented word as a proper name."""
    text = word(draw, draw.pick(stock.families))
    return text[0].upper() + text[1:]


def party(draw: Draw, stock: Stock) -> str:
    """A company as it writes itself: ``Brandt & Kohl Maschinen GmbH``, ``PT Surindo``, ``M.K. Lavari (1994) Ltd.``"""
    parts = [_core(draw, stock)]
    if draw.chance(0.65):
        parts += [_trade(draw, stock) for _ in range(draw.pick((1, 1, 1, 2)))]
    if draw.chance(0.06):
        parts.append(draw.pick((f"({name(draw, stock)})", f"({1950 + draw.below(75)})", "(Private)", "International")))
    if draw.chance(0.8):
        parts.append(_form(draw, stock))
    if len(parts) == 1 and draw.chance(0.7):
        parts.append(_trade(draw, stock))
    return draw.pick((str, str, str, str, str, str, str, str.upper, str.title, str.lower))(_joined(draw, parts))


def _trade(draw: Draw, stock: Stock) -> str:
    return name(draw, stock) if stock.letters and draw.chance(0.15) else draw.pick(stock.trades)


def _form(draw: Draw, stock: Stock) -> str:
    """A legal form of the list, or one of one to four letters: ``Z.V.``, ``Dmo.``, ``RNW``"""
    if not stock.letters or draw.chance(0.8):
        return draw.pick(stock.forms)
    letters = [draw.pick(stock.letters) for _ in range(draw.pick((1, 2, 2, 3, 3, 3, 4)))]
    text = draw.pick(("", "", ".", ". ")).join(letters) + draw.pick(("", "."))
    return draw.pick((str, str, str.capitalize, str.lower))(text)


def _joined(draw: Draw, parts: list[str]) -> str:
    text = " ".join(parts[:-1])
    comma = "," if text and parts[-1].endswith(".") and draw.chance(0.3) else ""
    return f"{text}{comma} {parts[-1]}".strip()


def _core(draw: Draw, stock: Stock) -> str:
    """The name proper."""
    first = name(draw, stock)
    kind = draw.below(20)
    if kind < 7:
        return first
    if kind < 11:
        return f"{first} {name(draw, stock)}"
    if kind < 13:
        return f"{first}{draw.pick((' & ', ' & ', '-', '-', ' + ', '/', ' and '))}{name(draw, stock)}"
    if kind < 15:
        return _initials(draw) + draw.pick((" ", "-", " ")) + first
    if kind < 18:
        link = draw.pick(stock.links)
        return link.replace("1", first).replace("2", name(draw, stock))
    if kind < 19:
        return _initials(draw).replace(".", "") + draw.pick(("", str(1 + draw.below(99)), "-" + str(draw.below(10))))
    return draw.pick(
        (f"{1 + draw.below(99)}{first}", f"{first} {1 + draw.below(99)}", f"{first[:1]}{draw.below(10)}-{first}")
    )


def _initials(draw: Draw) -> str:
    letters = [draw.pick("ABCDEFGHIJKLMNOPQRSTUVWZ") for _ in range(draw.pick((1, 2, 2, 3)))]
    return draw.pick(("", ".")).join(letters) + draw.pick(("", "."))


def goods(draw: Draw, stock: Stock) -> str:
    """A commodity as a clerk calls it: ``frozen mackerel fillets``, ``tralun brackets 12 mm``, ``POLYSORATE 40``"""
    words = [draw.pick(stock.qualities) for _ in range(draw.pick((0, 1, 1, 1, 1, 2)))]
    if draw.chance(0.35):
        words.insert(draw.below(len(words) + 1), word(draw, draw.pick(stock.families)))
    words.append(draw.pick(stock.goods) if draw.chance(0.85) else word(draw, draw.pick(stock.families)))
    text = " ".join(dict.fromkeys(words))
    if draw.chance(0.07):
        text = draw.pick((f"{text} {_grade(draw)}", f"{_grade(draw)} {text}"))
    return draw.pick((str, str, str, str, str, str.capitalize, str.title, str.upper))(text)


def _grade(draw: Draw) -> str:
    number = 1 + draw.below(draw.pick((10, 100, 1000)))
    letters = "".join(draw.pick("ABCDEFGHKLMNPRSTVWX") for _ in range(draw.pick((1, 2, 2, 3))))
    return draw.pick(
        (f"{letters}{number}", f"{letters}-{number}", f"{number}mm", f"{number} ml", letters, f"{letters} {number}")
    )


def person(draw: Draw, stock: Stock) -> str:
    """Somebody who writes or is written to."""
    return draw.pick(
        (name(draw, stock), f"{name(draw, stock)} {name(draw, stock)}", f"{_initials(draw)} {name(draw, stock)}")
    )
