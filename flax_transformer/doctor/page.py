"""The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from html import escape
from pathlib import Path

import numpy as np

from flax_transformer.doctor.causes import CAUSES
from flax_transformer.doctor.diagnosis import Diagnosis
from flax_transformer.doctor.report import HeatMap, Report
from flax_transformer.doctor.result import Result
from flax_transformer.outputs import write_whole
from flax_transformer.pages.heat_map import Cell, heat_map
from flax_transformer.pages.html import Html
from flax_transformer.pages.page import to_page

_STYLE = """
.ill { color: var(--ill); } .warning { color: var(--warning); }
.advice { color: var(--advice); } .healthy { color: var(--healthy); }
.card { border: 1px solid var(--line); border-left: 4px solid currentColor; border-radius: 6px; margin: .75rem 0;
        padding: .75rem 1rem; background: var(--card); }
.card > * { color: CanvasText; } .card .tag { font-weight: 600; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1.5rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; }
"""


def save_page(report: Report, path: Path) -> None:
    write_whole(path, to_html(report))


def to_html(report: Report) -> str:
    """The whole page."""
    verdict, color = ("ill", "ill") if report.is_ill else ("healthy", "healthy")
    if report.has_warnings and not report.is_ill:
        verdict, color = "healthy, with warnings", "warning"
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in report.notes)
    findings = "".join(_diagnosis(n, d) for n, d in enumerate(report.diagnoses, 1)) or "<p>Nothing was found.</p>"
    maps = "".join(map(_figure, report.heat_maps))
    heading = f"<h2>Which input moves which output</h2><p class='soft'>{_LEGEND}</p>"
    pictures = f"{heading}<div class='maps'>{maps}</div>" if maps else ""
    rows = "".join(map(_row, report.results))
    body = f"""<h1>{escape(report.subject)}: <span class="{color}">{verdict}</span></h1>
<p class="soft">{escape(report.kind)}, {escape(report.framework)}, {escape(report.precision)},
{report.seconds:.1f} s; called as <code>{escape(report.called_as)}</code></p>{notes}
<h2>Diagnosis</h2>{findings}
{pictures}
<h2>Every probe</h2><div class="scroll"><table><thead><tr><th>probe<th>verdict<th>figure<th>limit<th>detail</tr></thead>
<tbody>{rows}</tbody></table></div>"""
    return to_page(f"{report.subject}: {verdict}", Html(body), _STYLE)


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


def _svg(drawn: HeatMap, measured: bool) -> str:
    outputs, inputs = drawn.measured.shape
    cells = [[(_measured if measured else _expected)(drawn, i, j) for j in range(inputs)] for i in range(outputs)]
    return heat_map(cells, f"{drawn.title}, {'measured' if measured else 'expected'}")


def _measured(drawn: HeatMap, i: int, j: int) -> Cell:
    seen, value = bool(drawn.seen[i, j]), float(drawn.measured[i, j])
    top = max(float(np.max(drawn.measured)), 1e-300)
    strength = (0.2 + 0.8 * (value / top) ** 0.5) if seen else 0.0
    return Cell(strength, f"output {i}, input {j}: {value:.2g}", is_framed=seen != bool(drawn.expected[i, j]))


def _expected(drawn: HeatMap, i: int, j: int) -> Cell:
    return Cell(0.45 * bool(drawn.expected[i, j]), f"output {i}, input {j}", fill="var(--soft)")


def _row(result: Result) -> str:
    color = result.verdict if result.verdict != "not applicable" else "soft"
    figure = "" if result.figure is None else f"{result.figure:.3g}"
    limit = "" if result.limit is None else f"{result.limit:.2g}"
    detail = "; ".join(part for part in (result.place, result.detail) if part)
    return (
        f'<tr><td>{escape(result.probe)}<td class="{color}">{result.verdict}<td class="number">{figure}'
        f'<td class="number">{limit}<td class="soft">{escape(detail)}</tr>'
    )
