"""``flax-transformer verify``: prove the PyTorch model equal to its JAX twin."""

import importlib.util
from collections.abc import Sequence

from flax_transformer.cli.common import PROGRAM, deferred, parse
from flax_transformer.errors import UserError


def verify(arguments: Sequence[str]) -> int:
    """Prove the PyTorch model of a run, an export or a preset equal to its JAX twin."""
    if importlib.util.find_spec("torch") is None:
        raise UserError("verify needs PyTorch, which is an extra: pip install 'flax-transformer[torch]'")
    from flax_transformer.parity.verify import verify as command
    from flax_transformer.runtime import set_up_jax

    run = parse(deferred(command), prog=f"{PROGRAM} verify", args=list(arguments))
    set_up_jax()
    return run()
