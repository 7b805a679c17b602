"""The page of ``verify --html``: well-formed whatever the names in it, and recognized as a report."""

import math
from pathlib import Path
from typing import Any

import pytest
from checked_pages import NASTY, check_page

from flax_transformer.outputs import check_report
from flax_transformer.parity.page import verify_page


def report(name: str, *, against: str | None = None, passed: bool = True) -> dict[str, Any]:
    """Figures as ``verify`` finds them, with ``name`` wherever there is a name."""
    row = {"check": name, "view": "local", "figure": 2.0, "floor": None, "tolerance": 4.0, "unit": "ULP"}
    row |= {"worst": name, "note": name, "passed": passed}
    precision = {
        "dtype": "float32",
        "platform": "cpu",
        "results": [row],
        "divergence": None if passed else name,
        "intermediates": [{"name": name, "floor": 0.0, "cumulative": 1.5, "local": math.inf}] * 3,
        "gradients": {name: 3.0, "other": math.nan},
        "null_tensors": [name],
        "histogram": [5, 2, 1],
        "losses": {"flax": [2.0, 1.0], "torch": [2.0, 1.5]},
    }
    return {
        "target": name,
        "against": against,
        "passed": passed,
        "parameters": 1234,
        "versions": {"jax": name},
        "machine": name,
        "weights": row,
        "precisions": [precision],
        "config": {"d_model": name},
        "config_sha256": "abc",
    }


@pytest.mark.parametrize("name", ["encoder.norm", NASTY], ids=["plain", "nasty"])
def test_it_shows_what_was_found_and_runs_nothing(name: str):
    text = check_page(verify_page(report(name)))
    assert "JAX and PyTorch are equal ." in text
    assert "1,234 parameters" in text
    for heading in ("Each operation", "Each parameter's gradient", "Logits, by how many", "Loss of both sides"):
        assert heading in text
    assert "at most 0.5 apart" in text
    failed = check_page(verify_page(report(name, passed=False)))
    assert "are not equal" in failed
    assert "FAIL" in failed


@pytest.mark.parametrize("operations", [3, 300])  # of so many, the others have no dots
def test_what_is_not_finite_is_named_and_in_color(operations: int):
    found = report("encoder.norm")
    found["precisions"][0]["intermediates"] *= operations // 3
    found["precisions"][0]["losses"]["torch"][1] = math.nan
    page = verify_page(found)
    text = check_page(page)
    assert text.count("encoder.norm: ∞") == operations
    assert text.count("encoder.norm: 1.5") == (operations if operations == 3 else 0)
    assert "other: nan" in text
    assert "at most nan apart" in text
    assert page.count('fill="var(--ill)"') == operations + 2  # a gradient and a loss


def test_beside_a_third_party_there_are_no_pictures():
    text = check_page(verify_page(report("encoder.norm", against="onnx")))
    assert "JAX, PyTorch and onnx are equal" in text
    assert "Each operation" not in text


def test_a_later_report_may_take_its_place(tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_text(verify_page(report("encoder.norm")), encoding="utf-8")
    check_report(page)
