"""``flax-transformer export``: write what PyTorch reads."""

from collections.abc import Sequence
from pathlib import Path

import tyro
from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, require_absent


def export(arguments: Sequence[str]) -> int:
    """Write a run's best checkpoint as PyTorch reads it."""
    return tyro.cli(_export, prog=f"{PROGRAM} export", args=list(arguments) or ["--help"])


def _export(run: Positional[Path], directory: Positional[Path]) -> int:
    """Write a run's best checkpoint in PyTorch's names and layouts, with config, tokenizer and the names of classes.

    Args:
        run: folder of the run.
        directory: where to; must not exist, or be empty.
    """
    from flax_transformer.interop.export import TOKENIZER_FILE, save_export
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.run import Run, save_classes

    if not directory.is_dir() or any(directory.iterdir()):
        require_absent(directory)
    loaded = Run.load(run)
    set_up_jax()
    save_export(directory, loaded.best_model())
    loaded.tokenizer.save(directory / TOKENIZER_FILE)
    if loaded.classes:
        save_classes(directory, loaded.classes)
    print(f"wrote {', '.join(sorted(path.name for path in directory.iterdir()))} to {directory}")
    return 0
