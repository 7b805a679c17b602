"""The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from html import escape
from pathlib import Path

import numpy as np

from flax_transformer.doctor.causes import CAUSES
from flax_transformer.doctor.diagnosis import Diagnosis
from flax_transformer.doctor.report import HeatMap, Report
from flax_transformer.doctor.result import Result

_CELL = 18  # pixels

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #6b7280; --ill: #c62828; --warning: #b26a00;
        --advice: #1565c0; --healthy: #2e7d32; --seen: #1f6feb; --wrong: #d62728; --card: #8881; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #9ca3af; --ill: #ff6b6b; --warning: #ffb74d; --advice: #64b5f6; --healthy: #81c784; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1.05rem; margin: 0; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .ill { color: var(--ill); } .warning { color: var(--warning); }
.advice { color: var(--advice); } .healthy { color: var(--healthy); }
.card { border: 1px solid var(--line); border-left: 4px solid currentColor; border-radius: 6px; margin: .75rem 0;
        padding: .75rem 1rem; background: var(--card); }
.card > * { color: CanvasText; } .card .tag { font-weight: 600; }
dl { display: grid; grid-template-columns: 6.5rem 1fr; gap: .15rem .75rem; margin: .5rem 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1.5rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; } figcaption { font-size: .85rem; }
svg { max-width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (max-width: 34rem) { dl { grid-template-columns: 1fr; } dt { margin-top: .35rem; } }
"""


def save_page(report: Report, path: Path) -> None:
    path.write_text(to_html(report), encoding="utf-8")


def to_html(report: Report) -> str:
    """The whole page."""
    verdict, color = ("ill", "ill") if report.is_ill else ("healthy", "healthy")
    if report.has_warnings and not report.is_ill:
        verdict, color = "healthy, with warnings", "warning"
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in report.notes)
    findings = "".join(_diagnosis(n, d) for n, d in enumerate(report.diagnoses, 1)) or "<p>Nothing was found.</p>"
    maps = "".join(map(_figure, report.heat_maps))
    pictures = f"<h2>Who hears whom</h2><p class='soft'>{_LEGEND}</p><div class='maps'>{maps}</div>" if maps else ""
    rows = "".join(map(_row, report.results))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.subject)}: {verdict}</title><style>{_STYLE}</style></head><body>
<h1>{escape(report.subject)}: <span class="{color}">{verdict}</span></h1>
<p class="soft">{escape(report.kind)}, {escape(report.framework)}, {escape(report.precision)},
{report.seconds:.1f} s; called as <code>{escape(report.called_as)}</code></p>{notes}
<h2>Diagnosis</h2>{findings}
{pictures}
<h2>Every probe</h2><div class="scroll"><table><thead><tr><th>probe<th>verdict<th>figure<th>limit<th>detail</tr></thead>
<tbody>{rows}</tbody></table></div>
</body></html>
"""


_LEGEND = (
    "Row i, column j: does exchanging input j move output i? Blue: it does, the more the darker. Framed in red: it "
    "does and must not, or must and does not. Beside it, what should be."
)


def _diagnosis(number: int, diagnosis: Diagnosis) -> str:
    result, cause = diagnosis.result, diagnosis.cause
    measured = result.probe if result.figure is None else f"{result.probe} {result.figure:.3g}"
    if result.limit is not None:
        measured += f" (limit {result.limit:.2g})"
    folded = "; ".join(dict.fromkeys(CAUSES[c.cause].title for c in diagnosis.consequences if c.cause != cause.key))
    entries = [
        ("measured", f"{measured}: {result.detail}" if result.detail else measured),
        ("where", result.place),
        ("symptom", cause.symptom),
        ("cause", cause.reason),
        ("fix", cause.fix),
        ("explains", folded),
    ]
    described = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in entries if text)
    return (
        f'<div class="card {result.verdict}"><h3>{number}. <span class="{result.verdict}">{result.verdict}</span>: '
        f"{escape(cause.title)}</h3><dl>{described}</dl></div>"
    )


def _figure(heat_map: HeatMap) -> str:
    state = "as it should be" if heat_map.is_as_expected else "not as it should be"
    color = "healthy" if heat_map.is_as_expected else "ill"
    return (
        f'<div><h3>{escape(heat_map.title)}: <span class="{color}">{state}</span></h3>'
        f'<p class="soft">{escape(heat_map.what)}, up to {np.max(heat_map.measured):.2g}</p><div class="pair">'
        f"<figure>{_svg(heat_map, measured=True)}<figcaption>measured</figcaption></figure>"
        f"<figure>{_svg(heat_map, measured=False)}<figcaption>expected</figcaption></figure></div></div>"
    )


def _svg(heat_map: HeatMap, measured: bool) -> str:
    outputs, inputs = heat_map.measured.shape
    top = max(float(np.max(heat_map.measured)), 1e-300)
    cells = []
    for i in range(outputs):
        for j in range(inputs):
            seen, wanted = bool(heat_map.seen[i, j]), bool(heat_map.expected[i, j])
            value = float(heat_map.measured[i, j])
            strength = (0.2 + 0.8 * (value / top) ** 0.5) if seen else 0.0
            opacity = strength if measured else 0.45 * wanted
            fill = "var(--seen)" if measured else "var(--soft)"
            wrong = measured and seen != wanted
            frame = 'stroke="var(--wrong)" stroke-width="2"' if wrong else 'stroke="var(--line)" stroke-width=".5"'
            label = f"output {i}, input {j}: {value:.2g}" if measured else f"output {i}, input {j}"
            cells.append(
                f'<rect x="{j * _CELL + 1}" y="{i * _CELL + 1}" width="{_CELL - 2}" height="{_CELL - 2}" fill="{fill}" '
                f'fill-opacity="{opacity:.2f}" {frame}><title>{label}</title></rect>'
            )
    width, height = inputs * _CELL, outputs * _CELL
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(heat_map.title)}, {"measured" if measured else "expected"}">{"".join(cells)}</svg>'
    )


def _row(result: Result) -> str:
    color = result.verdict if result.verdict != "not applicable" else "soft"
    figure = "" if result.figure is None else f"{result.figure:.3g}"
    limit = "" if result.limit is None else f"{result.limit:.2g}"
    detail = "; ".join(part for part in (result.place, result.detail) if part)
    return (
        f'<tr><td>{escape(result.probe)}<td class="{color}">{result.verdict}<td class="number">{figure}'
        f'<td class="number">{limit}<td class="soft">{escape(detail)}</tr>'
    )
