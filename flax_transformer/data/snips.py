"""SNIPS NLU 2017 (Coucke et al., 2018): a spoken command -> its intent and slots, as JSON."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from flax_transformer.config import SnipsData
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.files import find_file, read_table
from flax_transformer.data.scoring import mean, parse_json
from flax_transformer.data.splitting import first_of_each, set_aside
from flax_transformer.data.values import to_target
from flax_transformer.errors import UserError

_SLOT = {"anyOf": [{"type": "string", "copied": True}, {"type": "array", "items": {"type": "string", "copied": True}}]}
# JSON schema of the targets; for ``copied`` see :mod:`flax_transformer.data.copying`.
FRAME_SCHEMA = {
    "type": "object",
    "properties": {"intent": {"type": "string"}, "slots": {"type": "object", "additionalProperties": _SLOT}},
    "required": ["intent", "slots"],
}
_VALIDATION = 700  # as in the literature, which keeps 13,084 of the 13,784 training rows


def load_snips(config: SnipsData, seed: int) -> Splits:
    """Distinct training texts that are not in test, 700 of them (at most a tenth) set aside, and test as published.

    A slot that is named twice in a command has a list of values, in the order of the text.
    """
    if config.path is None:
        raise UserError("snips: expected --data.path, a folder with train.jsonl and test.jsonl (plain or .gz)")
    files = tuple(find_file(Path(config.path), name) for name in ("train.jsonl", "test.jsonl"))
    train, test = map(_read_frames, files)
    distinct = first_of_each(train.sources, exclude=test.sources)
    size = min(_VALIDATION, len(distinct) // 10)
    validation, rest = set_aside([train.sources[i] for i in distinct], [size], seed)
    kept, set_apart = (train.take([distinct[i] for i in part]) for part in (rest, validation))
    return Splits(_with_swapped_copies(kept, config.swapped_copies, seed), set_apart, test, files=files)


def _read_frames(path: Path) -> Examples:
    rows = read_table(path, ("text", "target"))
    for row in rows:
        if row.problem or not _is_frame(row.values[1]):
            raise UserError(f"{row.where}: expected a target of intent and slots, got {row.problem or row.values[1]!r}")
    places = [row.where for row in rows]
    return Examples([row.text(0) for row in rows], [to_target(row.values[1]) for row in rows], places)


def _with_swapped_copies(examples: Examples, copies: int, seed: int) -> Examples:
    """The examples, and ``copies`` of each in which the slots have values of the same slots elsewhere."""
    rng = np.random.default_rng(seed)
    frames = [json.loads(target) for target in examples.targets]
    values: dict[str, dict[str, None]] = {}  # distinct, in order
    for name, value in ((name, value) for frame in frames for name, value in frame["slots"].items()):
        if isinstance(value, str):
            values.setdefault(name, {})[value] = None
    known = {name: list(found) for name, found in values.items()}
    pairs = list(zip(examples.sources, frames, strict=True)) * copies
    swapped = [_swapped(text, frame, known, rng) for text, frame in pairs]
    return Examples(
        [*examples.sources, *(source for source, _ in swapped)],
        [*examples.targets, *(to_target(frame) for _, frame in swapped)],
        [*examples.places] * (1 + copies),
    )


def _swapped(
    text: str, frame: dict[str, Any], known: dict[str, list[str]], rng: np.random.Generator
) -> tuple[str, dict[str, Any]]:
    """Text and frame with other values in those slots whose value stands in the text once, as whole words."""
    slots, marks = dict(frame["slots"]), {}
    for name, value in slots.items():
        pattern = rf"(?<!\w){re.escape(value)}(?!\w)" if isinstance(value, str) else "(?!)"
        if len(re.findall(pattern, text)) == 1:
            # A private-use character keeps the place, so that no value is found within another's new one.
            marks[chr(0xE000 + len(marks))] = slots[name] = known[name][rng.integers(len(known[name]))]
            text = re.sub(pattern, list(marks)[-1], text)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text, {"intent": frame["intent"], "slots": slots}


def _is_frame(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and isinstance(value.get("intent"), str) and isinstance(value.get("slots"), dict)


def score_frames(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float | str]:
    """Share of frames that are right as a whole, of right intents and of outputs that parse; F1 over all slots."""
    predicted, expected = [parse_json(text) for text in predictions], [json.loads(text) for text in references]
    pairs = list(zip(predicted, expected, strict=True))
    found, wanted = [_slots(frame) for frame in predicted], [_slots(frame) for frame in expected]
    hits = sum((one & other).total() for one, other in zip(found, wanted, strict=True))
    total = sum(slots.total() for slots in (*found, *wanted))
    return {
        "exact_match": mean(one == other for one, other in pairs),
        "intent_accuracy": mean(_is_frame(one) and one["intent"] == other["intent"] for one, other in pairs),
        "slot_f1": 2 * hits / total if total else 1.0,
        "parsed": mean(one is not None for one in predicted),
    }


def _slots(frame: Any) -> Counter[tuple[str, str]]:
    """(name, value) of each slot, with values of a list counted one by one; none where ``frame`` is malformed."""
    slots = frame["slots"] if _is_frame(frame) else {}
    return Counter(
        (name, json.dumps(value))
        for name, entry in slots.items()
        for value in (entry if isinstance(entry, list) else [entry])
    )
