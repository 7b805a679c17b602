"""JSON schema -> the automaton over token ids whose outputs are all JSON of that schema, through ``outlines-core``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from flax_transformer.data.generation import Constraint
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.errors import UserError

# An escaped character: outlines-core knows the short escapes only, json.dumps writes others as \u....
_SHORT_ESCAPES = r'\\["\\/bfnrt]'
_ALL_ESCAPES = r'\\(["\\/bfnrt]|u[0-9a-f]{4})'


def json_constraint(schema: Mapping[str, Any], tokenizer: Tokenizer) -> Constraint:
    """Outputs that are JSON of ``schema``, keys in its order, without spaces between values.

    The automaton is a table of (states, vocabulary): hundreds of states where keys are named and objects are not nested
    without bound, which is also when it is built within seconds.

    Raises:
        UserError: outlines-core is not installed or does not know the schema; or the tokenizer is not byte-level BPE,
            so that its tokens do not simply add up to the text.
    """
    try:
        from outlines_core import Index, Vocabulary, json_schema
    except ImportError as error:
        raise UserError('constrained output needs outlines-core: pip install "flax-transformer[json]"') from error
    ids: dict[bytes, list[int]] = {}
    for token, text in tokenizer.token_bytes().items():
        ids.setdefault(text, []).append(token)
    try:
        regex = json_schema.build_regex_from_schema(json.dumps(schema), "").replace(_SHORT_ESCAPES, _ALL_ESCAPES)
        index = Index(regex, Vocabulary(tokenizer.eos_id, ids))
    except (ValueError, TypeError) as error:
        raise UserError(f"JSON schema: expected one that outlines-core can follow ({error})") from error
    transitions = _table(index, tokenizer)
    return Constraint(transitions, _distances(transitions))


def read_schema(path: Path) -> dict[str, Any]:
    """Raises :class:`UserError` where ``path`` is no JSON object."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: expected a JSON schema, but it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: expected a JSON schema, got something else ({error})") from error
    if not isinstance(schema, dict):
        raise UserError(f"{path}: expected a JSON schema, got {type(schema).__name__}")
    return schema


def _table(index: Any, tokenizer: Tokenizer) -> Int32[np.ndarray, "states vocab"]:
    """The states of an outlines-core index, numbered from its first, and a last one behind the end token."""
    following: dict[int, dict[int, int]] = index.get_transitions()
    # Sorted: the index comes in the order of a hash map, which is another in each process.
    names = [index.get_initial_state(), *sorted(following.keys() - {index.get_initial_state()})]
    numbers = {name: number for number, name in enumerate(names)}
    table = np.full((len(names) + 1, tokenizer.vocab_size), -1, np.int32)
    for name, targets in following.items():
        table[numbers[name], list(targets)] = [numbers[target] for target in targets.values()]
    # The index itself lets the end token lead back to the state it was in.
    table[[numbers[name] for name in index.get_final_states()], tokenizer.eos_id] = len(names)
    return table


def _distances(transitions: Int32[np.ndarray, "states vocab"]) -> Int32[np.ndarray, " states"]:
    """Fewest tokens from each state to the last one, which is the end; the largest integer where no way leads there."""
    never = np.iinfo(np.int32).max
    distances = np.full(len(transitions), never, np.int32)
    distances[-1] = 0
    origins, tokens = np.nonzero(transitions >= 0)
    targets = transitions[origins, tokens]
    while True:
        arrives = distances[targets] < never
        nearer = distances.copy()
        np.minimum.at(nearer, origins[arrives], distances[targets[arrives]] + 1)
        if (nearer == distances).all():
            return distances
        distances = nearer
