"""The report for a terminal: the diagnosis first, a small picture of each influence matrix, then every probe."""

from io import StringIO

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flax_transformer.doctor.diagnosis import Diagnosis
from flax_transformer.doctor.report import HeatMap, Report
from flax_transformer.doctor.result import Result

COLORS = {"healthy": "green", "ill": "red", "warning": "yellow", "advice": "cyan", "not applicable": "bright_black"}


def print_report(report: Report, console: Console) -> None:
    verdict, color = _verdict(report)
    console.print(f"[bold]{escape(report.subject)}[/]: [bold {color}]{verdict}[/]", highlight=False)
    told = (
        f"{report.kind}, {report.framework}, {report.precision}, {report.seconds:.1f} s; called as {report.called_as}"
    )
    console.print(Text(told, style="bright_black"))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="bright_black"))
    for number, diagnosis in enumerate(report.diagnoses, start=1):
        _print_diagnosis(number, diagnosis, console)
    if report.heat_maps:
        console.print()
        console.print(_pictures(report.heat_maps))
    console.print()
    console.print(_probes(report.results))


def to_text(report: Report, width: int = 110) -> str:
    """Without colors."""
    console = Console(file=StringIO(), width=width, color_system=None)
    print_report(report, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def _verdict(report: Report) -> tuple[str, str]:
    if report.is_ill:
        return "ill", "red"
    return ("healthy, with warnings", "yellow") if report.has_warnings else ("healthy", "green")


def _print_diagnosis(number: int, diagnosis: Diagnosis, console: Console) -> None:
    result, cause = diagnosis.result, diagnosis.cause
    color = COLORS[result.verdict]
    place = f" ({escape(result.place)})" if result.place else ""
    console.print()
    console.print(f"{number}. [bold {color}]{result.verdict}[/]: [bold]{cause.title}[/]{place}", highlight=False)
    rows = [
        ("measured", " ".join(part for part in (_figure(result), result.detail) if part)),
        ("symptom", cause.symptom),
        ("cause", cause.reason),
        ("fix", cause.fix),
        ("explains", "; ".join(dict.fromkeys(_consequence(c) for c in diagnosis.consequences if c.cause != cause.key))),
    ]
    table = Table.grid(padding=(0, 1))
    for name, text in rows:
        if text:
            table.add_row(Text(name, style="bright_black"), Text(text))
    console.print(Padding(table, (0, 0, 0, 3)))


def _consequence(result: Result) -> str:
    from flax_transformer.doctor.causes import CAUSES

    return CAUSES[result.cause].title + (f" ({result.place})" if result.place else "")


def _figure(result: Result) -> str:
    if result.figure is None:
        return result.probe
    limit = "" if result.limit is None else f" (limit {result.limit:.2g})"
    return (
        f"{result.probe} {result.figure:.3g}{limit}:" if result.detail else f"{result.probe} {result.figure:.3g}{limit}"
    )


def _pictures(maps: tuple[HeatMap, ...]) -> Table:
    """Side by side: which input moves which output, row by row."""
    table = Table.grid(padding=(0, 4))
    table.add_row(*(Text(f"{m.title}", style="bold") for m in maps))
    table.add_row(*(_picture(m) for m in maps))
    legend = (
        "## effect, as it should be   !! effect that must not be   .. missing effect   blank: none, as it should be"
    )
    outer = Table.grid()
    outer.add_row(table)
    outer.add_row(Text(legend, style="bright_black"))
    return outer


def _picture(heat_map: HeatMap) -> Text:
    text = Text()
    for seen_row, expected_row in zip(heat_map.seen, heat_map.expected, strict=True):
        for seen, expected in zip(seen_row, expected_row, strict=True):
            if seen and expected:
                text.append("##", style="green")
            elif seen:
                text.append("!!", style="bold red")
            else:
                text.append("..", style="yellow") if expected else text.append("  ")
        text.append("\n")
    return text


def _probes(results: tuple[Result, ...]) -> Table:
    table = Table("probe", "verdict", "figure", "limit", "detail", box=None, header_style="bold", pad_edge=False)
    for result in results:
        table.add_row(
            result.probe,
            Text(result.verdict, style=COLORS[result.verdict]),
            "" if result.figure is None else f"{result.figure:.3g}",
            "" if result.limit is None else f"{result.limit:.2g}",
            Text(result.detail or result.place, style="bright_black"),
        )
    return table
