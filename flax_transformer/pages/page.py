"""The skeleton and the style that all pages share: no script, no font and no picture from elsewhere."""

from flax_transformer.pages.html import Html, element, to_html

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #6b7280; --card: #8881; --grid: #8883;
        --ill: #c62828; --warning: #b26a00; --advice: #1565c0; --healthy: #2e7d32;
        --seen: #1f6feb; --wrong: #d62728; --c1: #1f6feb; --c2: #d9730d; --c3: #2e7d32; --c4: #8250df;
        --removed: #ffd7d5; --added: #ccf0d4; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #9ca3af; --ill: #ff6b6b; --warning: #ffb74d; --advice: #64b5f6; --healthy: #81c784;
          --seen: #4c8dff; --c1: #58a6ff; --c2: #ffa657; --c3: #7ee787; --c4: #d2a8ff;
          --removed: #7a2327; --added: #1d5a2d; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 0; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
dl { display: grid; grid-template-columns: 6.5rem 1fr; gap: .15rem .75rem; margin: .5rem 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; min-width: 0; } figcaption { font-size: .85rem; }
svg { max-width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; margin: .75rem 0; } .scroll svg { max-width: none; }
.tall { max-height: 34rem; overflow-y: auto; } .tall th { position: sticky; top: 0; background: Canvas; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dt { margin-top: .35rem; } }
"""


def to_page(title: str, body: Html, style: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        style: CSS of this kind of page alone.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
{element("title", title)}<style>{_STYLE}{style}</style></head><body>
{to_html(body)}
</body></html>
"""
