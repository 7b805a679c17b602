"""``flax-transformer import``: make an export of a checkpoint of Hugging Face's transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, deferred, parse
from flax_transformer.interop.huggingface.flags import spelled

if TYPE_CHECKING:
    from flax_transformer.interop.huggingface.importing import Imported


def import_(arguments: Sequence[str]) -> int:
    """Make an export of a checkpoint of transformers: BERT, BART, T5 and their kin."""
    return parse(deferred(_import), prog=f"{PROGRAM} import", args=list(arguments) or ["--help"])()


def _import(
    source: Positional[str],
    directory: Positional[Path],
    revision: str | None = None,
    bare: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Make an export of a checkpoint of transformers, which can be loaded, predicted with, verified and trained on.

    Args:
        source: folder of the checkpoint, or the name of a model on the hub.
        directory: where to; must not exist, or be empty.
        revision: branch, tag or commit on the hub; the newest if not given.
        bare: leave the tokenizer out, so that the export reads ids alone.
    """
    from flax_transformer.interop.huggingface.hub import find_checkpoint
    from flax_transformer.interop.huggingface.importing import import_checkpoint
    from flax_transformer.interop.imported import save_imported
    from flax_transformer.outputs import check_new_folder

    check_new_folder(directory)
    folder, commit = find_checkpoint(source, revision)
    imported = import_checkpoint(folder, bare=bare)
    save_imported(directory, imported, source, commit)
    print(_summary(imported))
    print(f"wrote {', '.join(sorted(path.name for path in directory.iterdir()))} to {directory}")
    return 0


def _summary(imported: "Imported") -> str:
    record = imported.record
    count = sum(weight.size for weight in imported.weights.values())
    lines = [f"{record['model_type']}: {count:,} parameters in {len(imported.weights)} tensors"]
    if record["ignored_tensors"]:
        names = record["ignored_tensors"]
        lines.append(f"left out: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}")
    if imported.config.num_classes == 0 and imported.config.head_hidden == "none":
        flag = f"--model.head-hidden {record['head_hidden']}"
        lines.append(f"without a head: trained with {flag}, it can be exported for transformers again")
    if imported.generation:
        # The most tokens are those of the export already.
        fields = {name: value for name, value in imported.generation.items() if name != "max_new_tokens"}
        flags = " ".join(spelled(name, value) for name, value in fields.items())
        lines.append(f"the checkpoint generates with {flags or 'the defaults'}")
    if record["generation_not_carried"]:
        lines.append(f"not carried over: {', '.join(record['generation_not_carried'])}")
    return "\n".join(lines)
