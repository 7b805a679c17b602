"""Training that starts from weights that are there already: an import, an export, or the best checkpoint of a run."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flax_transformer.config import ModelConfig, TrainConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.state_dict import get_weights, to_params
from flax_transformer.nn.kernels.scan import stack_layers
from flax_transformer.nn.models import create_model
from flax_transformer.training.run import Run
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import TrainStep

# What a training may choose anew: nothing that the weights to be kept rely on.
_FREE = {
    "dropout",
    "attention_dropout",
    "feed_forward_dropout",
    "head_dropout",
    "initialization",
    "num_classes",
    "pooling",
    "head_hidden",
    "attention_backend",
    "remat",
    "scan_layers",
    "dtype",
    "param_dtype",
}
# A state, the modules whose weights are new in it, and the trained weights that are left out.
Start = tuple[TrainState, list[str], list[str]]
_OF_DECODERS = {"num_decoder_layers", "target_vocab_size", "tie_embeddings"}


def require_model_of(source: Run | Exported, model: ModelConfig) -> None:
    """Raises :class:`UserError` where ``model`` is not the model of ``source`` but for what may be chosen anew."""
    free = set(_FREE)
    if model.positions != "learned":
        free |= {"max_length"}
    if model.architecture != "seq2seq":
        free |= _OF_DECODERS
    if (source.model_config.architecture, model.architecture) == ("masked", "classifier"):
        free |= {"architecture"}
    for name, expected in vars(source.model_config).items():
        found = getattr(model, name)
        if name not in free and found != expected:
            raise UserError(
                f"model.{name}: expected {expected!r}, as the model in {source.folder} has it, got {found!r}"
            )


def start_from(source: Run | Exported, config: TrainConfig, classes: Sequence[str], step: TrainStep) -> Start:
    """A fresh state with the weights of ``source``. The head is kept where the classes are the same; else it is new.

    Of a model of masked tokens a classifier takes the encoder.

    Args:
        config: of the training, whose model :func:`require_model_of` has found to fit.
        classes: of the training.

    Returns:
        The state, the modules whose weights are new, and the weights of ``source`` that are left out.

    Raises:
        UserError: the weights are missing or damaged.
    """
    model = create_model(config.model, config.seed)
    fresh, trained = get_weights(model), get_weights(source.best_model())
    same_classes = tuple(classes) == source.classes
    kept = {name for name in fresh.keys() & trained.keys() if same_classes or not name.startswith("head.")}
    graph, params = nnx.split(model)
    params = to_params(params, {name: (trained if name in kept else fresh)[name] for name in fresh})
    params = nnx.state(stack_layers(nnx.merge(graph, params)))
    new = sorted({name.rpartition(".")[0] for name in fresh.keys() - kept})
    left_out = sorted(trained.keys() - fresh.keys())
    params = jax.tree.map(_place, params, step.abstract_state.params)
    state = step.init()
    average = None if state.average is None else jax.tree.map(jnp.copy, params)
    return state._replace(params=params, average=average), new, left_out


def _place(weight: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """A weight, which every process has, on the devices that are to hold it."""
    on_host = np.asarray(weight)
    return jax.make_array_from_callback(like.shape, like.sharding, lambda part: on_host[part])
