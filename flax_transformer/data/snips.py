"""SNIPS NLU 2017 (Coucke et al., 2018): a spoken command -> its intent and slots, as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from flax_transformer.config import SnipsData
from flax_transformer.data.examples import Examples, Splits
from flax_transformer.data.files import find_file, read_rows
from flax_transformer.data.scoring import mean, parse_json
from flax_transformer.data.splitting import first_of_each, set_aside
from flax_transformer.errors import UserError

_SLOT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
# JSON schema of the targets.
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
    return Splits(kept, set_apart, test, files=files)


def _read_frames(path: Path) -> Examples:
    rows = read_rows(path, ("text", "target"))
    for row in rows:
        if not _is_frame(row.values[1]):
            raise UserError(f"{row.where}: expected a target of intent and slots, got {row.values[1]!r}")
    frames = [json.dumps(row.values[1], ensure_ascii=False, separators=(",", ":")) for row in rows]
    return Examples([row.text(0) for row in rows], frames)


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
