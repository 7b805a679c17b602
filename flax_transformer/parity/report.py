"""What ``verify`` found, as tables in the terminal."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table


def number(value: float) -> str:
    if value == 0 or (abs(value) >= 0.01 and abs(value) < 10_000):
        return f"{value:.3g}"
    return "∞" if math.isinf(value) else f"{value:.1e}"


def print_report(report: dict[str, Any], console: Console) -> None:
    """One table for each precision, and what failed in words."""
    console.print(f"[bold]{title(report)}[/bold], {report['parameters']:,} parameters; {versions(report)}")
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
            table.add_row(*cells(row), verdict, where(row))
        console.print(table)
        if precision["divergence"]:
            console.print(f"[bold red]{precision['divergence']}[/bold red]")
    console.print("[bold green]equal[/bold green]" if report["passed"] else "[bold red]not equal[/bold red]")


def title(report: dict[str, Any]) -> str:
    return report["target"] + (f" against {report['against']}" if report["against"] else "")


def compared(report: dict[str, Any]) -> str:
    return f"JAX, PyTorch and {report['against']}" if report["against"] else "JAX and PyTorch"


def cells(row: dict[str, Any]) -> list[str]:
    floor = "" if row["floor"] is None else number(row["floor"])
    return [row["check"], row["view"], number(row["figure"]), floor, number(row["tolerance"]), row["unit"]]


def where(row: dict[str, Any]) -> str:
    return "; ".join(part for part in (row["worst"] if row["figure"] else "", row["note"]) if part)


def versions(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + f"; {report['machine']}"
