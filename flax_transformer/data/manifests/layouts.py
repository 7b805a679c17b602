"""How a manifest is laid out in a text: forms, tables, sentences, EDI. Each layout is a function of a sender."""

from collections.abc import Callable, Sequence

from flax_transformer.data.manifests.clutter import Clutter
from flax_transformer.data.manifests.freight import Manifest
from flax_transformer.data.manifests.phrasing import Cells, Sender

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
    " out of {pol}, discharge {pod}",
)  # fmt: skip
_SAILED = (
    ", ETD {etd}", ", sailing {etd}", ", departure {etd}", ", leaving {etd}", ", dep. {etd}", ", ETS {etd}",
    " on {etd}", " etd {etd}", " sailing on {etd}", ", departing {etd}", " with ETD {etd}",
    ", {etd}", " (ETD {etd})", " around {etd}", ", expected departure {etd}", ", vessel of {etd}", ", {etd} departure",
    " - etd abt {etd}",
)  # fmt: skip
_PARTIES = (
    "Shipper is {shipper}, cnee {consignee}.", "{shipper} ships to {consignee}.",
    "Consignee: {consignee}. Shipper: {shipper}.", "On behalf of {shipper} for {consignee}.",
    "Shipper: {shipper}\nConsignee: {consignee}",
    "shpr {shipper}, cnee {consignee}", "The shipper is {shipper} and the consignee {consignee}.",
    "We are {shipper}; our customer is {consignee}.", "Shipper {shipper} / Consignee {consignee}",
    "seller {shipper}, buyer {consignee}.",
    "Cargo of {shipper} goes to {consignee}.", "Sender is {shipper}, receiver {consignee}.",
    "consignee {consignee}, shipper {shipper}.", "Goods are sold by {shipper} to {consignee}.",
    "Exporter {shipper}, importer {consignee}.",
    "SHPR: {shipper}\nCNEE: {consignee}", "Deliver to {consignee}, shipped by {shipper}.",
    "{consignee} is the consignee, {shipper} the shipper.", "a/c {shipper}, notify and consignee {consignee}.",
    "supplier: {shipper}; receiver: {consignee}",
    "Our client {shipper} sends this to {consignee}.", "Buyer: {consignee}\nSeller: {shipper}",
    "{shipper} -> {consignee}", "This is for {consignee}, from {shipper}.",
    "B/L shipper {shipper}, B/L consignee {consignee}.",
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
    "It must leave {etd} by {carrier}.",
)  # fmt: skip


def form(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """A labelled line for each field, in any order."""
    header, draw = sender.header(manifest), sender.draw
    separator = draw.pick((": ", ": ", ": ", " : ", " - ", ":", " ", "\t", "= ", ":\n", "\n", ":    ", " .: ", "..: "))
    width = draw.pick((0, 0, 0, 16, 20))
    fill = draw.pick((" ", "."))

    def labelled(field: str) -> str:
        value = header[field]
        if field in ("shipper", "consignee"):
            value = _wrapped(sender, value)
            value += "\n" + draw.pick(("", "  ")) + clutter.address() if draw.chance(0.12) else ""
        label = sender.label(field)
        return (label + " " if fill == "." and width else label).ljust(width, fill) + separator + value

    lines = [labelled(field) for field in draw.shuffled(_HEADER)] if draw.chance(0.5) else list(map(labelled, _HEADER))
    lines += _items(sender, clutter, manifest)
    for _ in range(draw.pick((0, 0, 1, 1, 2, 3))):
        lines.insert(draw.below(len(lines) + 1), clutter.line())
    return "\n".join(lines)


def prose(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Sentences."""
    header, draw = sender.header(manifest), sender.draw
    parts = draw.shuffled((draw.pick(_CARRIED), draw.pick(_ROUTED), draw.pick(_SAILED)))
    sentences = [
        sender.say(draw.pick(_REQUESTS) + "".join(parts) + draw.pick((".", ".", ".", ":", "?", " please.")), **header),
        sender.say(draw.pick(_PARTIES), **header),
        _cargo(sender, clutter, manifest),
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
        lines.append(sender.say(draw.pick(_PARTIES), **header))
    else:
        lines += [
            sender.label(field) + separator + _wrapped(sender, header[field])
            for field in draw.shuffled(("shipper", "consignee"))
        ]
    lines = draw.shuffled(lines) if draw.chance(0.5) else lines
    lines.insert(draw.below(len(lines) + 1), "\n".join(_items(sender, clutter, manifest)))
    for _ in range(draw.pick((0, 0, 1, 2))):
        lines.insert(draw.below(len(lines) + 1), clutter.line() if draw.chance(0.5) else clutter.remark())
    return draw.pick(("\n", "\n", "\n", "\n\n", ". ", "; ")).join([sender.say(headline, **header), *lines])


def story(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Sentences in which the cargo, the parties and the route stand together."""
    header, draw = sender.header(manifest), sender.draw
    cargo = draw.pick((", ", " and ", "; ", " + ")).join(_items(sender, clutter, manifest, bullets=("",)))
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
    items = _items(sender, clutter, manifest, bullets=("",))
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
    return top + draw.pick(("\n", "\n\n")) + "\n".join(bar.join(row) for row in _rows(sender, manifest))


def record(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """As a spreadsheet is exported: one row of titles for all fields, a row for each item."""
    header, draw = sender.header(manifest), sender.draw
    bar = draw.pick((";", ";", "\t", "|", ",", " ; "))
    titles, *rows = _rows(sender, manifest)
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
    return "\n".join(parts + _items(sender, clutter, manifest))


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
    return "\n".join(lines + _items(sender, clutter, manifest, bullets=("+ ", "o ")))


def grid(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """Lines between bars, as pasted from a document: a label and its value in each, two of them in a line or one."""
    header, draw = sender.header(manifest), sender.draw
    cells = [f"| {sender.label(field)} | {header[field]} |" for field in draw.shuffled(_HEADER)]
    lines = cells if draw.chance(0.5) else [cells[i] + cells[i + 1][1:] for i in range(0, len(cells), 2)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in _rows(sender, manifest)])


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
        _cargo(sender, clutter, manifest),
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
    return "\n".join(lines + _items(sender, clutter, manifest, bullets=("",)))


# The frequent ones several times.
SEEN_LAYOUTS: tuple[Layout, ...] = (
    form, form, form, form, form, form, form, prose, prose, prose, mixed, mixed, mixed, mixed, story, story, joined, joined, joined,
    table, table, record, voyage_table, edifact,
)  # fmt: skip
UNSEEN_LAYOUTS: tuple[Layout, ...] = (tagged, grid, letter, arrows)


def _wrapped(sender: Sender, text: str) -> str:
    """Seldom broken into two lines, the second one indented."""
    if " " in text and sender.draw.chance(0.03):
        before, after = text.rsplit(" ", 1)
        return f"{before}\n  {after}"
    return text


def _cargo(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    start = sender.draw.pick(
        (
            "Cargo: ",
            "Goods: ",
            "",
            "",
            "Commodity: ",
            "We have ",
            "The cargo is ",
            "Details: ",
            "Loaded: ",
            "Container: ",
        )
    )
    return (
        sender.mistyped(start)
        + sender.draw.pick(("; ", "; ", ", ", " and ", "\n", " + ")).join(
            _items(sender, clutter, manifest, bullets=("",))
        )
        + "."
    )


def _items(
    sender: Sender,
    clutter: Clutter,
    manifest: Manifest,
    bullets: Sequence[str] = ("", "", "", "- ", "{n}) ", "{n}. ", "* ", "{n}: "),
) -> list[str]:
    """Lines for the items, all written in the same way: parts in a row, or labelled lines of their own."""
    draw = sender.draw
    cells = [sender.cells(item) for item in manifest["items"]]
    write = _labelled_item if bullets[0] == "" and len(bullets) > 1 and draw.chance(0.3) else _item_line
    bullet = draw.pick(bullets)
    return [bullet.format(n=n) + line for n, line in enumerate(write(sender, clutter, cells), start=1)]


def _item_line(sender: Sender, clutter: Clutter, items: Sequence[Cells]) -> list[str]:
    """The parts of an item in one order and with the same marks between for all of them."""
    draw = sender.draw
    bar = draw.pick((", ", ", ", ", ", " ", " ", " / ", " - ", "; ", " | ", "\t", ": ", " // ", "/", "  "))
    order = draw.shuffled(("container", "cargo", "weight"))
    cargo = draw.pick(
        (
            "{packages} {goods}",
            "{packages} {goods}",
            "{packages} of {goods}",
            "{packages}{bar}{goods}",
            "{goods}{bar}{packages}",
            "{goods}, {packages}",
            "{packages} with {goods}",
            "{packages} ({goods})",
            "{goods} in {packages}",
            "{packages} - {goods}",
            "{packages} containing {goods}",
        )
    )
    before = draw.pick(
        (
            "",
            "",
            "",
            "",
            "in ",
            "cntr ",
            "container ",
            "CTR# ",
            "in container ",
            "cont. ",
            "{size} ",
            "{size} no. ",
            "{size}: ",
            "container no. ",
            "stuffed in ",
        )
    )
    after = draw.pick(("", "", "", "", "", " {seal}", ":", " :"))
    gross = draw.pick(
        (
            "{}",
            "{}",
            "{}",
            "{}",
            "gross {}",
            "G.W. {}",
            "{} gross",
            "weight {}",
            "total {}",
            "GW: {}",
            "{} brutto",
            "({})",
            "w/{}",
        )
    )
    place = draw.pick(("goods", "goods", "end", "brackets"))
    says_none = draw.chance(0.2)
    lines = []
    for cells in items:
        goods, hazard = cells.goods, cells.hazard or (sender.no_hazard() if says_none else "")
        if hazard and place != "end":
            goods += f" ({hazard})" if place == "brackets" else draw.pick((" ", ", ")) + hazard
        parts = {
            "container": before.replace("{size}", clutter.size())
            + cells.container
            + (after.replace("{seal}", clutter.seal()) if after else ""),
            "cargo": cargo.replace("{bar}", bar).format(packages=cells.packages, goods=goods),
            "weight": gross.format(sender.weight(cells)),
        }
        row = [parts[part] for part in order] + ([hazard] if hazard and place == "end" else [])
        lines.append(bar.join(row))
    return lines


def _labelled_item(sender: Sender, clutter: Clutter, items: Sequence[Cells]) -> list[str]:
    """A labelled line for each part of an item."""
    draw = sender.draw
    separator, end = draw.pick((": ", ": ", " ", " : ", " - ", "=")), draw.pick(("\n", "\n", "\n", ", ", "; ", " / "))
    order = (
        draw.shuffled(("container", "packages", "goods", "weight"))
        if draw.chance(0.5)
        else ["container", "packages", "goods", "weight"]
    )
    is_together = draw.chance(0.3)
    says_none = draw.chance(0.3)
    texts = []
    for cells in items:
        values = {
            "container": cells.container,
            "packages": cells.packages,
            "goods": cells.goods,
            "weight": sender.weight(cells),
        }
        if is_together:
            values["goods"] = f"{cells.goods}, {cells.packages}, {sender.weight(cells)}"
        shown = [field for field in order if not is_together or field in ("container", "goods")]
        lines = [sender.label(field) + separator + values[field] for field in shown]
        if cells.hazard or says_none:
            lines.append(sender.label("hazard") + separator + (cells.hazard or sender.no_hazard()))
        if draw.chance(0.1):
            lines.insert(draw.below(len(lines)), clutter.line())
        texts.append(end.join(lines))
    return texts


def _rows(sender: Sender, manifest: Manifest) -> list[list[str]]:
    """Titles, and the cells of each item below them."""
    draw = sender.draw
    cells = [sender.cells(item) for item in manifest["items"]]
    is_split, weighs_apart = draw.chance(0.5), draw.chance(0.4)
    columns: list[tuple[list[str], Callable[[Cells], list[str]]]] = [
        (["container"], lambda one: [one.container]),
        (["packages", "kind"], lambda one: [one.count, one.kind])
        if is_split
        else (["packages"], lambda one: [one.packages]),
        (["weight", "unit"], lambda one: [one.number, one.unit])
        if weighs_apart
        else (["weight"], lambda one: [sender.weight(one)]),
    ]
    is_dangerous = any(one.hazard for one in cells)
    hazard = (
        draw.pick(("goods", "column", "columns")) if is_dangerous else draw.pick(("goods", "goods", "goods", "column"))
    )
    if hazard == "goods":
        columns.append((["goods"], lambda one: [f"{one.goods} {one.hazard}".strip()]))
    else:
        columns.append((["goods"], lambda one: [one.goods]))
        none = draw.pick(("", "-", "no", "n/a"))
        if hazard == "column":
            columns.append((["hazard"], lambda one: [one.hazard or none]))
        else:
            columns.append((["un", "imo"], lambda one: [one.un or none, one.imo or none]))
    columns = draw.shuffled(columns) if draw.chance(0.5) else columns
    titles = [sender.label(field) for fields, _ in columns for field in fields]
    return [titles, *([value for _, write in columns for value in write(one)] for one in cells)]
