"""Where an imported model, and what was trained from it, comes from."""

import shutil
from pathlib import Path

SOURCE_FILE = "source.json"


def keep_source(origin: Path, folder: Path) -> None:
    """Copy the record of the import that a model began as, where ``origin`` has one."""
    if (origin / SOURCE_FILE).is_file():
        shutil.copyfile(origin / SOURCE_FILE, folder / SOURCE_FILE)
