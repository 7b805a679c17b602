"""What a run knows of its data: a digest of each file and of each split, and a hash of each text.

A score says something only of texts that the model has not seen, and a resumed run ends as the uninterrupted one does
only on the same examples. Both are checked against the record that training leaves in the run folder.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from flax_transformer.config import load_json
from flax_transformer.data.examples import Examples, Source, Splits, texts_of
from flax_transformer.data.labels import ids
from flax_transformer.data.splitting import folded
from flax_transformer.errors import UserError, warn

DATA_FILE = "data.json"
_SPLITS = ("train", "validation", "test")
Record = dict[str, Any]


def fingerprint(splits: Splits) -> Record:
    """Plain JSON values: a digest of each file; of each split its number of rows, digests of them as they stand and in
    any order, and a hash of each text.
    """
    return {
        "files": {str(path): _file_digest(path) for path in splits.files},
        "splits": {name: _split_record(getattr(splits, name), splits.classes) for name in _SPLITS},
    }


def differences(old: Record, new: Record) -> dict[str, str]:
    """Split -> what has changed in it, in words. Splits that are the same are left out."""
    found = {}
    for name in _SPLITS:
        before, after = old["splits"][name], new["splits"][name]
        if before["ordered"] != after["ordered"]:
            found[name] = f"{name}: {_difference(before, after)}"
    return found


def changed_files(old: Record, new: Record) -> str:
    """The files whose content is not that of the record, in parentheses; empty where all of them are the same."""
    changed = [path for path, digest in new["files"].items() if old["files"].get(path) != digest]
    return f" ({', '.join(changed)} changed)" if changed else ""


def trained_on(record: Record, examples: Examples) -> list[int]:
    """Indices of the examples whose texts are in the training split of the record, blanks and capitals aside."""
    return np.flatnonzero(np.isin(_text_hashes(examples.sources), _texts(record["splits"]["train"]))).tolist()


def save_record(record: Record, folder: Path) -> None:
    (folder / DATA_FILE).write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_record(folder: Path) -> Record | None:
    """The record of a run; None of one that was trained before there were records.

    Raises:
        UserError: it is damaged.
    """
    path = folder / DATA_FILE
    if not path.exists():
        return None
    record = load_json(path, "the record of the run's data")
    try:
        for name in _SPLITS:
            split = record["splits"][name]
            _texts(split)
            if not {"rows", "ordered", "content"} <= split.keys() or not isinstance(record["files"], dict):
                raise ValueError(f"no whole record of {name}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: expected the record of the run's data, got something else ({error})") from error
    return record


def require_same_data(folder: Path, record: Record) -> None:
    """Raises :class:`UserError` where a run to go on with was begun on other examples; it names what has changed."""
    old = load_record(folder)
    if old is None:
        warn(f"{folder} has no {DATA_FILE}, so it cannot be checked whether its data is still the same")
        return
    changed = differences(old, record)
    if changed:
        raise UserError(
            f"{folder}: expected the data that the run began with, got other "
            f"data: {'; '.join(changed.values())}{changed_files(old, record)}; "
            "put the files back, or train on the new ones in another folder with --run"
        )


def tell_seen(folder: Path, splits: Splits) -> None:
    """Warn where the run that a training starts from was trained on texts that are to be scored."""
    record = load_record(folder)
    if record is None:
        return
    for name in ("validation", "test"):
        examples: Examples = getattr(splits, name)
        if seen := len(trained_on(record, examples)):
            warn(
                f"{seen:,} of the {len(examples):,} texts of the {name} split are among those that {folder} was "
                "trained on, which flatters the score"
            )


def check_evaluation_data(folder: Path, splits: Splits, split: str, *, may_differ: bool = True) -> None:
    """Warn where a split is not the one that the run was made with, or shares texts with the training split.

    Args:
        may_differ: False refuses a split that is not the one that the run was made with.

    Raises:
        UserError: the split has changed, and the run was trained on most of its texts.
    """
    old = load_record(folder)
    if old is None:
        warn(f"{folder} has no {DATA_FILE}, so it cannot be checked whether it was trained on these texts")
        return
    record = fingerprint(splits)
    # The order of the rows does not matter to a score.
    is_changed = old["splits"][split]["content"] != record["splits"][split]["content"]
    what = f"{differences(old, record).get(split)}{changed_files(old, record)}"
    if is_changed and not may_differ:
        raise UserError(
            f"{folder}: expected the {split} split that the run was made with, got another; {what}; "
            "put the files back, or name labelled files with --file"
        )
    examples: Examples = getattr(splits, split)
    seen = trained_on(old, examples)
    share = f"{len(seen):,} of the {len(examples):,} texts of the {split} split"
    if is_changed and 2 * len(seen) > len(examples):
        raise UserError(f"{folder}: expected texts to score that it was not trained on, but it was on {share}; {what}")
    if is_changed:
        warn(f"the data is not that of the run, so neither is the score; {what}")
    if seen:
        warn(f"{share} are among those that the run was trained on, which flatters the score")


def _split_record(examples: Examples, classes: Sequence[str]) -> Record:
    targets = [_spelled(target, classes) for target in examples.targets] if classes else examples.targets
    rows = [_row_hash(*texts_of(source), str(target)) for source, target in zip(examples.sources, targets, strict=True)]
    hashes = _text_hashes(examples.sources).astype("<u8").tobytes()
    return {
        "rows": len(rows),
        "ordered": hashlib.sha256(b"".join(rows)).hexdigest(),
        "content": hashlib.sha256(b"".join(sorted(rows))).hexdigest(),
        "texts": base64.b64encode(hashes).decode("ascii"),
    }


def _spelled(target: int | Sequence[bool], classes: Sequence[str]) -> str | list[str]:
    """The name of a class, or those of several labels."""
    return classes[target] if isinstance(target, int) else [classes[i] for i in ids(target)]


def _row_hash(*texts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def _texts(split: Record) -> UInt64[np.ndarray, " rows"]:
    return np.frombuffer(base64.b64decode(split["texts"], validate=True), "<u8")


def _text_hashes(sources: Sequence[Source]) -> UInt64[np.ndarray, " rows"]:
    data = b"".join(
        hashlib.blake2b(folded(source).encode("utf-8", "surrogatepass"), digest_size=8).digest() for source in sources
    )
    return np.frombuffer(data, "<u8")


def _difference(old: Record, new: Record) -> str:
    if old["content"] == new["content"]:
        return f"the same {new['rows']:,} texts in another order"
    before, after = Counter(_texts(old).tolist()), Counter(_texts(new).tolist())
    if before == after:
        return f"the same {new['rows']:,} texts, spelled otherwise or with other targets"
    added, removed = (after - before).total(), (before - after).total()
    return f"{added:,} text{'s' * (added != 1)} added, {removed:,} removed"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
