"""Twin files have the same public names in the same order; what exists on one side only lives elsewhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What only PyTorch has: its kernels, the dtypes that JAX knows by name, graphs traced from its modules, and a class of
# optimizer where JAX has a transformation.
TORCH_ONLY = {"__init__.py", "dtypes.py", "nn/kernels.py", "interop/onnx.py", "training/muon_optimizer.py"}
TWINS = sorted(
    str(path.relative_to(ROOT / "torch_reference"))
    for path in (ROOT / "torch_reference").rglob("*.py")
    if path.name != "__init__.py" and str(path.relative_to(ROOT / "torch_reference")) not in TORCH_ONLY
)


def public_names(source: str) -> list[str]:
    """Functions, classes and constants of a module, in order."""
    names = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("file", TWINS)
def test_twins_have_the_same_public_names_in_the_same_order(file: str):
    flax, torch = ((ROOT / package / file).read_text("utf-8") for package in ("flax_transformer", "torch_reference"))
    assert public_names(flax) == public_names(torch)
    assert public_names(flax)


def test_all_of_the_model_has_a_twin():
    modules = {path.name for path in (ROOT / "flax_transformer" / "nn").glob("*.py")}
    assert modules == {path.name for path in (ROOT / "torch_reference" / "nn").glob("*.py")} - {"kernels.py"}


def test_the_rule_sees_another_order():
    assert public_names("def f(): ...\nclass A: ...") != public_names("class A: ...\ndef f(): ...")
