"""The ``flax-transformer`` command. What is heavy is imported where it is needed: ``--help`` answers at once."""

import _thread
import importlib
import io
import keyword
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import NoReturn

from flax_transformer.cli.common import PROGRAM, table
from flax_transformer.errors import UserError
from flax_transformer.outputs import discard_stdout

# The commands and what each does. Each is a function in the module of its name (import_ where that is a keyword), takes
# its arguments and returns its exit code.
COMMANDS = {
    "train": "Train a model on a task and score it on the test split.",
    "evaluate": "Score the best checkpoint of a run, or an export on labelled files.",
    "report": "Make a page of a run: curves, scores, calibration, mistakes, attention.",
    "predict": "Predict with the best checkpoint of a run, or with an export: a line of JSON for each text.",
    "import": "Make an export of a checkpoint of Hugging Face's transformers: BERT, BART, T5 and their kin.",
    "export": "Write a run's best checkpoint for PyTorch, transformers, CTranslate2 or ONNX Runtime, ready to predict.",
    "verify": "Prove the PyTorch model of a run, an export or a preset equal to its JAX twin.",
    "bench": "Time training, generation, attention and input, against PyTorch where it is installed.",
    "doctor": "Examine a Transformer of anybody's, in PyTorch or JAX: masks, positions, padding, generation.",
    "plan": "Compile a training step for a TPU slice, without a TPU: the memory it takes, and how fast it can be.",
}

# What only some commands need -> the extra that brings it.
_EXTRA_OF = dict.fromkeys(
    ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "datasets", "filelock", "pyarrow", "sacrebleu", "tensorboard"),
    "train",
) | {"torch": "torch", "transformers": "peers", "ctranslate2": "ctranslate2"}
_EXTRA_OF |= dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx")
_SOON = 0.05  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. Where the user can fix what is wrong, that is 2 after one line on stderr."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    _write_utf8()
    sys.unraisablehook = _unraisable
    if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
        signal.signal(signal.SIGTERM, _end)
    try:
        code = _run(name, rest)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA_OF:
            raise
        extra = _EXTRA_OF[str(error.name).partition(".")[0]]
        print(f"error: {name} needs {error.name}: pip install 'flax-transformer[{extra}]'", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: expected more memory than there is; take a smaller model or batch", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped at once; what was saved before is kept", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        discard_stdout()
        return 128 + signal.SIGPIPE
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # as jax tells that the memory of a device is full
            raise
        print(f"error: the memory of the device is full ({' '.join(str(error).split())[:200]})", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a file that went away
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; what was written before is kept", file=sys.stderr)
        return 2
    return code


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End as an exception does, so that unfinished files are removed and processes of the command end with it."""
    raise SystemExit(128 + number)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Also obey Ctrl-C where it comes while the garbage collector calls jax, and Python would print it and go on."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        threading.Timer(_SOON, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def _write_utf8() -> None:
    """Whatever the locale: texts are of any language, and files of predictions are UTF-8 on every machine."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _run(name: str, rest: Sequence[str]) -> int:
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"{PROGRAM} {version(PROGRAM)}")
        return 0
    if name not in COMMANDS:
        raise UserError(f"expected a command, one of {', '.join(COMMANDS)}, got {name!r}")
    function = f"{name}_" if keyword.iskeyword(name) else name
    return getattr(importlib.import_module(f"flax_transformer.cli.{function}"), function)(rest)


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "commands (each explains itself with --help):"]
    return "\n".join(lines + table(COMMANDS.items()))
