"""How freight clerks write a manifest into an e-mail: a layout, and around it what mails hold besides."""

from dataclasses import dataclass

import numpy as np

from flax_transformer.data.manifests import labels, layouts, stock
from flax_transformer.data.manifests.clutter import Clutter
from flax_transformer.data.manifests.draw import Draw
from flax_transformer.data.manifests.freight import Manifest
from flax_transformer.data.manifests.labels import Labels
from flax_transformer.data.manifests.layouts import Layout
from flax_transformer.data.manifests.names import Stock
from flax_transformer.data.manifests.phrasing import Sender


@dataclass(frozen=True)
class Kinds:
    """What texts are made of.

    Args:
        languages: labels in other languages than English, with ``is_monolingual`` also without the English ones.
    """

    stock: Stock
    layouts: tuple[Layout, ...]
    english: Labels
    languages: tuple[Labels, ...]
    is_monolingual: bool


SEEN = Kinds(stock.SEEN, layouts.SEEN_LAYOUTS, labels.SEEN_ENGLISH, labels.SEEN_LANGUAGES, is_monolingual=True)
# Held out: nothing of it occurs in training.
UNSEEN = Kinds(
    stock.UNSEEN, layouts.UNSEEN_LAYOUTS, labels.UNSEEN_ENGLISH, labels.UNSEEN_LANGUAGES, is_monolingual=False
)


class EmailTemplates:
    """One sender's habits, with which any manifest is written.

    Args:
        kinds: of names, goods, labels and layouts.
        noise: chance that a word is mistyped.
        short: chance that a mail holds one line item and nothing around the booking.
    """

    def __init__(self, rng: np.random.Generator, noise: float, kinds: Kinds = SEEN, short: float = 0.0) -> None:
        self._draw = Draw(rng)
        self._sender = Sender(self._draw, noise, kinds.stock, kinds.english, kinds.languages, kinds.is_monolingual)
        self._clutter = Clutter(self._sender)
        self._layout = self._draw.pick(kinds.layouts)
        self.shouts = self._draw.chance(0.15)
        self.is_short = short > 0 and self._draw.chance(short)

    def write(self, manifest: Manifest) -> str:
        """The free text from which ``manifest`` is to be read."""
        text = self._layout(self._sender, self._clutter, manifest)
        text = text if self.is_short or self._layout is layouts.edifact else self._framed(text)
        return text.upper() if self.shouts else text

    def _framed(self, text: str) -> str:
        """In a mail: with greetings, forwarded, or quoted by the one who answers."""
        draw, gap = self._draw, self._draw.pick(("\n", "\n\n"))
        if draw.chance(0.55):
            text = self._clutter.opener() + gap + text
        if draw.chance(0.5):
            text += gap + self._clutter.closer()
        if draw.chance(0.12):
            quote = draw.pick(("", "", "> "))
            text = "\n".join(quote + line for line in text.split("\n"))
            text = self._clutter.headers() + gap + text
            text = self._clutter.introduction() + "\n\n" + text if draw.chance(0.6) else text
        elif draw.chance(0.05):
            text += "\n\n" + self._clutter.headers() + "\n" + self._clutter.introduction()
        return text
