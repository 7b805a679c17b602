"""A process of its own that builds the automaton of a JSON schema: it may take any time and memory, and so is bounded.

It reads a request as JSON from standard input and writes its tables to the file that it is given, as numpy has them.
"""

import json
import sys
from typing import Any

import numpy as np
from jaxtyping import Int32

REFUSED = 3  # exit code where the message on stderr is the user's
MEMORY = 4 * 2**30  # bytes of address space
LARGEST_TABLE = 2**30  # bytes

# An escaped character: outlines-core knows the short escapes only, json.dumps writes others as \u....
_SHORT_ESCAPES = r'\\["\\/bfnrt]'
_ALL_ESCAPES = r'\\(["\\/bfnrt]|u[0-9a-f]{4})'


def main() -> int:
    """Build the tables of one request; the exit code."""
    import resource  # not on Windows

    from outlines_core import Index, Vocabulary, json_schema

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    request = json.load(sys.stdin)
    ids: dict[bytes, list[int]] = {}
    for token, text in request["tokens"].items():
        ids.setdefault(bytes.fromhex(text), []).append(int(token))
    try:
        regex = json_schema.build_regex_from_schema(request["schema"], "").replace(_SHORT_ESCAPES, _ALL_ESCAPES)
        index = Index(regex, Vocabulary(request["eos_id"], ids))
    except (ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return REFUSED
    states = len(index.get_transitions()) + 1
    if states * request["vocab_size"] * 4 > LARGEST_TABLE:
        print(f"its automaton has {states:,} states, too many for a vocabulary of this size", file=sys.stderr)
        return REFUSED
    transitions = _table(index, request["vocab_size"], request["eos_id"])
    np.savez(sys.argv[1], transitions=transitions, distances=_distances(transitions))
    return 0


def _table(index: Any, vocab_size: int, eos_id: int) -> Int32[np.ndarray, "states vocab"]:
    """The states of an outlines-core index, numbered from its first, and a last one behind the end token."""
    following: dict[int, dict[int, int]] = index.get_transitions()
    # Sorted: the index comes in the order of a hash map, which is another in each process.
    names = [index.get_initial_state(), *sorted(following.keys() - {index.get_initial_state()})]
    numbers = {name: number for number, name in enumerate(names)}
    table = np.full((len(names) + 1, vocab_size), -1, np.int32)
    for name, targets in following.items():
        table[numbers[name], list(targets)] = [numbers[target] for target in targets.values()]
    # The index itself lets the end token lead back to the state it was in.
    table[[numbers[name] for name in index.get_final_states()], eos_id] = len(names)
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


if __name__ == "__main__":
    sys.exit(main())
