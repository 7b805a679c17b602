"""SNIPS as texts with several labels, the slots of each: ``python -m benchmarks.snips_labels SNIPS own/``.

SNIPS is the folder of the task ``snips``, with ``train.jsonl.gz`` and ``test.jsonl.gz``. Writes ``train.jsonl`` and
``test.jsonl`` with rows ``{"text": ..., "labels": [...]}``.
"""

import argparse
import gzip
import json
from pathlib import Path


def write_labels(source: Path, target: Path) -> None:
    """The slots of each command in order, without their values."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("train.jsonl", "test.jsonl"):
        with (
            gzip.open(source / f"{name}.gz", "rt", encoding="utf-8") as rows,
            (target / name).open("w", encoding="utf-8") as file,
        ):
            for row in map(json.loads, rows):
                file.write(json.dumps({"text": row["text"], "labels": sorted(row["target"]["slots"])}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    flags = parser.parse_args()
    write_labels(flags.source, flags.target)
