"""``flax-transformer doctor``: examine a Transformer of anybody's."""

from collections.abc import Sequence

from flax_transformer.cli.common import PROGRAM, parse


def doctor(arguments: Sequence[str]) -> int:
    """Examine a Transformer of anybody's, in PyTorch or JAX."""
    from flax_transformer.doctor.command import DoctorFlags
    from flax_transformer.doctor.command import doctor as command

    return command(parse(DoctorFlags, prog=f"{PROGRAM} doctor", args=list(arguments) or ["--help"]))
