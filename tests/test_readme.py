"""The Python block of the README runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run_program(arguments: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_python_block_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch", reason="the block hands the model to PyTorch")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    blocks = re.findall(r"<!-- python-example: begin -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 1
    smaller = blocks[0].replace("train_size=500", "train_size=64")
    assert smaller != blocks[0]
    difference = re.search(r"differ by at most (\S+)", run_program(["-c", smaller], tmp_path))
    assert difference is not None
    assert float(difference[1]) < 1e-4
