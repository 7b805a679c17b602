"""Which labels a text has: the probability of each, and those that reach their thresholds."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_reference.nn.models import Classifier


def logistic(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """The probability of each label by its own logit, in at least float32."""
    return torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))


@torch.inference_mode()
def label_probabilities(
    model: Classifier, source: Int[Tensor, "batch source"], source_lengths: Int[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """The logistic function of each logit, in at least float32: each label is decided by itself.

    Args:
        source: token ids, (batch, source), right-padded.
        source_lengths: real tokens of each text, (batch,).

    Returns:
        (batch, classes).
    """
    return logistic(model(source, source_lengths))


def decide_labels(
    probabilities: Float[Tensor, "batch classes"], thresholds: Sequence[float]
) -> Bool[Tensor, "batch classes"]:
    """Whether each label's probability is at least its threshold; compared in float64, as thresholds are stored."""
    return probabilities.double() >= torch.tensor(thresholds, dtype=torch.float64, device=probabilities.device)
