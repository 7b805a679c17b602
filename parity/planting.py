"""Plant a one-line mistake in one of the twins, for as long as a block lasts."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

# Bottom to top, so that each module picks up what those before it now are.
_MODULES = {
    "flax_transformer": (
        "masks positions linear dropout attention layers losses models optim weights next_token beam generate "
        "training.step"
    ),
    "torch_reference": (
        "masks positions linear dropout attention layers losses models optim next_token beam generate training"
    ),
}


@contextlib.contextmanager
def planted(file: str, old: str, new: str) -> Iterator[None]:
    """Within the block, the package of ``file`` behaves as if its source said ``new`` where it says ``old``.

    The modules of the package are executed anew, and afterwards given back what they held. Code that is to see the
    mistake must look names up in the modules, as ``models.create_model``.

    Raises:
        ValueError: ``old`` does not stand exactly once in the file, so the catalogue no longer fits the code.
    """
    package, _, target = file.removesuffix(".py").replace("/", ".").partition(".")
    modules = {name: importlib.import_module(f"{package}.{name}") for name in _MODULES[package].split()}
    sources = {name: Path(str(module.__file__)).read_text(encoding="utf-8") for name, module in modules.items()}
    if sources[target].count(old) != 1:
        raise ValueError(f"{file}: expected {old!r} exactly once, found it {sources[target].count(old)} times")
    sources[target] = sources[target].replace(old, new)
    before = {name: dict(vars(module)) for name, module in modules.items()}
    try:
        for name, module in modules.items():
            exec(compile(sources[name], str(module.__file__), "exec"), vars(module))
        yield
    finally:
        for name, module in modules.items():
            vars(module).clear()
            vars(module).update(before[name])
