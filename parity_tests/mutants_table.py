"""``python -m mutants_table`` writes the table of mutants into docs/PARITY.md, between its two markers."""

from pathlib import Path

import jax
from mutants import Mutant, measure
from mutants_catalogue import ALL_MUTANTS

from flax_transformer.parity.pair import Pair
from flax_transformer.parity.report import number

PAGE = Path(__file__).parents[1] / "docs" / "PARITY.md"
BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"


def rows() -> list[str]:
    """A line of the table for each mutant, measured now."""
    pairs: dict[str, Pair] = {}
    lines = [
        "| mutant | twin | check | precision | figure | tolerance | margin |",
        "|---|---|---|---|---|---|---|",
    ]
    for mutant in ALL_MUTANTS:
        with jax.enable_x64(mutant.dtype == "float64"):
            key = repr((mutant.dtype, mutant.model, mutant.training))
            pair = pairs.setdefault(key, Pair(mutant.case()))
            lines.append(_row(mutant, pair))
    return lines


def _row(mutant: Mutant, pair: Pair) -> str:
    results = measure(mutant, pair)
    worst = max(results, key=lambda result: result.figure / (result.tolerance or 1))
    # Where equality is asked for, one entry is the least that could be noticed.
    margin = worst.figure / (worst.tolerance or 1)
    figure = f"{number(worst.figure)} {worst.unit}"
    twin = "JAX" if mutant.side == "flax" else "PyTorch"
    cells = (mutant.name, twin, mutant.check, mutant.dtype, figure, number(worst.tolerance), f"{number(margin)}")
    return f"| {' | '.join(cells)} |"


def write(page: Path = PAGE) -> None:
    """
    Raises:
        ValueError: the page lacks the markers.
    """
    before, marked, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (marked and closed):
        raise ValueError(f"{page}: expected the markers {BEGIN} and {END}")
    table = "\n".join(rows())
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
