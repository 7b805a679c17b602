"""JSON schema -> the automaton over token ids whose outputs are all JSON of that schema, through ``outlines-core``."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_transformer.config import load_json
from flax_transformer.data.automaton import REFUSED
from flax_transformer.data.generation import Constraint
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError

_SECONDS = 25  # to build an automaton; those of the tasks take a few
_SMALLER = "bound it closer: a smaller maxLength or maxItems, fewer values in enum, a simpler pattern"


def json_constraint(schema: Mapping[str, Any], tokenizer: Tokenizer) -> Constraint:
    """Outputs that are JSON of ``schema``, keys in its order, without spaces between values.

    The automaton is a table of (states, vocabulary): hundreds of states where keys are named and objects are not nested
    without bound, which is also when it is built within seconds.

    Raises:
        UserError: outlines-core is not installed or does not know the schema; its automaton takes too long to build, or
            is too large; or the tokenizer is not byte-level BPE, so that its tokens do not simply add up to the text.
    """
    if importlib.util.find_spec("outlines_core") is None:
        raise UserError('constrained output needs outlines-core: pip install "flax-transformer[json]"')
    try:
        request = {
            "schema": json.dumps(schema),
            "tokens": {token: text.hex() for token, text in tokenizer.token_bytes().items()},
            "eos_id": tokenizer.eos_id,
            "vocab_size": tokenizer.vocab_size,
        }
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"JSON schema: expected plain JSON values ({error})") from error
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "automaton.npz")
        _build(request, file)
        with np.load(file, allow_pickle=False) as tables:
            return Constraint(tables["transitions"], tables["distances"])


def _build(request: Mapping[str, Any], file: Path) -> None:
    """In a process of its own, which can be ended."""
    command = [sys.executable, "-m", "flax_transformer.data.automaton", str(file)]
    try:
        result = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"JSON schema: expected an automaton within {_SECONDS} s, got none; {_SMALLER}") from error
    if result.returncode == REFUSED:
        reason = " ".join(result.stderr.split())[-300:]
        raise UserError(f"JSON schema: expected one that outlines-core can follow ({reason})")
    if result.returncode:
        raise UserError(f"JSON schema: expected an automaton that fits into memory, but it does not; {_SMALLER}")


def read_schema(path: Path) -> dict[str, Any]:
    """Raises :class:`UserError` where ``path`` is no JSON object."""
    schema = load_json(path, "a JSON schema")
    if not isinstance(schema, dict):
        raise UserError(f"{path}: expected a JSON schema, got {type(schema).__name__}")
    return schema
