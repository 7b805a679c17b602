"""Mutants of several labels to a text; see :mod:`mutants`."""

from mutants import CLASSIFIER, Mutant

from flax_transformer.config import MultilabelData

LABELS = {**CLASSIFIER, "num_classes": 5}
TRAINING = {"data": MultilabelData()}
_T, _F = "torch_reference", "flax_transformer"


def _mutant(name: str, file: str, old: str, new: str, check: str, dtype: str = "float64") -> Mutant:
    return Mutant(name, file, old, new, check, LABELS, TRAINING, dtype)


MULTILABEL_MUTANTS = (
    _mutant(
        "softmax in place of the logistic function in the loss",
        f"{_T}/nn/losses.py",
        "targets * logsigmoid(logits)",
        "targets * torch.log_softmax(logits, dim=-1)",
        "loss",
    ),
    _mutant(
        "softmax in place of the logistic function in predictions",
        f"{_T}/decoding/labels.py",
        "torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))",
        "torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)",
        "labels",
    ),
    _mutant(
        "mean over texts in place of texts and labels",
        f"{_T}/nn/losses.py",
        "real.sum() * logits.shape[-1]",
        "real.sum()",
        "loss",
    ),
    _mutant(
        "mean over labels of filler too",
        f"{_F}/nn/losses.py",
        "real.sum() * logits.shape[-1]",
        "jnp.asarray(logits.size)",
        "loss",
    ),
    _mutant(
        "a label is said above its threshold only",
        f"{_T}/decoding/labels.py",
        "probabilities.double() >= ",
        "probabilities.double() > ",
        "labels",
    ),
    _mutant(
        "a label is said above its threshold only, in JAX",
        f"{_F}/decoding/labels.py",
        "np.asarray(probabilities, np.float64) >= ",
        "np.asarray(probabilities, np.float64) > ",
        "labels",
    ),
    _mutant(
        "positives and negatives exchanged",
        f"{_T}/nn/losses.py",
        "labels.to(logits.dtype)",
        "(~labels).to(logits.dtype)",
        "loss",
    ),
    _mutant(
        "weights on the negatives",
        f"{_T}/nn/losses.py",
        "losses = -(of_positives + (1.0 - targets) * logsigmoid(-logits))",
        "losses = -(targets * logsigmoid(logits) + (1.0 if positive_weights is None else positive_weights) * "
        "(1.0 - targets) * logsigmoid(-logits))",
        "loss",
    ),
    _mutant(
        "weights on both sides",
        f"{_F}/nn/losses.py",
        "losses = -(of_positives + (1.0 - targets) * jax.nn.log_sigmoid(-logits))",
        "losses = -(of_positives + (1.0 - targets) * jax.nn.log_sigmoid(-logits)) * "
        "(1.0 if positive_weights is None else positive_weights[None])",
        "loss",
    ),
    _mutant(
        "smoothing spread over the classes",
        f"{_T}/nn/losses.py",
        "label_smoothing / 2",
        "label_smoothing / logits.shape[-1]",
        "gradients",
    ),
    _mutant(
        "labels of filler rows in the loss",
        f"{_F}/nn/losses.py",
        "jnp.where(real[:, None], losses, 0).sum()",
        "losses.sum()",
        "gradients",
    ),
    _mutant(
        "logarithm of a rounded probability",
        f"{_T}/nn/losses.py",
        "(1.0 - targets) * logsigmoid(-logits)",
        "(1.0 - targets) * (1.0 - logits.sigmoid() + 1e-7).log()",
        "loss",
        "float32",
    ),
    _mutant(
        "labels rolled by one in training",
        f"{_T}/training/step.py",
        "binary_cross_entropy(logits, labels, real",
        "binary_cross_entropy(logits, labels.roll(1, dims=1), real",
        "step",
    ),
    _mutant(
        "divergence of labels not halved",
        f"{_T}/nn/losses.py",
        "between * (high - low) / 2",
        "between * (high - low)",
        "loss",
    ),
)
