"""The training step: model -> loss -> gradients -> optimizer, one jitted function whose state is donated."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from flax_transformer.config import TrainConfig
from flax_transformer.data.batches import Batch, ClassifierBatch, MaskedBatch, MultilabelBatch, Seq2SeqBatch
from flax_transformer.data.packing import PackedClassifierBatch, PackedMaskedBatch, PackedSeq2SeqBatch
from flax_transformer.distributed.sharding import check_batch, create_mesh, on_mesh, row_sharding, state_shardings
from flax_transformer.nn.kernels.rngs import Rngs
from flax_transformer.nn.kernels.scan import stack_layers, unstack_layers
from flax_transformer.nn.losses import (
    binary_cross_entropy,
    binary_divergence,
    cross_entropy,
    divergence,
    shift_packed_target,
    shift_target,
    weighted_cross_entropy,
)
from flax_transformer.nn.masks import padding_mask
from flax_transformer.nn.models import Classifier, MaskedLM, Model, Seq2Seq, create_model
from flax_transformer.training.loss_scale import create_loss_scale, update_loss_scale
from flax_transformer.training.optim import create_optimizer, schedule, update_average
from flax_transformer.training.state import TrainState

Metrics = dict[str, Array]


class Predictions(NamedTuple):
    """What a model says at each row, token or segment of a batch, what is right there, and which of them count."""

    logits: Float[Array, "*batch classes"]
    labels: Int[Array, "*batch"] | Bool[Array, "*batch classes"]
    real: Bool[Array, "*batch"]


def batch_loss(
    model: Model,
    batch: Batch,
    label_smoothing: float = 0.0,
    rngs: nnx.Rngs | None = None,
    class_weights: Float[Array, " classes"] | None = None,
    r_drop: float = 0.0,
) -> tuple[Float[Array, ""], Num[Array, ""]]:
    """Summed loss of a batch, and the number of tokens, rows or labels that it is over, or the sum of their weights.

    With ``r_drop``, each row is read twice, so that both passes count.
    """
    if r_drop:
        # The two passes of a row side by side, and so on one device.
        batch = jax.tree.map(lambda rows: jnp.repeat(rows, 2, axis=0), batch)
    logits, labels, real = _predict(model, batch, rngs)
    if isinstance(batch, MultilabelBatch):
        loss_sum, count = binary_cross_entropy(logits, labels, real, label_smoothing, class_weights)
    elif class_weights is None:
        loss_sum, count = cross_entropy(logits, labels, real, label_smoothing)
    else:
        loss_sum, count = weighted_cross_entropy(logits, labels, real, class_weights, label_smoothing)
    if r_drop:
        between = binary_divergence if isinstance(batch, MultilabelBatch) else divergence
        loss_sum = loss_sum + r_drop * between(logits, real)
    return loss_sum, count


def _predict(model: Model, batch: Batch, rngs: nnx.Rngs | None) -> Predictions:
    match model, batch:
        case Classifier(), ClassifierBatch() | MultilabelBatch():
            logits = model(batch.source, batch.source_lengths, rngs=rngs)
            return Predictions(logits, batch.labels, batch.source_lengths > 0)
        case MaskedLM(), MaskedBatch():
            logits = model(batch.source, batch.positions, batch.source_lengths, rngs=rngs)
            return Predictions(logits, batch.labels, padding_mask(batch.counts, batch.labels.shape[1]))
        case Seq2Seq(), Seq2SeqBatch():
            decoder_input, labels, lengths = shift_target(batch.target, batch.target_lengths)
            logits = model(batch.source, decoder_input, batch.source_lengths, lengths, rngs=rngs)
            return Predictions(logits, labels, padding_mask(lengths, labels.shape[1]))
        case Classifier(), PackedClassifierBatch():
            segments, count = batch.source_segments, batch.labels.shape[1]
            logits = model(batch.source, source_segments=segments, num_segments=count, rngs=rngs)
            return Predictions(logits, batch.labels, batch.source_lengths > 0)
        case MaskedLM(), PackedMaskedBatch():
            logits = model(batch.source, batch.positions, source_segments=batch.source_segments, rngs=rngs)
            return Predictions(logits, batch.labels, padding_mask(batch.counts, batch.labels.shape[1]))
        case Seq2Seq(), PackedSeq2SeqBatch():
            segments = batch.source_segments
            decoder_input, labels, own, real = shift_packed_target(batch.target, batch.target_segments)
            logits = model(batch.source, decoder_input, source_segments=segments, target_segments=own, rngs=rngs)
            return Predictions(logits, labels, real)
    raise TypeError(f"expected a batch of the model's kind, got {type(batch).__name__} for {type(model).__name__}")


def count_tokens(batch: Batch) -> Int[Array, ""]:
    """Real tokens that a step reads, of source and target."""
    match batch:
        case PackedSeq2SeqBatch():
            return (batch.source_segments > 0).sum() + (batch.target_segments > 0).sum()
        case PackedClassifierBatch() | PackedMaskedBatch():
            return (batch.source_segments > 0).sum()
    tokens = batch.source_lengths.sum()
    return tokens + batch.target_lengths.sum() if isinstance(batch, Seq2SeqBatch) else tokens


def _compiler_options(config: TrainConfig, platform: str) -> dict[str, Any] | None:
    if platform == "gpu" and config.deterministic:
        return {"xla_gpu_deterministic_ops": True}
    if platform == "tpu":
        # Gathers weights that are cut along fsdp whole. By default XLA multiplies by one chip's part after the other:
        # hundreds of small transfers, and partial sums that are read and written for each.
        return {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}
    return None


class TrainStep:
    """Compiled once for each shape of batch: ``state, metrics = step(state, batch)``.

    The metrics stay on the device: whoever reads one waits for its step.

    Args:
        config: the run, with the vocabulary of its tokenizer filled in.
        total_steps: length of the schedule.
        mesh: of the devices; all of them by ``config.mesh`` if not given.
        class_weights: of a classifier's classes in the loss, or of the texts that have a label; all alike if not given.

    Raises:
        UserError: mesh and devices, or mesh and batch, do not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        total_steps: int,
        mesh: Mesh | None = None,
        class_weights: Float[np.ndarray, " classes"] | None = None,
    ) -> None:
        self.config, self._class_weights = config, class_weights
        self.mesh = create_mesh(config.mesh) if mesh is None else mesh
        check_batch(config, self.mesh)
        self.optimizer = create_optimizer(config.optimizer, total_steps)
        self.learning_rate = schedule(config.optimizer, total_steps)
        create = jax.jit(self._create)  # traced once, for its shapes and for its arrays
        self.graph, state = jax.eval_shape(create)
        self._is_frozen = [config.freezes(".".join(map(str, path))) for path, _ in nnx.to_flat_state(state.params)]
        self.abstract_state = on_mesh(state, self.mesh)
        shardings = state_shardings(self.abstract_state, self.mesh)
        self._step = jax.jit(
            self._apply,
            donate_argnums=0,
            in_shardings=(shardings, row_sharding(self.mesh)),
            out_shardings=(shardings, None),
            compiler_options=_compiler_options(config, self.mesh.devices.flat[0].platform),
        )
        self._init = jax.jit(lambda: create()[1], out_shardings=shardings)

    def init(self) -> TrainState:
        """Fresh weights and optimizer state, a function of the config's seed."""
        return self._init()

    def _create(self) -> tuple[nnx.GraphDef, TrainState]:
        graph, params = nnx.split(stack_layers(create_model(self.config.model, self.config.seed)))
        average = jax.tree.map(jnp.copy, params) if self.config.optimizer.ema_decay else None
        loss_scale = create_loss_scale() if self.config.model.dtype == "float16" else None
        return graph, TrainState(params, self.optimizer.init(params), jnp.zeros((), jnp.int32), average, loss_scale)

    def model(self, state: TrainState) -> Model:
        """The model with the state's weights, for evaluation and export."""
        return unstack_layers(nnx.merge(self.graph, state.weights))

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One optimizer step. ``state`` is donated: its arrays are gone afterwards.

        Returns:
            The new state, and ``loss`` (mean per real token or row), ``tokens``, ``grad_norm``, ``learning_rate`` and
            ``skipped``: whether loss or gradient were not finite, so that only the step number changed, and the loss
            scale of float16, which the metrics then hold too.
        """
        return self._step(state, batch)

    def lower(self, batch: Batch) -> jax.stages.Lowered:
        """The step for a batch of these (perhaps abstract) shapes, ready to be compiled for its mesh's platform."""
        return self._step.trace(self.abstract_state, batch).lower()

    def _apply(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            return self._update(state, batch)

    def _update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(self.config.seed), state.step)
        scale = None if state.loss_scale is None else state.loss_scale.scale
        loss_sum, count, gradients = self._gradients(state.params, batch, key, scale)
        count = jnp.where(count > 0, count, 1)
        gradients = self._unless_frozen(gradients, jax.tree.map(jnp.zeros_like, gradients))
        gradients = jax.tree.map(lambda gradient: gradient / count, gradients)
        grad_norm = optax.tree.norm(gradients)
        with jax.named_scope("optimizer"):
            updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.params)
            params: Any = self._unless_frozen(optax.apply_updates(state.params, updates), state.params)
            average = state.average
            if average is not None:
                average = update_average(average, params, state.step, self.config.optimizer.ema_decay)
        is_finite = jnp.isfinite(loss_sum) & jnp.isfinite(grad_norm)
        params, opt_state, average = jax.tree.map(
            lambda new, old: jnp.where(is_finite, new, old),
            (params, opt_state, average),
            (state.params, state.opt_state, state.average),
        )
        metrics = {
            "loss": loss_sum / count,
            "tokens": count_tokens(batch),
            "grad_norm": grad_norm,
            "learning_rate": self.learning_rate(state.step),
            "skipped": ~is_finite,
        }
        loss_scale = state.loss_scale
        if loss_scale is not None:
            metrics["loss_scale"] = loss_scale.scale
            loss_scale = update_loss_scale(loss_scale, is_finite)
        return TrainState(params, opt_state, state.step + 1, average, loss_scale), metrics

    def _unless_frozen(self, params: Any, frozen: Any) -> Any:
        """``params``, and ``frozen`` in place of those that keep their values."""
        leaves, structure = jax.tree.flatten(params)
        others = zip(self._is_frozen, leaves, jax.tree.leaves(frozen), strict=True)
        return structure.unflatten([old if keeps else new for keeps, new, old in others])

    def _gradients(
        self, params: nnx.State, batch: Batch, key: PRNGKeyArray, scale: Float[Array, ""] | None
    ) -> tuple[Array, Array, nnx.State]:
        """Summed loss, its count, and the gradient of the sum: part by part, the parts add up to the whole batch."""

        def loss(params: nnx.State, part: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Array, Array]]:
            model = nnx.merge(self.graph, params)
            weights = None if self._class_weights is None else jnp.asarray(self._class_weights)
            smoothing, r_drop = self.config.label_smoothing, self.config.r_drop
            loss_sum, count = batch_loss(model, part, smoothing, Rngs(dropout=key), weights, r_drop)
            return (loss_sum if scale is None else loss_sum * scale), (loss_sum, count)

        def gradient(part: Batch, key: PRNGKeyArray) -> tuple[Array, Array, nnx.State]:
            gradients, (loss_sum, count) = jax.grad(loss, has_aux=True)(params, part, key)
            if scale is not None:
                gradients = jax.tree.map(lambda gradient: gradient / scale, gradients)
            return loss_sum, count, gradients

        parts = self.config.gradient_accumulation_steps
        if parts == 1:
            return gradient(batch, key)

        def add(total: Any, part: tuple[Batch, PRNGKeyArray]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(*part)), None

        # Each part takes every n-th row, and so the same share of rows from every device.
        split = jax.tree.map(lambda rows: rows.reshape(-1, parts, *rows.shape[1:]).swapaxes(0, 1), batch)
        like_one_part = jax.eval_shape(gradient, jax.tree.map(lambda rows: rows[0], split), key)
        zero = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), like_one_part)
        total, _ = jax.lax.scan(add, zero, (split, jax.random.split(key, parts)))
        return total


@nnx.jit
def evaluate_loss(model: Model, batch: Batch) -> tuple[Float[Array, ""], Num[Array, ""]]:
    """Summed loss without dropout and smoothing, and the number of tokens or rows it is a sum over."""
    return batch_loss(model, batch)
