"""What can be wrong with a Transformer: for each cause its symptom, why it happens and what to do about it.

The order is that of a diagnosis: what stands higher is looked at first, and explains what stands lower.
"""

from flax_transformer.doctor.causes.attention import ATTENTION
from flax_transformer.doctor.causes.cause import Cause
from flax_transformer.doctor.causes.inputs import INPUTS
from flax_transformer.doctor.causes.training import TRAINING

__all__ = ["CAUSES", "RANK", "Cause", "explains"]

CAUSES: dict[str, Cause] = {cause.key: cause for cause in (*ATTENTION, *INPUTS, *TRAINING)}
RANK: dict[str, int] = {key: rank for rank, key in enumerate(CAUSES)}


def explains(cause: str, other: str) -> bool:
    """Whether a finding of ``other`` is a consequence of ``cause``."""
    return "everything" in CAUSES[cause].explains or other in CAUSES[cause].explains
