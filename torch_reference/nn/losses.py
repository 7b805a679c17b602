"""Cross entropy over what is real, as a sum and a count, so that parts of a batch add up to the loss of the whole."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid


def cross_entropy(
    logits: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    real: Bool[Tensor, "*batch"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """``sum_i -[(1 - e) log p_i[y_i] + e/V sum_v log p_i[v]]`` over the real entries, and their number.

    The ratio of the two is torch.nn.CrossEntropyLoss with ``ignore_index`` on all other entries: smoothing spreads e
    over all V classes, the true one included (Szegedy et al., 2016, section 7), and the mean is over real entries.
    """
    log_probabilities = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    of_labels = log_probabilities.gather(-1, labels[..., None].long())[..., 0]
    losses = -(1.0 - label_smoothing) * of_labels
    if label_smoothing:
        losses = losses - label_smoothing / logits.shape[-1] * log_probabilities.sum(dim=-1)
    return torch.where(real, losses, 0).sum(), real.sum()


def weighted_cross_entropy(
    logits: Float[Tensor, "*batch classes"],
    labels: Int[Tensor, "*batch"],
    real: Bool[Tensor, "*batch"],
    class_weights: Float[Tensor, " classes"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """``sum_i -[(1 - e) w[y_i] log p_i[y_i] + e/V sum_v w[v] log p_i[v]]`` over the real entries, and ``sum_i w[y_i]``.

    The ratio of the two is torch.nn.CrossEntropyLoss with ``weight``.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    of_classes = class_weights.to(logits.dtype)
    losses = -of_classes * torch.log_softmax(logits, dim=-1)
    weights = of_classes[labels.long()]
    of_labels = losses.gather(-1, labels[..., None].long())[..., 0]
    smoothed = (1.0 - label_smoothing) * of_labels + label_smoothing * losses.mean(dim=-1)
    return torch.where(real, smoothed, 0).sum(), torch.where(real, weights, 0).sum()


def binary_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Bool[Tensor, "batch classes"],
    real: Bool[Tensor, " batch"],
    label_smoothing: float = 0.0,
    positive_weights: Float[Tensor, " classes"] | None = None,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """``sum_ic -[w[c] y_ic log s(x_ic) + (1 - y_ic) log s(-x_ic)]`` over the real rows i, and their number times the
    classes c; s is the logistic function.

    ``y_ic`` is ``1 - e/2`` where row i has label c and ``e/2`` where not: smoothing spreads e over the two outcomes.
    The ratio of the two is torch.nn.BCEWithLogitsLoss with ``pos_weight``, of such targets.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = (1.0 - label_smoothing) * labels.to(logits.dtype) + label_smoothing / 2
    # The logarithm of the logistic function, not of a probability, which would be 0 or 1 for a large logit.
    of_positives = targets * logsigmoid(logits)
    if positive_weights is not None:
        of_positives = positive_weights.to(logits.dtype) * of_positives
    losses = -(of_positives + (1.0 - targets) * logsigmoid(-logits))
    return torch.where(real[:, None], losses, 0).sum(), real.sum() * logits.shape[-1]


def divergence(logits: Float[Tensor, "*batch classes"], real: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """``sum_i (KL(p_i || q_i) + KL(q_i || p_i)) / 2`` over the real entries, of the predictions in rows 2n and 2n + 1.

    The second term of R-Drop's loss (Liang et al., 2021, section 2.2); both sides have a gradient.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_p, log_q = (torch.log_softmax(logits[row::2], dim=-1) for row in range(2))
    # The two sums in one, whose terms are never negative.
    divergences = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=-1) / 2
    return torch.where(real[::2], divergences, 0).sum()


def binary_divergence(logits: Float[Tensor, "rows classes"], real: Bool[Tensor, " rows"]) -> Float[Tensor, ""]:
    """:func:`divergence` of the distributions (p, 1 - p) of each class, summed over the classes too."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    low, high = torch.minimum(logits[::2], logits[1::2]), torch.maximum(logits[::2], logits[1::2])
    # (p - q) times the difference of the logits, but without a difference of two probabilities that are both near 1.
    between = torch.sigmoid(high) * torch.sigmoid(-low) * -torch.expm1(low - high)
    divergences = between * (high - low) / 2
    return torch.where(real[::2, None], divergences, 0).sum()


def shift_target(
    target: Int[Tensor, "batch length"], target_lengths: Int[Tensor, " batch"]
) -> tuple[Int[Tensor, "batch length-1"], Int[Tensor, "batch length-1"], Int[Tensor, " batch"]]:
    """Teacher forcing: the decoder reads the target without its last token and is to say it without its first.

    Returns:
        Decoder input, labels, and the length that both have.
    """
    return target[:, :-1], target[:, 1:], (target_lengths - 1).clamp(min=0)


def shift_packed_target(
    target: Int[Tensor, "batch length"], segments: Int[Tensor, "batch length"]
) -> tuple[
    Int[Tensor, "batch length-1"],
    Int[Tensor, "batch length-1"],
    Int[Tensor, "batch length-1"],
    Bool[Tensor, "batch length-1"],
]:
    """Teacher forcing within each segment: what follows its last token is the next segment's, and no label of it.

    Returns:
        Decoder input, labels, the segments of the input, and which labels are real.
    """
    decoder_input, labels = target[:, :-1], target[:, 1:]
    own, following = segments[:, :-1], segments[:, 1:]
    return decoder_input, labels, own, (own == following) & (own > 0)
