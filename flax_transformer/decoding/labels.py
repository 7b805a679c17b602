"""Which labels a text has: the probability of each, and those that reach their thresholds."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flax_transformer.nn.models import Classifier


def logistic(logits: Float[Array, "batch classes"]) -> Float[Array, "batch classes"]:
    """The probability of each label by its own logit, in at least float32."""
    return jax.nn.sigmoid(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))


@nnx.jit
def label_probabilities(
    model: Classifier, source: Int[Array, "batch source"], source_lengths: Int[Array, " batch"]
) -> Float[Array, "batch classes"]:
    """The logistic function of each logit, in at least float32: each label is decided by itself.

    Args:
        source: token ids, (batch, source), right-padded.
        source_lengths: real tokens of each text, (batch,).

    Returns:
        (batch, classes).
    """
    return logistic(model(source, source_lengths))


def decide_labels(
    probabilities: Float[Array | np.ndarray, "batch classes"], thresholds: Sequence[float]
) -> Bool[np.ndarray, "batch classes"]:
    """Whether each label's probability is at least its threshold; compared in float64, as thresholds are stored."""
    return np.asarray(probabilities, np.float64) >= np.asarray(thresholds, np.float64)
