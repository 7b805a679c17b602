"""How a manifest is laid out in a text: forms, tables, sentences, EDI. Each layout is a function of a sender."""

from collections.abc import Callable
from typing import NamedTuple

from flax_transformer.data.manifests.clutter import Clutter
from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.freight import Manifest
from flax_transformer.data.manifests.items import cargo_sentence, item_lines, item_rows
from flax_transformer.data.manifests.parties import parties
from flax_transformer.data.manifests.phrasing import Sender

Layout = Callable[[Sender, Clutter, Manifest], str]
_HEADER = ("carrier", "pol", "pod", "etd", "shipper", "consignee")
_REQUESTS = (
    "Pls book", "Please book", "We need space", "Kindly arrange shipment", "Please arrange booking", "Can you book",
    "Need a booking", "We would like to book", "Kindly reserve space",
    "Request booking", "Please reserve", "Could you please arrange transport", "New booking", "Booking pls",
    "We have a shipment", "Please quote and book", "I need a slot", "shipment",
)  # fmt: skip
_CARRIED = (
    " with {carrier}",
    " on {carrier}",
    " by {carrier}",
    " w/ {carrier}",
    " ({carrier})",
    ", carrier {carrier}",
    " on the {carrier} vessel",
    " with {carrier} line",
    ", line: {carrier}",
    " via {carrier}",
    " on a {carrier} ship",
    " using {carrier}",
)
_ROUTED = (
    " from {pol} to {pod}", " from {pol} to {pod}", " ex {pol} to {pod}", " {pol} - {pod}", " {pol} / {pod}",
    " {pol}-{pod}", " {pol} -> {pod}", ", POL {pol}, POD {pod}", " to {pod} from {pol}",
    " for {pod} ex {pol}", ", loading {pol}, discharging {pod}", " ex {pol} for {pod}", " {pol} to {pod}",
    ", port of loading {pol} and port of discharge {pod}", " of goods from {pol} to {pod}",
    " out of {pol}, discharge {pod}", ", origin {pol}, destination {pod}", " which goes from {pol} to {pod}",
    " loading in {pol} for {pod}", ", {pol} is the load port and {pod} the discharge port", " shipped {pol} to {pod}",
    " departing {pol} and arriving in {pod}", " on the route {pol} - {pod}", " picked up at {pol}, delivered to {pod}",
    ", to be loaded at {pol} and unloaded at {pod}",
)  # fmt: skip
_SAILED = (
    ", ETD {etd}", ", sailing {etd}", ", departure {etd}", ", leaving {etd}", ", dep. {etd}", ", ETS {etd}",
    " on {etd}", " etd {etd}", " sailing on {etd}", ", departing {etd}", " with ETD {etd}",
    ", {etd}", " (ETD {etd})", " around {etd}", ", expected departure {etd}", ", vessel of {etd}", ", {etd} departure",
    " - etd abt {etd}",
)  # fmt: skip
_HEADLINES = (
    "Booking {pol} / {pod}", "{carrier} {pol} - {pod}", "{carrier} {pol}-{pod} {etd}", "Re: {pol} to {pod}",
    "Booking {carrier}, {pol} to {pod}", "{pol} -> {pod}, ETD {etd}", "Shipment to {pod}", "{carrier} booking",
    "{carrier} booking for {pod} from {pol}", "{etd}: {pol} / {pod}", "Subject: {carrier} {pol} {pod}",
    "RE: RE: booking {pol}/{pod} with {carrier}", "Export {pol}, {etd}", "{pol}/{pod} etd {etd}",
    "Order for {carrier}",
)  # fmt: skip
_PHRASES = {
    "carrier": (
        "with {carrier}", "pls use {carrier}", "{carrier} please", "by {carrier}", "it should be {carrier}.",
        "we take {carrier}", "on {carrier} as usual", "vessel of {carrier}",
    ),
    "pol": ("ex {pol}", "from {pol}", "loading at {pol}", "load in {pol}", "out of {pol}", "departing {pol}"),
    "pod": ("to {pod}", "for {pod}", "discharging at {pod}", "discharge {pod}", "destination is {pod}"),
    "etd": (
        "ETD {etd}", "sailing {etd}", "ETD is {etd}", "etd remains {etd}", "leaves {etd}", "dep {etd}", "new ETD {etd}",
        "we need the sailing of {etd}",
    ),
}  # fmt: skip
_STORIES = (
    "We are {shipper} and want to ship {cargo} from {pol} to {pod} for our customer {consignee}.",
    "Please book {cargo} from {pol} to {pod}, shipper {shipper}, consignee {consignee}.",
    "{shipper} has {cargo} ready in {pol} for {consignee}, port of discharge {pod}.",
    "Can we move {cargo} ex {pol} to {pod}? Shipper is {shipper}, consignee {consignee}.",
    "need space for {cargo}, {pol} to {pod}, shipper {shipper}, receiver {consignee}.",
    "We have {cargo} of {shipper} to go from {pol} to {pod}. The consignee is {consignee}.",
    "Our customer {consignee} buys {cargo} from {shipper}. It goes from {pol} to {pod}.",
    "Kindly arrange {cargo} for {pod}, loading {pol}. Exporter: {shipper}. Importer: {consignee}.",
    "{consignee} has ordered {cargo}, seller is {shipper}. Route {pol}-{pod}.",
)  # fmt: skip
_SHIPS = (
    "We would like the {carrier} ship of {etd}.", "Carrier {carrier}, ETD {etd}.",
    "Please use {carrier}, sailing {etd}.", "{carrier} leaving {etd}.", "Sailing {etd} with {carrier}.",
    "The {carrier} vessel departing {etd} is fine.", "ETD {etd} on {carrier}.",
    "Line: {carrier}, departure: {etd}.", "We booked {carrier} before, pls do so again, ETD {etd}.",
    "It must leave {etd} by {carrier}.", "The carrier is {carrier}, it sails on {etd}.",
    "Preferred line is {carrier}; it sails {etd}.", "On {etd} there is a vessel of {carrier}, please take that one.",
    "With {carrier}, who depart on {etd}.", "{etd} is the ETD, {carrier} the line.", "Routing by {carrier} ({etd}).",
)  # fmt: skip

# Of lines of a form: before them, around their labels, and behind their values.
_BULLETS = (
    "- ",
    "• ",
    "* ",
    "· ",
    "+ ",
    "o ",
    "{n}. ",
    "{n}) ",
    "({n}) ",
    "{letter}) ",
    "{n}/ ",
    "{n}: ",
    "§{n} ",
    "# ",
)
_MARKED_LABELS = (*("{}",) * 12, '"{}"', "({})", "'{}'", "«{}»", "_{}_", "`{}`", "/{}/", "* {} *")
# Any marks, but those of the layouts that are held out.
_MARKS = ".:;=/_^+%&'`\"!*?@$\\()·•…«»‹›„“”‘’–—―¬¦§¶†‡°¤±×÷¡¿→▪■□●○◆►✓"  # noqa: RUF001
_MIRRORED = dict(zip("(«‹„“‘", ")»›“”’", strict=True))  # noqa: RUF001
_ENDS = (*("{}",) * 12, "{};", "{}.", "{},", '"{}"', "'{}'", "{} ;")


class _LineStyle(NamedTuple):
    """How a form writes its labelled lines."""

    separator: str
    width: int
    fill: str
    bullet: str
    around: str
    ends: str
    is_reversed: bool

    def write(self, number: int, label: str, value: str) -> str:
        bullet = self.bullet.format(n=number, letter="abcdef"[number - 1])
        label = self.around.format(label)
        if self.is_reversed:
            return bullet + value + self.separator + label
        label += " " if self.fill == "." and self.width else ""
        return bullet + label.ljust(self.width, self.fill) + self.separator + self.ends.format(value)


def _line_style(draw: Draw) -> _LineStyle:
    separator = draw.pick((": ", ": ", ": ", " : ", " - ", ":", " ", "\t", "= ", ":\n", "\n", ":    ", " .: ", "..: "))
    separator = _any_marks(draw) if draw.chance(0.3) else separator
    width, fill = draw.pick((0, 0, 0, 16, 20)), draw.pick((" ", "."))
    bullet = draw.pick(_BULLETS) if draw.chance(0.25) else ""
    around, ends = draw.pick(_MARKED_LABELS), draw.pick(_ENDS)
    around = _any_pair(draw) if draw.chance(0.15) else around
    return _LineStyle(separator, width, fill, bullet, around, ends, is_reversed=draw.chance(0.05))


def form(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """A labelled line for each field, in any order, with any marks around labels and values."""
    header, draw = sender.header(manifest), sender.draw
    style = _line_style(draw)

    def labelled(number: int, field: str) -> str:
        value = header[field]
        if field in ("shipper", "consignee"):
            value = _wrapped(sender, value)
            value += "\n" + draw.pick(("", "  ")) + clutter.address() if draw.chance(0.12) else ""
        return style.write(number, sender.label(field), value)

    fields = draw.shuffled(_HEADER) if draw.chance(0.5) else _HEADER
    lines = [labelled(number, field) for number, field in enumerate(fields, start=1)]
    if draw.chance(0.15):
        between = draw.pick(("   ", "\t", "; ", ", ", " / ", "      ", _any_marks(draw)))
        lines = [between.join(lines[i : i + 2]) for i in range(0, len(lines), 2)]
    lines += item_lines(sender, clutter, manifest)
    for _ in range(draw.pick((0, 0, 1, 1, 2, 3))):
        lines.insert(draw.below(len(lines) + 1), clutter.line())
    return "\n".join(lines)


def _any_marks(draw: Draw) -> str:
    """Between a label and its value, such as `` ..``, ``=``, `` ·``."""
    marks = "".join(draw.pick(_MARKS) for _ in range(draw.pick((1, 1, 1, 2, 3))))
    return draw.pick(("", " ")) + marks + draw.pick(("", " ", " "))


def _any_pair(draw: Draw) -> str:
    """Around a label, such as ``={}=``, ``^/{}/``."""
    left = "".join(draw.pick(_MARKS) for _ in range(draw.pick((1, 1, 2))))
    right = "".join(_MIRRORED.get(mark, mark) for mark in reversed(left))
    return draw.pick((left + "{}" + right, left + " {} " + right, left + "{}"))


def prose(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Sentences."""
    header, draw = sender.header(manifest), sender.draw
    parts = draw.shuffled((draw.pick(_CARRIED), draw.pick(_ROUTED), draw.pick(_SAILED)))
    sentences = [
        sender.say(draw.pick(_REQUESTS) + "".join(parts) + draw.pick((".", ".", ".", ":", "?", " please.")), **header),
        parties(sender, header),
        cargo_sentence(sender, clutter, manifest),
    ]
    sentences = draw.shuffled(sentences) if draw.chance(0.4) else sentences
    for _ in range(draw.pick((0, 0, 1, 1, 2))):
        sentences.insert(draw.below(len(sentences) + 1), clutter.remark())
    return draw.pick((" ", "\n", "\n\n", " ")).join(sentences)


def mixed(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """A headline with some of the fields, the others as labelled lines or in a few words."""
    header, draw = sender.header(manifest), sender.draw
    headline = draw.pick(_HEADLINES)
    separator = draw.pick((": ", ": ", " ", " - "))
    rest = [field for field in ("carrier", "pol", "pod", "etd") if f"{{{field}}}" not in headline]
    phrases = {field: sender.say(draw.pick(_PHRASES[field]), **header) for field in rest}
    lines = [phrases[field] if draw.chance(0.6) else sender.label(field) + separator + header[field] for field in rest]
    if draw.chance(0.5):
        lines.append(parties(sender, header))
    else:
        lines += [
            sender.label(field) + separator + _wrapped(sender, header[field])
            for field in draw.shuffled(("shipper", "consignee"))
        ]
    lines = draw.shuffled(lines) if draw.chance(0.5) else lines
    lines.insert(draw.below(len(lines) + 1), "\n".join(item_lines(sender, clutter, manifest)))
    for _ in range(draw.pick((0, 0, 1, 2))):
        lines.insert(draw.below(len(lines) + 1), clutter.line() if draw.chance(0.5) else clutter.remark())
    return draw.pick(("\n", "\n", "\n", "\n\n", ". ", "; ")).join([sender.say(headline, **header), *lines])


def story(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Sentences in which the cargo, the parties and the route stand together."""
    header, draw = sender.header(manifest), sender.draw
    cargo = draw.pick((", ", " and ", "; ", " + ")).join(item_lines(sender, clutter, manifest, bullets=("",)))
    first = sender.say(draw.pick(_STORIES), cargo=cargo, **header)
    sentences = [first, sender.say(draw.pick(_SHIPS), **header)]
    if draw.chance(0.5):
        sentences.insert(draw.below(3), clutter.remark())
    return draw.pick((" ", "\n", " ")).join(sentences)


def joined(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Everything in a row, with slashes or semicolons between."""
    header, draw = sender.header(manifest), sender.draw
    route = draw.pick(
        (
            "{pol} TO {pod}",
            "EX {pol} TO {pod}",
            "POL {pol} POD {pod}",
            "{pol}-{pod}",
            "{pol}/{pod}",
            "{pol} - {pod}",
            "FROM {pol} TO {pod}",
        )
    )
    parts = [
        sender.say(
            draw.pick(("{carrier}", "BOOK {carrier}", "{carrier} BKG", "pls book {carrier}", "LINE {carrier}")),
            **header,
        ),
        route.format(**header),
        draw.pick(("ETD ", "ETS ", "SAILING ", "", "etd ", "DEP ")) + header["etd"],
        draw.pick(("SHPR ", "SHIPPER ", "SHPR: ", "Shipper: ", "S: ", "EXPORTER ")) + header["shipper"],
        draw.pick(("CNEE ", "CONSIGNEE ", "CNEE: ", "Consignee: ", "C: ", "RECEIVER ")) + header["consignee"],
    ]
    items = item_lines(sender, clutter, manifest, bullets=("",))
    parts = parts + items if draw.chance(0.7) else [*parts[:3], *items, *parts[3:]]
    for _ in range(draw.pick((0, 0, 1, 2))):
        parts.insert(draw.below(len(parts) + 1), clutter.line())
    return draw.pick((" // ", "\n", " / ", "; ", " - ", ", ", " | ")).join(parts)


def table(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Labelled lines or a row of them, then a row under titles for each item."""
    header, draw = sender.header(manifest), sender.draw
    bar = draw.pick((" | ", "\t", "; ", ";", "|", "\t", ", ", "   "))
    labelled = [f"{sender.label(field)}{draw.pick((' ', ': '))}{header[field]}" for field in _HEADER]
    cells = [sender.label(field) + bar + header[field] for field in _HEADER]
    top = draw.pick(("\n".join(labelled), bar.join(labelled[:4]) + "\n" + bar.join(labelled[4:]), "\n".join(cells)))
    if draw.chance(0.3):
        top += "\n" + clutter.line()
    return top + draw.pick(("\n", "\n\n")) + "\n".join(bar.join(row) for row in item_rows(sender, manifest))


def record(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """As a spreadsheet is exported: one row of titles for all fields, a row for each item."""
    header, draw = sender.header(manifest), sender.draw
    bar = draw.pick((";", ";", "\t", "|", ",", " ; "))
    titles, *rows = item_rows(sender, manifest)
    fields = draw.shuffled(_HEADER)
    lines = [[sender.label(field) for field in fields] + titles]
    repeats = draw.chance(0.5)
    for number, row in enumerate(rows):
        lines.append([header[field] if repeats or number == 0 else "" for field in fields] + row)
    return "\n".join(bar.join(line) for line in lines)


def voyage_table(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """A row of titles and one of values for the voyage and the parties, then the items."""
    header, draw = sender.header(manifest), sender.draw
    bar = draw.pick((" | ", "\t", "; ", " / "))
    split = draw.pick((3, 4, 6))
    parts = []
    for fields in (_HEADER[:split], _HEADER[split:]):
        if fields:
            parts += [bar.join(map(sender.label, fields)), bar.join(header[field] for field in fields)]
    return "\n".join(parts + item_lines(sender, clutter, manifest))


def edifact(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Segments of an electronic booking (UN/EDIFACT)."""
    header, draw = sender.header(manifest), sender.draw
    lines = [
        f"BGM+335+{draw.digits(6)}+9",
        f"TDT+20+{draw.digits(4)}+1++{manifest['carrier']}:172",
        f"LOC+9+{manifest['pol']}:139",
        f"LOC+11+{manifest['pod']}:139",
        f"DTM+133:{manifest['etd'].replace('-', '')}:102",
        f"NAD+CZ+++{header['shipper']}",
        f"NAD+CN+++{header['consignee']}",
    ]
    for number, item in enumerate(manifest["items"], start=1):
        lines += [f"GID+{number}+{item['packages']}:{item['kind']}", f"FTX+AAA+++{item['goods']}"]
        lines.append(f"MEA+AAE+G+{item['unit']}:{item['weight']}")
        if item["hazard"]:
            lines.append(f"DGS+IMD+{item['hazard']['imo']}+{item['hazard']['un']}")
        lines.append(f"SGP+{item['container']}")
    return draw.pick(("'\n", "'", "'\n")).join(lines) + "'"


def tagged(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Labels in brackets before their values, one a line."""
    header, draw = sender.header(manifest), sender.draw
    left, right = draw.pick((("[", "] "), ("<", "> "), ("{", "} "), ("**", ":** ")))
    lines = [left + sender.label(field) + right + header[field] for field in draw.shuffled(_HEADER)]
    return "\n".join(lines + item_lines(sender, clutter, manifest, bullets=("+ ", "o ")))


def grid(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Lines between bars, as pasted from a document: a label and its value in each, two of them in a line or one."""
    header, draw = sender.header(manifest), sender.draw
    cells = [f"| {sender.label(field)} | {header[field]} |" for field in draw.shuffled(_HEADER)]
    lines = cells if draw.chance(0.5) else [cells[i] + cells[i + 1][1:] for i in range(0, len(cells), 2)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in item_rows(sender, manifest)])


def letter(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Sentences that begin with the cargo and end with the ship."""
    header, draw = sender.header(manifest), sender.draw
    parties = (
        "The cargo belongs to {shipper} and is going to {consignee}.",
        "Our principal {shipper} has sold to {consignee}.",
        "Shipper on the bill will be {shipper}; consignee will be {consignee}.",
    )
    routes = (
        "It should load at {pol} and discharge at {pod}.",
        "We ship it ex {pol} and want it in {pod}.",
        "Load port is {pol}, the port of discharge {pod}.",
    )
    ships = (
        "Please use {carrier}, departure {etd}.",
        "The vessel of {carrier} that departs {etd} would suit.",
        "Carrier: {carrier}, with an ETD of {etd}.",
    )
    sentences = [
        cargo_sentence(sender, clutter, manifest),
        *(sender.say(draw.pick(templates), **header) for templates in (parties, routes, ships)),
    ]
    return draw.pick((" ", "\n")).join(sentences)


def arrows(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Numbered labels with arrows or tildes before the values."""
    header, draw = sender.header(manifest), sender.draw
    mark, number = draw.pick((" => ", " >> ", " ~ ", " -- ")), draw.pick(("{}. ", "({}) ", "#{} "))
    lines = [
        number.format(i + 1) + sender.label(field) + mark + header[field]
        for i, field in enumerate(draw.shuffled(_HEADER))
    ]
    return "\n".join(lines + item_lines(sender, clutter, manifest, bullets=("",)))


# The frequent ones several times.
SEEN_LAYOUTS: tuple[Layout, ...] = (
    *(form,) * 7, *(prose,) * 3, *(mixed,) * 4, *(joined,) * 3, story, story, table, table, record, voyage_table,
    edifact,
)  # fmt: skip
UNSEEN_LAYOUTS: tuple[Layout, ...] = (tagged, grid, letter, arrows)


def _wrapped(sender: Sender, text: str) -> str:
    """Seldom broken into two lines, the second one indented."""
    if " " in text and sender.draw.chance(0.03):
        before, after = text.rsplit(" ", 1)
        return f"{before}\n  {after}"
    return text
