"""Hundreds of commands that cannot be right, and what becomes of each.

    python tests/bad_invocations [--only WORD ...] [--shard 1/3] [--json FILE]

None may end in a traceback, be killed, take over a minute, succeed without a word, or change a file that was there or
leave one behind. Most run within this process; those that could hang or take it down run in one of their own. Prints
the count by group and outcome, and exits with 1 if there is any of a bad kind.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bad_invocations import cases
from bad_invocations.files import make_files
from bad_invocations.running import GOOD, run, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="groups whose name holds one of these words")
    parser.add_argument("--shard", default="1/1", help="2/3: the second of three shares, to be run at a time")
    parser.add_argument("--json", type=Path, help="file for every command, its outcome and what it said")
    flags = parser.parse_args()
    shard, shards = map(int, flags.shard.split("/"))
    chosen = [case for case in cases() if any(word in case.group for word in flags.only)][shard - 1 :: shards]
    records = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        make_files(folder)
        for case in chosen:
            outcome = run(case, folder)
            records.append((case, outcome))
            if outcome.kind not in GOOD:
                shown = " ".join(argument[:40] for argument in case.arguments)
                print(f"{outcome.kind} ({outcome.seconds:.0f} s): {shown}\n    {outcome.said[-1500:]}", flush=True)
    print(table([(case.group, outcome.kind) for case, outcome in records]))
    slowest = max(outcome.seconds for _, outcome in records)
    print(f"{len(records)} commands; the slowest took {slowest:.0f} s")
    if flags.json:
        lines = [{"arguments": c.arguments, "group": c.group, **vars(outcome)} for c, outcome in records]
        flags.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    return int(any(outcome.kind not in GOOD for _, outcome in records))


if __name__ == "__main__":
    sys.exit(main())
