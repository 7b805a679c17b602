"""The import rules of the house, held by importing every module in a fresh interpreter."""

import ast
import graphlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parent.parent
JAX_ROOMS = ["nn", "decoding", "training", "distributed", "interop", "planning", "report"]

# Imports every module below the package named first and prints, for each module, the watched names it has loaded.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
package, watched = sys.argv[1], sys.argv[2].split(",")
names = [package] + [m.name for m in pkgutil.walk_packages(importlib.import_module(package).__path__, package + ".")]
loaded = {}
for name in names:
    importlib.import_module(name)
    loaded[name] = [other for other in sys.modules if any((other + ".").startswith(w + ".") for w in watched)]
print(json.dumps(loaded))
"""


def loaded_by(package: str, *watched: str, program: str = IMPORT_ALL) -> dict[str, list[str]]:
    """Module of the package -> the watched modules that have been loaded once it is imported."""
    command = [sys.executable, "-W", "ignore", "-c", program, package, ",".join(watched)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        *((f"flax_transformer.{room}", ["torch", "torch_reference", "tensorflow"]) for room in JAX_ROOMS),
        ("flax_transformer.data", ["torch", "jax", "flax", "grain", "datasets", "pyarrow", "sacrebleu"]),
        ("flax_transformer.pages", ["torch", "jax", "numpy"]),
        ("flax_transformer.interop.huggingface", ["jax", "flax", "transformers"]),
        ("torch_reference", ["jax", "flax", "grain"]),
    ],
)
@pytest.mark.sample(4)
def test_package_never_loads(package: str, forbidden: list[str]):
    loaded = loaded_by(package, *forbidden)
    assert len(loaded) > 1, "no module was imported"
    offenders = {module: names for module, names in loaded.items() if names}
    assert not offenders


def test_the_rule_sees_a_forbidden_import():
    assert "numpy" in loaded_by("flax_transformer.data", "numpy")["flax_transformer.data.batches"]


def test_torch_reference_uses_only_what_loads_no_framework():
    loaded = set(loaded_by("torch_reference", "flax_transformer")["torch_reference"])
    allowed = tuple(
        f"flax_transformer.{name}" for name in ("config", "errors", "formats", "intermediates", "legacy", "data")
    )
    assert {name for name in loaded if name != "flax_transformer" and not name.startswith(allowed)} == set()


def test_console_help_starts_without_jax():
    program = "import sys, json, flax_transformer.cli.main; print(json.dumps({'cli': sorted(sys.modules)}))"
    loaded = loaded_by("flax_transformer", program=program)["cli"]
    assert "flax_transformer" in loaded
    assert "jax" not in loaded


def module_imports(path: Path) -> set[str]:
    """Modules that a file imports when it is itself imported (not inside a function)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def graph_of(package: str) -> dict[str, set[str]]:
    """Module of a package -> the modules of the package that it imports when it is itself imported."""
    modules = {}
    for path in (ROOT / package).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = module_imports(path)
    for imports in modules.values():  # "from package import module" means the module
        imports -= {package for package in imports if any(f"{package}." in other for other in imports & modules.keys())}
    return {name: (imports & modules.keys()) - {name} for name, imports in modules.items()}


@pytest.mark.parametrize("package", ["flax_transformer", "torch_reference"])
def test_no_import_circle(package: str):
    graph = graph_of(package)
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(graph)


# Bottom to top. A room imports from itself and from those below it.
ROOMS = [
    "errors",
    "legacy",
    "formats",
    "intermediates",
    "config",
    "presets",
    "outputs",
    "pages",
    "runtime",
    "data",
    "distributed",
    "nn",
    "decoding",
    "interop",
    "training",
    "planning",
    "report",
    "api",
    "parity",
    "bench",
    "doctor",
    "cli",
    "__main__",
]


def upward_imports(graph: dict[str, set[str]]) -> list[str]:
    def room(module: str) -> int:
        return ROOMS.index(module.split(".")[1])

    return [
        f"{module} imports {other}"
        for module, imports in graph.items()
        for other in imports
        if "." in module and "." in other and room(other) > room(module)
    ]


def test_no_room_imports_from_one_above_it():
    graph = graph_of("flax_transformer")
    assert {module.split(".")[1] for module in graph if "." in module} == set(ROOMS)
    assert upward_imports(graph) == []
    assert upward_imports({"flax_transformer.nn.x": {"flax_transformer.cli.y"}})


def test_only_the_commands_import_what_knows_both_frameworks():
    users = {
        (module.split(".")[1], other.split(".")[1])
        for module, imports in graph_of("flax_transformer").items()
        for other in imports
        if "." in module and other.startswith(("flax_transformer.parity", "flax_transformer.bench."))
    }
    assert {user for user, used in users if user != used} <= {"cli", "bench"}


def test_installed_top_level_names():
    with (ROOT / "pyproject.toml").open("rb") as file:
        found = tomllib.load(file)["tool"]["setuptools"]["packages"]["find"]["include"]
    assert found == ["flax_transformer*", "torch_reference*"]
    installed = setuptools.find_packages(str(ROOT), include=found)
    assert {name.partition(".")[0] for name in installed} == {"flax_transformer", "torch_reference"}


def test_no_private_api_of_a_dependency():
    dependencies = {"jax", "flax", "optax", "orbax", "grain", "tyro", "torch", "tokenizers", "datasets"}
    files = [p for package in ("flax_transformer", "torch_reference") for p in (ROOT / package).rglob("*.py")]
    # PyTorch documents the dispatch mode under this path ("Extending PyTorch"); there is no other.
    documented = "torch.utils._python_dispatch"
    private = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in module_imports(path)
        if name.split(".")[0] in dependencies
        and not name.startswith(documented)
        and any(part.startswith("_") for part in name.split(".")[1:])
    }
    assert files
    assert not private
