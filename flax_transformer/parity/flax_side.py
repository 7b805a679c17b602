"""The JAX twin as functions of numpy arrays; each has its twin in :mod:`flax_transformer.parity.torch_side`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Bool, Float, Int

from flax_transformer.config import GenerationConfig, ModelConfig, TrainConfig
from flax_transformer.data.batches import MultilabelBatch, PaddedBatch, Seq2SeqBatch
from flax_transformer.decoding import generate as generation
from flax_transformer.decoding import labels
from flax_transformer.intermediates import Recorder, recording
from flax_transformer.interop import state_dict as bridge
from flax_transformer.nn import linear, losses, models
from flax_transformer.nn.kernels.rngs import Rngs
from flax_transformer.nn.kernels.scan import stack_layers, unstack_layers
from flax_transformer.parity.measure import Arrays
from flax_transformer.parity.torch_side import OptimizerState, Outcome
from flax_transformer.training import optim
from flax_transformer.training import step as training
from flax_transformer.training.loss_scale import create_loss_scale
from flax_transformer.training.matrices import is_hidden_matrix


def to_numpy(array: Any) -> np.ndarray:
    """On the host; half precision as float32, since numpy lacks bfloat16."""
    return np.asarray(array.astype(jnp.float32) if array.dtype.itemsize == 2 else array)


@functools.lru_cache(maxsize=64)
def _abstract_model(config: ModelConfig) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: models.create_model(config, 0)))


def _graph_and_params(config: ModelConfig, weights: Arrays) -> tuple[nnx.GraphDef, nnx.State]:
    graph, abstract = _abstract_model(config)
    return graph, _to_state(abstract, bridge.from_torch(weights))


def _to_state(like: nnx.State, arrays: Arrays) -> nnx.State:
    flat = nnx.to_flat_state(like)
    bridge.check_weights({_dotted(path): variable.shape for path, variable in flat}, arrays)
    return nnx.from_flat_state(
        [(path, variable.replace(jnp.array(arrays[_dotted(path)], variable.dtype))) for path, variable in flat]
    )


def _dotted(path: Sequence[Any]) -> str:
    return ".".join(map(str, path))


def _from_state(state: nnx.State) -> Arrays:
    """Parameters, gradients or moments, in PyTorch's names and layouts."""
    flat = {_dotted(path): np.array(variable[...]) for path, variable in nnx.to_flat_state(state)}
    return bridge.to_torch(flat)


def _names(model: nnx.Module) -> dict[int, str]:
    return {id(node): _dotted(path) for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Module)}


def _loss_and_intermediates(
    graph: nnx.GraphDef, smoothing: float, r_drop: float, params: nnx.State, batch: PaddedBatch, feed: Any, key: Any
) -> Any:
    model = nnx.merge(graph, params)
    rngs = None if key is None else Rngs(dropout=key)
    with recording(Recorder(_names(model), feed)) as recorder:
        loss_sum, count = training.batch_loss(model, batch, smoothing, rngs, r_drop=r_drop)
    # The compiler may sort a dictionary; two tuples keep the order of execution.
    _order_of_intermediates[graph] = tuple(recorder.values)
    return loss_sum / jnp.maximum(count, 1), (count, recorder.values)


_order_of_intermediates: dict[nnx.GraphDef, tuple[str, ...]] = {}
_forward = jax.jit(_loss_and_intermediates, static_argnums=(0, 1, 2))
_backward = jax.jit(jax.value_and_grad(_loss_and_intermediates, argnums=3, has_aux=True), static_argnums=(0, 1, 2))


def run(
    config: TrainConfig,
    weights: Arrays,
    batch: PaddedBatch,
    *,
    feed: Arrays | None = None,
    dropout_step: int | None = None,
    gradients: bool = False,
) -> Outcome:
    """One forward pass, and backward if asked for.

    Args:
        feed: intermediate name -> what the rest of the model is to go on with.
        dropout_step: switches dropout on, with the keys that training has in this step.
    """
    graph, params = _graph_and_params(config.model, weights)
    key = None if dropout_step is None else dropout_keys(config, dropout_step)[0]
    batch = jax.tree.map(jnp.asarray, batch)  # or uncompiled code would see numpy's arrays
    r_drop = 0.0 if dropout_step is None else config.r_drop
    arguments = (graph, config.label_smoothing, r_drop, params, batch, dict(feed or {}), key)
    if gradients:
        (loss, (count, intermediates)), of_params = _backward(*arguments)
    else:
        (loss, (count, intermediates)), of_params = _forward(*arguments), None
    return Outcome(
        loss=to_numpy(loss),
        count=int(count),
        intermediates={
            name: to_numpy(intermediates[name]) for name in _order_of_intermediates[graph] if name in intermediates
        },
        gradients={} if of_params is None else dict(_from_state(of_params)),
    )


def dropout_keys(config: TrainConfig, step: int) -> list[jax.Array]:
    """The key of each accumulated part, as the training step draws them."""
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    return (
        [key]
        if config.gradient_accumulation_steps == 1
        else list(jax.random.split(key, config.gradient_accumulation_steps))
    )


def keep_masks(config: TrainConfig, batch: PaddedBatch, step: int) -> list[Arrays]:
    """The dropout masks of each accumulated part of a training step. They depend on shapes and keys alone."""
    graph, abstract = _abstract_model(config.model)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)
    split = jax.tree.map(lambda rows: rows.reshape(config.gradient_accumulation_steps, -1, *rows.shape[1:]), batch)
    masks = []
    for part, key in enumerate(dropout_keys(config, step)):
        rows = jax.tree.map(lambda array, part=part: array[part], split)
        _, (_, intermediates) = _forward(graph, config.label_smoothing, config.r_drop, params, rows, {}, key)
        masks.append({name: np.asarray(mask) for name, mask in intermediates.items() if name.endswith("keep")})
    return masks


def norm(config: ModelConfig, x: Float[np.ndarray, "rows d_model"]) -> Float[np.ndarray, "rows d_model"]:
    """A fresh norm layer."""
    return np.asarray(jax.jit(lambda x: linear.norm_layer(config, rngs=nnx.Rngs(0))(x))(x))


def clip(gradients: Arrays, max_norm: float) -> dict[str, np.ndarray]:
    @jax.jit
    def apply(gradients: dict[str, jax.Array]) -> Any:
        return optim.clip_by_global_norm(max_norm).update(gradients, optax.EmptyState())[0]

    return {name: np.asarray(g) for name, g in apply(dict(gradients)).items()}


def learning_rates(config: TrainConfig, total_steps: int) -> Float[np.ndarray, " steps"]:
    """What the schedule gives on the device, step by step, in the parameters' dtype."""
    rate = optim.schedule(config.optimizer, total_steps)
    return np.array([rate(step) for step in range(total_steps)]).astype(config.model.param_dtype)


@functools.lru_cache(maxsize=32)
def _train_step(kind: type, config: TrainConfig, total_steps: int, x64: bool) -> training.TrainStep:
    """Compiled once for all cases of one config."""
    return kind(config, total_steps)


class Trainer:
    """Training from given weights, with the whole state open to be read and set."""

    def __init__(self, config: TrainConfig, weights: Arrays, total_steps: int) -> None:
        in_float64 = jnp.result_type(float) == jnp.float64
        self.step = _train_step(training.TrainStep, config, total_steps, in_float64)
        self._model = config.model
        zeros = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.state = OptimizerState(weights, zeros, zeros, 0)

    @property
    def state(self) -> OptimizerState:
        mean, square, momentum = (
            optax.tree_utils.tree_get(self._state.opt_state, name) for name in ("mean", "square", "momentum")
        )
        if momentum is not None:  # of Muon, whose matrices have no mean of squares
            mean = nnx.merge_state(mean, momentum)
            square = nnx.merge_state(square, jax.tree.map(jnp.zeros_like, momentum))
        params, mean, square = map(self._layer_by_layer, (self._state.params, mean, square))
        return OptimizerState(params, mean, square, int(self._state.step))

    @state.setter
    def state(self, state: OptimizerState) -> None:
        params, mean, square = map(self.as_trained, (state.weights, state.mean, state.square))
        moments: dict[str, nnx.State] = {"mean": mean, "square": square}
        if self.step.config.optimizer.name == "muon":
            moments["momentum"], moments["mean"] = nnx.split_state(mean, is_hidden_matrix, ...)
            _, moments["square"] = nnx.split_state(square, is_hidden_matrix, ...)
        opt_state = optax.tree_utils.tree_set(
            self.step.optimizer.init(params), **moments, count=jnp.array(state.count, jnp.int32)
        )
        # The step donates its state: no two of its arrays may share a buffer.
        loss_scale = create_loss_scale() if self._model.dtype == "float16" else None
        self._state = training.TrainState(
            params, jax.tree.map(jnp.array, opt_state), jnp.array(state.count, jnp.int32), None, loss_scale
        )

    def as_trained(self, arrays: Arrays) -> nnx.State:
        """Parameters, gradients or moments as the training step has them, whose layers may be stacked."""
        return nnx.state(stack_layers(nnx.merge(*_graph_and_params(self._model, arrays))))

    def _layer_by_layer(self, state: nnx.State) -> Arrays:
        """The inverse."""
        return _from_state(nnx.state(unstack_layers(nnx.merge(self.step.graph, state))))

    def __call__(self, batch: PaddedBatch) -> dict[str, float]:
        self._state, metrics = self.step(self._state, batch)
        return {name: float(value) for name, value in metrics.items()}


def update(config: TrainConfig, state: OptimizerState, gradients: Sequence[Arrays], total_steps: int) -> OptimizerState:
    """The optimizer alone, fed with gradients: as many steps as there are."""
    trainer = Trainer(config, state.weights, total_steps)
    trainer.state = state
    params, opt_state = trainer._state.params, trainer._state.opt_state
    step = _optimizer_step(trainer.step)
    for of_step in gradients:
        params, opt_state = step(trainer.as_trained(of_step), opt_state, params)
    trainer._state = training.TrainState(params, opt_state, jnp.asarray(state.count + len(gradients), jnp.int32))
    return trainer.state


@functools.lru_cache(maxsize=32)
def _optimizer_step(step: training.TrainStep) -> Callable:
    @jax.jit
    def apply(gradients: nnx.State, opt_state: Any, params: nnx.State) -> tuple[Any, Any]:
        updates, opt_state = step.optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return apply


@functools.partial(jax.jit, static_argnums=0)
def _project_memory(graph: nnx.GraphDef, params: nnx.State, source: Any, lengths: Any) -> Any:
    model = nnx.merge(graph, params)
    return model.decoder.project_memory(model.encode(source, lengths), lengths)


@functools.partial(jax.jit, static_argnums=0)
def _decode_one(
    graph: nnx.GraphDef, params: nnx.State, token: Any, memory: Any, lengths: Any, cache: Any, at: Any
) -> Any:
    return nnx.merge(graph, params).decode(token, memory, lengths, offset=at, cache=cache)


def label_probabilities(
    config: ModelConfig, weights: Arrays, batch: MultilabelBatch
) -> Float[np.ndarray, "batch classes"]:
    """Of each label of each text."""
    graph, params = _graph_and_params(config, weights)
    source, lengths = jnp.asarray(batch.source), jnp.asarray(batch.source_lengths)
    return to_numpy(labels.label_probabilities(nnx.merge(graph, params), source, lengths))


def decide_labels(
    probabilities: Float[np.ndarray, "batch classes"], thresholds: Sequence[float]
) -> Bool[np.ndarray, "batch classes"]:
    return labels.decide_labels(jnp.asarray(probabilities), thresholds)


def decode_cached(config: ModelConfig, weights: Arrays, batch: Seq2SeqBatch) -> Float[np.ndarray, "batch target vocab"]:
    """Logits of the decoder's input, one token at a time over the cache."""
    graph, params = _graph_and_params(config, weights)
    memory = _project_memory(graph, params, batch.source, batch.source_lengths)
    decoder_input, _, _ = losses.shift_target(jnp.asarray(batch.target), jnp.asarray(batch.target_lengths))
    cache = nnx.merge(graph, params).empty_cache(*decoder_input.shape)
    steps = []
    for offset in range(decoder_input.shape[1]):
        token = decoder_input[:, offset : offset + 1]
        logits, cache = _decode_one(graph, params, token, memory, batch.source_lengths, cache, jnp.int32(offset))
        steps.append(to_numpy(logits))
    return np.concatenate(steps, axis=1)


def beam_search(
    config: ModelConfig, weights: Arrays, batch: Seq2SeqBatch, search: GenerationConfig
) -> Int[np.ndarray, "batch new"]:
    """The best tokens that a beam search finds."""
    model = nnx.merge(*_graph_and_params(config, weights))
    return np.asarray(generation.generate(model, batch.source, batch.source_lengths, search).tokens)


def generate(
    config: ModelConfig, weights: Arrays, batch: Seq2SeqBatch, new_tokens: int
) -> Int[np.ndarray, "batch new"]:
    """Greedy tokens."""
    model = nnx.merge(*_graph_and_params(config, weights))
    generated = generation.generate(model, batch.source, batch.source_lengths, GenerationConfig(new_tokens))
    return np.asarray(generated.tokens)
