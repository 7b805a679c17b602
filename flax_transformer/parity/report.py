"""What ``verify`` found: a table in the terminal, and one self-contained HTML page."""

import html
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2530; background: #fff; max-width: 68rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { margin-top: 2.4rem; border-bottom: 1px solid #d8dee6; }
table { border-collapse: collapse; width: 100%; font-size: 13px; } th { text-align: left; font-weight: 600; }
td, th { padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #edf0f4; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pass { color: #18794e; } .fail { color: #c62a2f; font-weight: 600; } .muted { color: #66717f; }
.scroll { overflow-x: auto; } svg text { font: 11px system-ui, sans-serif; fill: #45505e; }
.verdict { font-size: 1.1rem; }
"""
FLAX_COLOUR, TORCH_COLOUR, _FLOOR = "#2563c9", "#d9622b", "#b8c1cc"


def number(value: float) -> str:
    if value == 0 or (abs(value) >= 0.01 and abs(value) < 10_000):
        return f"{value:.3g}"
    return "∞" if math.isinf(value) else f"{value:.1e}"


def print_report(report: dict[str, Any], console: Console) -> None:
    """One table for each precision, and what failed in words."""
    console.print(f"[bold]{_title(report)}[/bold], {report['parameters']:,} parameters; {_versions(report)}")
    for precision in report["precisions"]:
        table = Table(title=f"{precision['dtype']} on {precision['platform']}", title_justify="left", pad_edge=False)
        for column in ("check", "view"):
            table.add_column(column, no_wrap=True)
        for column in ("figure", "floor", "tolerance"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("unit", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("where, and notes", overflow="fold", min_width=30)
        for row in [report["weights"], *precision["results"]]:
            verdict = "[green]pass[/green]" if row["passed"] else "[bold red]FAIL[/bold red]"
            table.add_row(*_cells(row), verdict, _where(row))
        console.print(table)
        if precision["divergence"]:
            console.print(f"[bold red]{precision['divergence']}[/bold red]")
    console.print("[bold green]equal[/bold green]" if report["passed"] else "[bold red]not equal[/bold red]")


def _title(report: dict[str, Any]) -> str:
    return report["target"] + (f" against {report['against']}" if report["against"] else "")


def _compared(report: dict[str, Any]) -> str:
    return f"JAX, PyTorch and {report['against']}" if report["against"] else "JAX and PyTorch"


def _cells(row: dict[str, Any]) -> list[str]:
    floor = "" if row["floor"] is None else number(row["floor"])
    return [row["check"], row["view"], number(row["figure"]), floor, number(row["tolerance"]), row["unit"]]


def _where(row: dict[str, Any]) -> str:
    return "; ".join(part for part in (row["worst"] if row["figure"] else "", row["note"]) if part)


def _versions(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + f"; {report['machine']}"


def write_html(report: dict[str, Any], file: Path) -> None:
    """The page; nothing in it is loaded from elsewhere."""
    verdict = '<span class="pass">equal</span>' if report["passed"] else '<span class="fail">not equal</span>'
    title = html.escape(f"Parity of {_title(report)}")
    body = [
        f"<h1>{title}</h1>",
        f'<p class="muted">{report["parameters"]:,} parameters. {html.escape(_versions(report))}</p>',
        f'<p class="verdict">{_compared(report)} are {verdict}.</p>',
        *(_precision_section(report, precision) for precision in report["precisions"]),
        "<h2>Config</h2>",
        f"<p>{html.escape(', '.join(f'{name} = {value}' for name, value in report['config'].items()))}</p>",
        f'<p class="muted">sha256 {report["config_sha256"]}</p>',
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page, encoding="utf-8")


def _precision_section(report: dict[str, Any], precision: dict[str, Any]) -> str:
    parts = [f"<h2>{precision['dtype']} on {precision['platform']}</h2>"]
    if precision["divergence"]:
        parts.append(f'<p class="fail">{html.escape(precision["divergence"])}</p>')
    parts.append(_html_table([report["weights"], *precision["results"]]))
    if report["against"]:
        return "".join(parts)
    parts.append("<h3>Each operation, in order of execution</h3>")
    parts.append(
        f"<p>Scaled ULP, with all errors before it ({_key(FLAX_COLOUR)} cumulative), fed with the other side's inputs "
        f"({_key(TORCH_COLOUR)} local), and what one side differs by from itself ({_key(_FLOOR)} floor).</p>"
    )
    intermediates = precision["intermediates"]
    series = [(_FLOOR, [t["floor"] for t in intermediates]), (FLAX_COLOUR, [t["cumulative"] for t in intermediates])]
    parts.append(
        line_chart(
            [*series, (TORCH_COLOUR, [t["local"] for t in intermediates])],
            "scaled ULP",
            [t["name"] for t in intermediates],
        )
    )
    if precision["gradients"]:
        parts.append("<h3>Each parameter's gradient</h3>")
        parts.append(_bars(list(precision["gradients"].values()), list(precision["gradients"]), "scaled ULP"))
        if precision["null_tensors"]:
            names = html.escape(", ".join(precision["null_tensors"]))
            parts.append(f'<p class="muted">The loss does not depend on these, so they are left out: {names}</p>')
    parts.append("<h3>Logits, by how many of their own ULP they differ</h3>")
    labels = ["0", *(f"≤ {2**i}" if i < 10 else f"≤ 2^{i}" for i in range(len(precision["histogram"]) - 1))]
    parts.append(_bars(precision["histogram"], labels, "elements"))
    if precision["losses"]:
        flax, torch = precision["losses"]["flax"], precision["losses"]["torch"]
        apart = max((abs(a - b) for a, b in zip(flax, torch, strict=True)), default=0.0)
        parts.append("<h3>Loss of both sides, each training on its own</h3>")
        parts.append(f"<p>{_key(FLAX_COLOUR)} JAX, {_key(TORCH_COLOUR)} PyTorch; at most {number(apart)} apart.</p>")
        steps = [f"step {i + 1}" for i in range(len(flax))]
        parts.append(line_chart([(FLAX_COLOUR, flax), (TORCH_COLOUR, torch)], "loss", steps, from_zero=False))
    return "".join(parts)


def _key(colour: str) -> str:
    return f'<svg width="12" height="12"><rect width="12" height="12" rx="2" fill="{colour}"/></svg>'


def _html_table(rows: list[dict[str, Any]]) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("check", "view", "figure", "floor", "tolerance", "unit", "", "where")
    )
    lines = []
    for row in rows:
        cells = [html.escape(cell) for cell in _cells(row)]
        columns = [f'<td class="number">{c}</td>' if 2 <= i <= 4 else f"<td>{c}</td>" for i, c in enumerate(cells)]
        verdict = '<td class="pass">pass</td>' if row["passed"] else '<td class="fail">FAIL</td>'
        lines.append(f'<tr>{"".join(columns)}{verdict}<td class="muted">{html.escape(_where(row))}</td></tr>')
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000, 240, 60, 20


def _axis(low: float, high: float, label: str) -> str:
    lines = []
    for i in range(5):
        y = (_HEIGHT - _BOTTOM) * (1 - i / 4) + 5
        value = low + (high - low) * i / 4
        lines.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e6eaef"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    return "".join(lines) + f'<text x="{_LEFT + 4}" y="1">{label}</text>'


def _svg(content: str, label: str) -> str:
    return f'<svg viewBox="0 -12 {_WIDTH} {_HEIGHT + 22}" width="100%" role="img" aria-label="{label}">{content}</svg>'


def _scale(values: list[float], low: float, high: float) -> list[float]:
    return [5 + (_HEIGHT - _BOTTOM) * (1 - (min(value, high) - low) / (high - low)) for value in values]


def line_chart(series: list[tuple[str, list[float]]], label: str, names: list[str], *, from_zero: bool = True) -> str:
    """Lines over the same steps; whatever is not finite stands at the top."""
    finite = [value for _, values in series for value in values if math.isfinite(value)] or [0.0]
    low, high = (0.0 if from_zero else min(finite)), max(finite)
    high = high if high > low else low + 1
    count = len(names)
    xs = [_LEFT + (_WIDTH - _LEFT) * (i + 0.5) / count for i in range(count)]
    drawn = [_axis(low, high, label)]
    for index, (colour, values) in enumerate(series):
        ys = _scale([value if math.isfinite(value) else high for value in values], low, high)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        dashes = ' stroke-dasharray="5 4"' if index == len(series) - 1 else ""
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        if count > 100:  # dots would hide the lines
            continue
        for x, y, name, value in zip(xs, ys, names, values, strict=True):
            tip = html.escape(f"{name}: {number(value)}")
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"><title>{tip}</title></circle>')
    return _svg("".join(drawn), label)


def _bars(values: list[float], names: list[str], label: str) -> str:
    high = max((value for value in values if math.isfinite(value)), default=1.0) or 1.0
    width = (_WIDTH - _LEFT) / max(len(values), 1)
    ys = _scale([value if math.isfinite(value) else high for value in values], 0.0, high)
    drawn = [_axis(0.0, high, label)]
    for i, (y, name, value) in enumerate(zip(ys, names, values, strict=True)):
        tip = html.escape(f"{name}: {number(value)}")
        height = _HEIGHT - _BOTTOM + 5 - y
        drawn.append(
            f'<rect x="{_LEFT + i * width + 1:.1f}" y="{y:.1f}" width="{max(width - 2, 1):.1f}" height="{height:.1f}" '
            f'fill="{FLAX_COLOUR}"><title>{tip}</title></rect>'
        )
        if len(values) <= 24 and i % (1 + len(values) // 16) == 0:  # more would overlap
            drawn.append(
                f'<text x="{_LEFT + (i + 0.5) * width:.1f}" y="{_HEIGHT + 2}" text-anchor="middle">{name}</text>'
            )
    return _svg("".join(drawn), label)
