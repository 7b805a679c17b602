"""Where results are written: looked at before work begins, and in place only once they are whole."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flax_transformer.errors import UserError

_PAGE = b'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
_FIGURES = (
    {"target", "passed", "precisions"},
    {"subject", "verdict", "diagnosis"},
    {"settings", "topology", "mesh"},
    {"what", "label", "machine"},
)
_HEAD = 1_000  # bytes of a picture that hold what made it
# What a picture of a command says of itself, so that it is not taken for one of the user's.
PICTURE = {"Software": "flax-transformer"}


def check_new_file(path: Path, instead: str = "name another") -> None:
    """Whether a file can be made at ``path``; to be asked before the work whose result it is to hold.

    Args:
        instead: what to do where the name is taken.

    Raises:
        UserError: something is there already, if only a link that leads nowhere; or the folder it is to be in is not
            there, is no folder or cannot be written to.
    """
    if os.path.lexists(path):
        raise UserError(f"{path}: expected a name that is not taken, but it exists; {instead}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: expected its folder {path.parent} to exist; make it, or name another")
    _check_writable(path.parent, path)


def check_new_folder(path: Path, instead: str = "name another") -> None:
    """As :func:`check_new_file`, of a folder: it may be there if it is empty, and its parents are made if need be.

    Raises:
        UserError: something else is there already, or the folder cannot be made.
    """
    if path.parts[:1] == ("~",):  # a folder of that name would be deleted by a command that deletes the home
        raise UserError(f"{path}: expected the path of a folder, got ~ as the shell left it; write it out")
    is_free = not os.path.lexists(path) or (path.is_dir() and not path.is_symlink() and not any(path.iterdir()))
    if not is_free:
        raise UserError(f"{path}: expected a folder that is not there yet or is empty, but it exists; {instead}")
    parent = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise UserError(f"{path}: expected a name in a folder, but {parent} is a file; {instead}")
    _check_writable(parent, path)


def check_report(path: Path) -> None:
    """As :func:`check_new_file`, of a report in JSON, HTML or PNG, which may take the place of an older one.

    Raises:
        UserError: something else is there, such as data or a config in JSON, or it cannot be written.
    """
    if not (path.is_file() and _is_report(path.read_bytes())):
        check_new_file(path)


def _is_report(content: bytes) -> bool:
    """Whether a command made it: a page, a picture, or figures under the keys that they have there."""
    made_by = PICTURE["Software"].encode()
    if content.startswith(_PAGE) or (content.startswith(b"\x89PNG") and made_by in content[:_HEAD]):
        return True
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and any(keys <= values.keys() for keys in _FIGURES)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``path`` once it is complete: nobody ever sees a part of it.

    Until then it stands beside it under a name of its own. Whoever is killed meanwhile leaves nothing at ``path``.

    Raises:
        UserError: as :func:`check_new_folder`, and where the folder cannot be written.
    """
    path = path.absolute()
    check_new_folder(path)
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
        yield unfinished
        for file in unfinished.iterdir():
            file.chmod(0o644)  # safetensors makes files that nobody else can read
        unfinished.chmod(0o755)
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path}: expected to write it, but could not ({error.strerror or error})") from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a small file at once, in place of what it held before; its folder is made if need be.

    Raises:
        UserError: it cannot be written; what it held before is kept.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path}: expected to write it, but could not ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # as where its folder could not be made
            unfinished.unlink(missing_ok=True)


def discard_stdout() -> None:
    """What is still to be written goes nowhere, since the reader of the output, such as ``head``, has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_writable(folder: Path, path: Path) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null character
        raise UserError(f"{str(path)[:80]!r}: expected a name for a file ({error})"[:300]) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path}: expected to write to {folder}, but it is not allowed; name another")
