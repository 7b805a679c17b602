"""How the line items of a manifest are written: parts in a row, labelled lines, rows of a table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from flax_transformer.data.manifests.clutter import Clutter
from flax_transformer.data.manifests.freight import Manifest
from flax_transformer.data.manifests.phrasing import Cells, Sender

BULLETS = ("", "", "", "- ", "{n}) ", "{n}. ", "* ", "{n}: ")
_BARS = (", ", ", ", ", ", " ", " ", " / ", " - ", "; ", " | ", "\t", ": ", " // ", "/", "  ")
_CARGO = (
    "{packages} {goods}", "{packages} {goods}", "{packages} of {goods}", "{packages}{bar}{goods}",
    "{goods}{bar}{packages}", "{goods}, {packages}", "{packages} with {goods}", "{packages} ({goods})",
    "{goods} in {packages}", "{packages} - {goods}", "{packages} containing {goods}",
)  # fmt: skip
_CONTAINERS = (
    "{}", "{}", "{}", "{}", "in {}", "cntr {}", "container {}", "CTR# {}", "in container {}", "cont. {}", "SIZE {}",
    "SIZE no. {}", "SIZE: {}", "container no. {}", "stuffed in {}",
)  # fmt: skip
_AFTER_CONTAINERS = ("", "", "", "", "", " SEAL", ":", " :")
_WEIGHTS = (
    "{}", "{}", "{}", "{}", "gross {}", "G.W. {}", "{} gross", "weight {}", "total {}", "GW: {}", "{} brutto", "({})",
    "w/{}",
)  # fmt: skip
_STARTS = ("Cargo: ", "Goods: ", "", "", "Commodity: ", "We have ", "The cargo is ", "Details: ", "Loaded: ")


class Column(NamedTuple):
    """One or more columns of a table: the fields that name them, and what a line item has there."""

    fields: tuple[str, ...]
    write: Callable[[Cells], list[str]]


def cargo_sentence(sender: Sender, clutter: Clutter, manifest: Manifest) -> str:
    """All items in one sentence."""
    between = sender.draw.pick(("; ", "; ", ", ", " and ", "\n", " + "))
    text = between.join(item_lines(sender, clutter, manifest, bullets=("",)))
    return sender.mistyped(sender.draw.pick(_STARTS)) + text + "."


def item_lines(sender: Sender, clutter: Clutter, manifest: Manifest, bullets: Sequence[str] = BULLETS) -> list[str]:
    """A text for each item, all written in the same way: parts in a row, or labelled lines, the latter in lists."""
    draw = sender.draw
    cells = [sender.cells(item) for item in manifest["items"]]
    write = _labelled if bullets is BULLETS and draw.chance(0.3) else _in_a_row
    bullet = draw.pick(bullets)
    return [bullet.format(n=n) + line for n, line in enumerate(write(sender, clutter, cells), start=1)]


def _in_a_row(sender: Sender, clutter: Clutter, items: Sequence[Cells]) -> list[str]:
    """The parts of an item in one order and with the same marks between for all of them."""
    draw = sender.draw
    bar, order = draw.pick(_BARS), draw.shuffled(("container", "cargo", "weight"))
    container, cargo, weight = (
        draw.pick(_CONTAINERS) + draw.pick(_AFTER_CONTAINERS),
        draw.pick(_CARGO),
        draw.pick(_WEIGHTS),
    )
    hazards_place, says_none = draw.pick((" {}", ", {}", "bar", " ({})")), draw.chance(0.2)
    lines = []
    for cells in items:
        hazard = cells.hazard or (sender.no_hazard() if says_none else "")
        goods = cells.goods + (hazards_place.format(hazard) if hazard and hazards_place != "bar" else "")
        parts = {
            "container": container.replace("SIZE", clutter.size())
            .replace("SEAL", clutter.seal())
            .format(cells.container),
            "cargo": cargo.format(packages=cells.packages, goods=goods, bar=bar),
            "weight": weight.format(sender.weight(cells)),
        }
        behind = [hazard] if hazard and hazards_place == "bar" else []
        lines.append(bar.join([*(parts[part] for part in order), *behind]))
    return lines


def _labelled(sender: Sender, clutter: Clutter, items: Sequence[Cells]) -> list[str]:
    """A label before each part of an item, or before the container and the rest."""
    draw = sender.draw
    separator, end = draw.pick((": ", ": ", " ", " : ", " - ", "=")), draw.pick(("\n", "\n", "\n", ", ", "; ", " / "))
    fields = ["container", "goods"] if draw.chance(0.3) else ["container", "packages", "goods", "weight"]
    fields = draw.shuffled(fields) if draw.chance(0.5) else fields
    says_none = draw.chance(0.3)
    texts = []
    for cells in items:
        weight, hazard = sender.weight(cells), cells.hazard or (sender.no_hazard() if says_none else "")
        goods = cells.goods if "weight" in fields else f"{cells.goods}, {cells.packages}, {weight}"
        values = {"container": cells.container, "packages": cells.packages, "goods": goods, "weight": weight}
        lines = [sender.label(field) + separator + values[field] for field in fields]
        lines += [sender.label("hazard") + separator + hazard] if hazard else []
        if draw.chance(0.1):
            lines.insert(draw.below(len(lines)), clutter.line())
        texts.append(end.join(lines))
    return texts


def item_rows(sender: Sender, manifest: Manifest) -> list[list[str]]:
    """Titles, and the cells of each item below them."""
    draw = sender.draw
    cells = [sender.cells(item) for item in manifest["items"]]
    columns = [
        Column(("container",), lambda one: [one.container]),
        draw.pick(
            (
                Column(("packages", "kind"), lambda one: [one.count, one.kind]),
                Column(("packages",), lambda one: [one.packages]),
            )
        ),
        draw.pick(
            (
                Column(("weight", "unit"), lambda one: [one.number, one.unit]),
                Column(("weight",), lambda one: [sender.weight(one)]),
            )
        ),
        *_goods_columns(sender, any(one.hazard for one in cells)),
    ]
    columns = draw.shuffled(columns) if draw.chance(0.5) else columns
    titles = [sender.label(field) for column in columns for field in column.fields]
    return [titles, *([value for column in columns for value in column.write(one)] for one in cells)]


def _goods_columns(sender: Sender, is_dangerous: bool) -> list[Column]:
    """The goods, with what is dangerous about them behind, or in columns of its own."""
    draw = sender.draw
    way = draw.pick(("together", "column", "columns")) if is_dangerous else draw.pick(("together",) * 3 + ("column",))
    if way == "together":
        return [Column(("goods",), lambda one: [f"{one.goods} {one.hazard}".strip()])]
    none = draw.pick(("", "-", "no", "n/a"))
    hazard = Column(("hazard",), lambda one: [one.hazard or none])
    numbers = Column(("un", "imo"), lambda one: [one.un or none, one.imo or none])
    return [Column(("goods",), lambda one: [one.goods]), hazard if way == "column" else numbers]
