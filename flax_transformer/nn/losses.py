"""Cross entropy over what is real, as a sum and a count, so that parts of a batch add up to the loss of the whole."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@jax.named_scope("cross_entropy")
def cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Int[Array, "*batch"],
    real: Bool[Array, "*batch"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """``sum_i -[(1 - e) log p_i[y_i] + e/V sum_v log p_i[v]]`` over the real entries, and their number.

    The ratio of the two is torch.nn.CrossEntropyLoss with ``ignore_index`` on all other entries: smoothing spreads e
    over all V classes, the true one included (Szegedy et al., 2016, section 7), and the mean is over real entries.
    """
    classes = logits.shape[-1]
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # Against the largest: the loss of a sure and right answer is small, and must not be the difference of two large.
    logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    # A sum over the one that counts, not a lookup, whose gradient would be an array of its own.
    of_labels = jnp.where(jax.nn.one_hot(labels, classes, dtype=bool), logits, 0).sum(axis=-1)
    losses = jnp.log(jnp.exp(logits).sum(axis=-1)) - (1.0 - label_smoothing) * of_labels
    if label_smoothing:
        losses = losses - label_smoothing / classes * logits.sum(axis=-1)
    return jnp.where(real, losses, 0).sum(), real.sum()


@jax.named_scope("weighted_cross_entropy")
def weighted_cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Int[Array, "*batch"],
    real: Bool[Array, "*batch"],
    class_weights: Float[Array, " classes"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """``sum_i -[(1 - e) w[y_i] log p_i[y_i] + e/V sum_v w[v] log p_i[v]]`` over the real entries, and ``sum_i w[y_i]``.

    The ratio of the two is torch.nn.CrossEntropyLoss with ``weight``.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    of_classes = jnp.broadcast_to(class_weights.astype(logits.dtype), logits.shape)
    losses = -of_classes * jax.nn.log_softmax(logits, axis=-1)
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    weights = jnp.where(is_label, of_classes, 0).sum(axis=-1)
    of_labels = jnp.where(is_label, losses, 0).sum(axis=-1)
    smoothed = (1.0 - label_smoothing) * of_labels + label_smoothing * losses.mean(axis=-1)
    return jnp.where(real, smoothed, 0).sum(), jnp.where(real, weights, 0).sum()


@jax.named_scope("binary_cross_entropy")
def binary_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Bool[Array, "batch classes"],
    real: Bool[Array, " batch"],
    label_smoothing: float = 0.0,
    positive_weights: Float[Array, " classes"] | None = None,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """``sum_ic -[w[c] y_ic log s(x_ic) + (1 - y_ic) log s(-x_ic)]`` over the real rows i, and their number times the
    classes c; s is the logistic function.

    ``y_ic`` is ``1 - e/2`` where row i has label c and ``e/2`` where not: smoothing spreads e over the two outcomes.
    The ratio of the two is torch.nn.BCEWithLogitsLoss with ``pos_weight``, of such targets.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    targets = (1.0 - label_smoothing) * labels.astype(logits.dtype) + label_smoothing / 2
    # The logarithm of the logistic function, not of a probability, which would be 0 or 1 for a large logit.
    of_positives = targets * jax.nn.log_sigmoid(logits)
    if positive_weights is not None:
        of_positives = positive_weights.astype(logits.dtype)[None] * of_positives
    losses = -(of_positives + (1.0 - targets) * jax.nn.log_sigmoid(-logits))
    return jnp.where(real[:, None], losses, 0).sum(), real.sum() * logits.shape[-1]


@jax.named_scope("divergence")
def divergence(logits: Float[Array, "*batch classes"], real: Bool[Array, "*batch"]) -> Float[Array, ""]:
    """``sum_i (KL(p_i || q_i) + KL(q_i || p_i)) / 2`` over the real entries, of the predictions in rows 2n and 2n + 1.

    The second term of R-Drop's loss (Liang et al., 2021, section 2.2); both sides have a gradient.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_p, log_q = (jax.nn.log_softmax(logits[row::2], axis=-1) for row in range(2))
    # The two sums in one, whose terms are never negative.
    divergences = ((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q)).sum(axis=-1) / 2
    return jnp.where(real[::2], divergences, 0).sum()


@jax.named_scope("binary_divergence")
def binary_divergence(logits: Float[Array, "rows classes"], real: Bool[Array, " rows"]) -> Float[Array, ""]:
    """:func:`divergence` of the distributions (p, 1 - p) of each class, summed over the classes too."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    low, high = jnp.minimum(logits[::2], logits[1::2]), jnp.maximum(logits[::2], logits[1::2])
    # (p - q) times the difference of the logits, but without a difference of two probabilities that are both near 1.
    between = jax.nn.sigmoid(high) * jax.nn.sigmoid(-low) * -jnp.expm1(low - high)
    divergences = between * (high - low) / 2
    return jnp.where(real[::2, None], divergences, 0).sum()


def shift_target(
    target: Int[Array, "batch length"], target_lengths: Int[Array, " batch"]
) -> tuple[Int[Array, "batch length-1"], Int[Array, "batch length-1"], Int[Array, " batch"]]:
    """Teacher forcing: the decoder reads the target without its last token and is to say it without its first.

    Returns:
        Decoder input, labels, and the length that both have.
    """
    return target[:, :-1], target[:, 1:], jnp.maximum(target_lengths - 1, 0)


def shift_packed_target(
    target: Int[Array, "batch length"], segments: Int[Array, "batch length"]
) -> tuple[
    Int[Array, "batch length-1"],
    Int[Array, "batch length-1"],
    Int[Array, "batch length-1"],
    Bool[Array, "batch length-1"],
]:
    """Teacher forcing within each segment: what follows its last token is the next segment's, and no label of it.

    Returns:
        Decoder input, labels, the segments of the input, and which labels are real.
    """
    decoder_input, labels = target[:, :-1], target[:, 1:]
    own, following = segments[:, :-1], segments[:, 1:]
    return decoder_input, labels, own, (own == following) & (own > 0)
