"""``flax-transformer bench``: time both frameworks."""

from collections.abc import Sequence

from flax_transformer.cli.common import PROGRAM


def bench(arguments: Sequence[str]) -> int:
    """Time training, generation, attention and input, against PyTorch where it is installed."""
    from flax_transformer.bench.__main__ import main as command

    return command(arguments or ["--help"], f"{PROGRAM} bench")
