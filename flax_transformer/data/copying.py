"""Values of JSON that are copied from the source: an output may only quote it there, from one word to another.

A model that copies well still misspells a name now and then, or leaves out its second word. Which values are copied is
said in the JSON schema of the outputs: ``{"type": "string", "copied": true}``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from flax_transformer.data.tokenizer import Tokenizer

# How far the JSON has been read. A string is a key in an object, and a value behind one or in a list; a list holds
# strings or objects, not both. Behind these come the nodes of the known keys' trie.
_OBJECT, _KEY, _KEY_ESCAPE = range(3)
_BEHIND_KEY, _VALUE, _VALUE_ESCAPE, _LIST, _ITEM, _ITEM_ESCAPE = range(3, 9)  # of values that are free
_COPIED = 6  # added to these: of values that are copied
_ROOT = _ITEM_ESCAPE + _COPIED + 1
_INSIDE = [state + _COPIED for state in (_VALUE, _VALUE_ESCAPE, _ITEM, _ITEM_ESCAPE)]

_WORD = re.compile(r"\w")
_LINE_BREAK = re.compile(r"[\s>|]*\n[\s>|]*|[^\S\n]+")
_EDGES = 2  # for each place: text has 1 to 2
_SMALLEST = 64  # places


class Copying(NamedTuple):
    """The rule of :class:`CopyRule` for the sources of one batch.

    A place lies before, between or behind the bytes of a source. An edge leads from one place to another by a token
    whose bytes stand between them.

    Args:
        transitions: how far the JSON has been read after each token; -1 where the token may not come.
        inside: whether a copied value has begun, but not ended.
        closes: tokens that begin with a quotation mark, and so end a value.
        starts: of the edges, where they begin; 0 of filler.
        tokens: of the edges; beyond the vocabulary of filler.
        ends: of the edges, where they end; the last place of tokens that also end the value.
        begins: places where a value may begin.
        finishes: places where it may end.
    """

    transitions: Int32[np.ndarray, "states vocab"]
    inside: Bool[np.ndarray, " states"]
    closes: Bool[np.ndarray, " vocab"]
    starts: Int32[np.ndarray, "batch edges"]
    tokens: Int32[np.ndarray, "batch edges"]
    ends: Int32[np.ndarray, "batch edges"]
    begins: Bool[np.ndarray, "batch places"]
    finishes: Bool[np.ndarray, "batch places"]


class CopyRule:
    """Which values are copied, for one tokenizer.

    A copied value is empty or a part of the source that begins and ends where a word does. Line breaks count as a
    space, with the ``>`` and ``|`` around them, and so does a run of spaces.

    Args:
        schema: of the outputs. Keys are known by their names alone, wherever they stand.

    Raises:
        UserError: the tokenizer is not byte-level BPE, so that its tokens do not simply add up to the text.
    """

    def __init__(self, schema: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        self._bytes = tokenizer.token_bytes()
        self._vocab_size = tokenizer.vocab_size
        keys, others = copied_keys(schema)
        self._tables = _token_tables(_byte_table(keys, others), self._bytes, self._vocab_size)
        self._trie = _trie_of(self._bytes)

    def of(self, source: Int[np.ndarray, "batch source"], lengths: Int[np.ndarray, " batch"]) -> Copying:
        """The rule for these sources."""
        rows = [
            _Lattice(self._text(row[:length]), self._trie) for row, length in zip(source, lengths.tolist(), strict=True)
        ]
        needed = max(max(len(row.text) + 2, -(-len(row.edges) // _EDGES)) for row in rows)
        size = max(_SMALLEST, 1 << (needed - 1).bit_length())  # powers of two: few shapes
        edges = np.zeros((3, len(rows), _EDGES * size), np.int32)
        edges[1] = self._vocab_size
        begins, finishes = np.zeros((2, len(rows), size), np.bool_)
        for number, row in enumerate(rows):
            if row.edges:
                edges[:, number, : len(row.edges)] = np.transpose(row.edges)
            begins[number, row.begins] = finishes[number, row.finishes] = True
        starts, tokens, ends = edges
        return Copying(*self._tables, starts, tokens, np.where(ends < 0, size - 1, ends), begins, finishes)

    def _text(self, tokens: Int[np.ndarray, " tokens"]) -> str:
        joined = b"".join(self._bytes.get(token, b"") for token in tokens.tolist())
        return joined.decode("utf-8", errors="ignore")  # the last character of a text that was cut


def copied_keys(schema: Mapping[str, Any]) -> tuple[dict[str, bool], bool]:
    """Key -> whether its value is copied; and whether those of all other keys are.

    The mark may stand in the value's schema, in one of ``anyOf``, or in ``items``.
    """
    keys: dict[str, bool] = {}
    others = False
    for one in _subschemas(schema):
        for name, value in one.get("properties", {}).items():
            keys[name] = keys.get(name, False) or _is_copied(value)
        others |= _is_copied(one.get("additionalProperties"))
    return keys, others


def _subschemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
        for value in schema.values():
            yield from _subschemas(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _subschemas(value)


def _is_copied(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    inner = [*schema.get("anyOf", []), schema.get("items")]
    return schema.get("copied") is True or any(map(_is_copied, inner))


def _byte_table(keys: Mapping[str, bool], others: bool) -> Int32[np.ndarray, "states 256"]:
    """How far the JSON is read after each byte."""
    after = {False: _BEHIND_KEY, True: _BEHIND_KEY + _COPIED}
    rows = [
        _row(_OBJECT, {'"': _ROOT}),
        _row(_KEY, {'"': after[others], "\\": _KEY_ESCAPE}),
        _row(_KEY, {}),
        *_value_rows(0),
        *_value_rows(_COPIED),
        _row(_KEY, {'"': after[others], "\\": _KEY_ESCAPE}),
    ]
    for name, is_copied in keys.items():
        node = _ROOT
        for byte in json.dumps(name, ensure_ascii=False)[1:-1].encode():
            if rows[node][byte] <= _ROOT:
                rows[node][byte] = len(rows)
                rows.append(_row(_KEY, {'"': after[others], "\\": _KEY_ESCAPE}))
            node = rows[node][byte]
        rows[node][ord('"')] = after[is_copied]
    return np.stack(rows)


def _value_rows(offset: int) -> list[Int32[np.ndarray, " 256"]]:
    """Of the states from ``_BEHIND_KEY`` on."""
    behind, value, value_escape, items, item, item_escape = (state + offset for state in range(_BEHIND_KEY, _ROOT - 6))
    return [
        _row(behind, {'"': value, "[": items, "{": _OBJECT, "}": _OBJECT, ",": _OBJECT}),
        _row(value, {'"': _OBJECT, "\\": value_escape}),
        _row(value, {}),
        _row(items, {'"': item, "{": _OBJECT, "]": _OBJECT}),
        _row(item, {'"': items, "\\": item_escape}),
        _row(item, {}),
    ]


def _row(otherwise: int, by_byte: Mapping[str, int]) -> Int32[np.ndarray, " 256"]:
    row = np.full(256, otherwise, np.int32)
    for character, state in by_byte.items():
        row[ord(character)] = state
    return row


def _token_tables(
    by_byte: Int32[np.ndarray, "states 256"], texts: Mapping[int, bytes], vocab_size: int
) -> tuple[Int32[np.ndarray, "states vocab"], Bool[np.ndarray, " states"], Bool[np.ndarray, " vocab"]]:
    """``transitions``, ``inside`` and ``closes``. A token that begins a copied value holds nothing of it."""
    states = np.arange(len(by_byte), dtype=np.int32)
    inside, closes = np.isin(states, _INSIDE), np.zeros(vocab_size, np.bool_)
    transitions = np.tile(states[:, None], vocab_size)  # special tokens add no text
    for token, text in texts.items():
        state, has_entered, is_wrong = states, np.zeros_like(inside), np.zeros_like(inside)
        for byte in text:
            following = by_byte[state, byte]
            is_wrong |= has_entered & inside[state] & inside[following]
            has_entered |= ~inside[state] & inside[following]
            state = following
        transitions[:, token] = np.where(is_wrong, -1, state)
        closes[token] = text.startswith(b'"')
    return transitions, inside, closes


def _end_of_value(text: bytes) -> int | None:
    """Where the first quotation mark stands that no backslash is before."""
    found = re.match(rb'(?:[^"\\]|\\.)*"', text, re.DOTALL)
    return found.end() - 1 if found else None


class _Node(dict[int, "_Node"]):
    """A node of a trie over bytes, with the tokens that end here, and those whose value ends here."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self.last_tokens: list[int] = []


def _trie_of(texts: Mapping[int, bytes]) -> _Node:
    root = _Node()
    for token, text in texts.items():
        end = _end_of_value(text)
        if end is None or text == b'"':  # which may be part of an escape sequence
            _node(root, text).tokens.append(token)
        elif end > 0:
            _node(root, text[:end]).last_tokens.append(token)
    return root


def _node(root: _Node, text: bytes) -> _Node:
    for byte in text:
        root = root.setdefault(byte, _Node())
    return root


class _Lattice:
    """The ways in which tokens spell parts of a text.

    Attributes:
        text: as it stands in JSON.
        edges: (start, token, end); the end is -1 of a token that ends the value too.
        begins: places where a word, or what stands between words, begins.
        finishes: places where it ends.
    """

    def __init__(self, text: str, trie: _Node) -> None:
        characters = _LINE_BREAK.sub(" ", text).strip()
        spelled = [json.dumps(character, ensure_ascii=False)[1:-1].encode() for character in characters]
        self.text = b"".join(spelled)
        self.begins: list[int] = []
        self.finishes: list[int] = []
        place = 0
        for before, piece, after in zip(" " + characters, [*spelled, b""], characters + " ", strict=True):
            if not (_WORD.match(before) and _WORD.match(after)):
                self.begins += [place] * (not after.isspace())
                self.finishes += [place] * (not before.isspace())
            place += len(piece)
        # Behind the text nothing follows, so a value that begins here is empty.
        self.begins.append(len(self.text))
        self.finishes.append(len(self.text))
        self.edges = list(self._walk(trie, set(self.finishes)))

    def _walk(self, trie: _Node, finishes: set[int]) -> Iterator[tuple[int, int, int]]:
        for start in range(len(self.text)):
            node: _Node | None = trie
            for place in range(start, len(self.text)):
                node = node.get(self.text[place])
                if node is None:
                    break
                yield from ((start, token, place + 1) for token in node.tokens)
                if place + 1 in finishes:
                    yield from ((start, token, -1) for token in node.last_tokens)
