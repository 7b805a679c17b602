"""``flax-transformer export``: write what PyTorch reads."""

from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, deferred, parse


def export(arguments: Sequence[str]) -> int:
    """Write a run's best checkpoint as PyTorch reads it."""
    return parse(deferred(_export), prog=f"{PROGRAM} export", args=list(arguments) or ["--help"])()


def _export(run: Positional[Path], directory: Positional[Path]) -> int:
    """Write a run's best checkpoint in PyTorch's names and layouts, with all that it takes to predict.

    Args:
        run: folder of the run.
        directory: where to; must not exist, or be empty.
    """
    from flax_transformer.outputs import check_new_folder
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.run import Run

    check_new_folder(directory)
    loaded = Run.load(run)
    set_up_jax()
    loaded.export(directory)
    print(f"wrote {', '.join(sorted(path.name for path in directory.iterdir()))} to {directory}")
    return 0
