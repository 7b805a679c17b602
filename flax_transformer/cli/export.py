"""``flax-transformer export``: write a trained model for PyTorch, or for Hugging Face's transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, deferred, parse
from flax_transformer.errors import UserError


def export(arguments: Sequence[str]) -> int:
    """Write a trained model for PyTorch, or for transformers."""
    return parse(deferred(_export), prog=f"{PROGRAM} export", args=list(arguments) or ["--help"])()


def _export(
    run: Positional[Path],
    directory: Positional[Path],
    file_format: Annotated[Literal["torch", "hf"], tyro.conf.arg(name="format")] = "torch",
) -> int:
    """Write a run's best checkpoint, with all that it takes to predict.

    Args:
        run: folder of the run; for hf also of an export.
        directory: where to; must not exist, or be empty.
        file_format: torch: what both twins load; hf: what transformers loads, where it has a class for the model.
    """
    from flax_transformer.outputs import check_new_folder
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.run import Run, load_trained

    check_new_folder(directory)
    loaded = Run.load(run) if file_format == "torch" else load_trained(run)
    set_up_jax()
    if isinstance(loaded, Run) and file_format == "torch":
        loaded.export(directory)
    else:
        from flax_transformer.interop.imported import export_huggingface

        if loaded.model_config.architecture == "masked":
            raise UserError(
                f"--format hf: expected a classifier or a seq2seq model, got {run}, which predicts masked tokens; "
                f"train a classifier from it (--pretrained {run}) and export that"
            )
        print(f"{export_huggingface(loaded, directory)} of transformers reads it")
    print(f"wrote {', '.join(sorted(path.name for path in directory.iterdir()))} to {directory}")
    return 0
