"""Checkpoints of the Hugging Face hub."""

import re
from pathlib import Path

from flax_transformer.errors import UserError

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# Never the formats that hold code.
_FILES = ("*.json", "*.safetensors")


def find_checkpoint(source: str, revision: str | None = None) -> tuple[Path, str | None]:
    """The folder of a checkpoint, and the commit that it was downloaded from; None of a local folder.

    Args:
        source: a folder, or the name of a model on the hub such as ``google-bert/bert-base-uncased``.
        revision: of the hub, a branch, tag or commit; the newest if not given.

    Raises:
        UserError: it is neither, or the hub cannot be reached.
    """
    folder = Path(source)
    if folder.exists() or not _HUB_ID.fullmatch(source):
        if revision is not None:
            raise UserError(f"--revision: expected a model of the hub, got the folder {source}")
        return folder, None
    from huggingface_hub import snapshot_download

    try:
        # In the cache, a snapshot lies in a folder that is named after its commit.
        snapshot = Path(snapshot_download(source, revision=revision, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{source}: expected a folder, or a model that the hub or its cache has ({type(error).__name__}: {reason})"
        ) from error
    return snapshot, snapshot.name
