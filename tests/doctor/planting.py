"""Change one line of a clean model."""

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Bug:
    """One changed line.

    Args:
        name: the same in both frameworks for the same bug.
        kinds: in which models it is planted.
        causes: what the first line of the diagnosis may say.
        exact: it breaks what can be measured without a limit to choose.
        options: of the config in which it shows.
    """

    name: str
    kinds: str
    old: str
    new: str
    causes: str
    exact: bool = True
    options: tuple[tuple[str, Any], ...] = ()


def planted(file: str, bug: Bug | None) -> types.CodeType:
    """The program of ``file`` with the bug in it.

    Raises:
        ValueError: the line of the bug does not stand exactly once in the file.
    """
    source = (FOLDER / file).read_text(encoding="utf-8")
    if bug is not None:
        if source.count(bug.old) != 1:
            raise ValueError(f"{bug.name}: expected {bug.old!r} once in {file}, found it {source.count(bug.old)} times")
        source = source.replace(bug.old, bug.new)
    return compile(source, file, "exec")


def load(file: str, bug: Bug | None = None) -> types.ModuleType:
    """The module ``file`` with the bug planted."""
    program = planted(file, bug)
    module = types.ModuleType(f"planted_{Path(file).stem}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(program, module.__dict__)
    return module
