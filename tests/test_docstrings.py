"""The examples in docstrings run, and every call of a module has one."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["flax_transformer/nn", "torch_reference/nn"]
MODULES = [
    *(str(path.relative_to(ROOT)) for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))),
    "flax_transformer/decoding/generate.py",
    "torch_reference/decoding/generate.py",
    "flax_transformer/interop/state_dict.py",
    "flax_transformer/interop/huggingface/flags.py",
    "flax_transformer/interop/huggingface/shapes.py",
    "flax_transformer/api.py",
    "flax_transformer/pages/html.py",
    "flax_transformer/report/mistakes.py",
    *(f"flax_transformer/config/{name}.py" for name in ("generation", "model", "training")),
]


@pytest.mark.parametrize("file", MODULES)
@pytest.mark.sample(8)
def test_the_examples_of_a_module(file: str):
    if file.startswith("torch_reference") or "state_dict" in file:
        pytest.importorskip("torch", reason="the examples are of PyTorch")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("file", [file for file in MODULES if "/nn/" in file])
def test_every_call_of_a_layer_has_an_example(file: str):
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name in ("__call__", "forward")
    ]
    assert [call.lineno for call in calls if "Example:" not in (ast.get_docstring(call) or "")] == []
