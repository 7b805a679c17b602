"""How the layers of a stack are made and run: one by one, or stacked and run as a loop (``jax.lax.scan``).

Stacked layers have their weights one after the other along a first axis, and the training step is compiled for one
layer, however many there are. Only training knows them so: a model that is evaluated, generates or is exported has its
layers one by one, and so do the names of its weights.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from flax_transformer.config import ModelConfig
from flax_transformer.intermediates import is_recording
from flax_transformer.nn.kernels.flash import FLASH_OUTPUTS
from flax_transformer.nn.kernels.rngs import Rngs

Model = TypeVar("Model", bound=nnx.Module)
Layer = TypeVar("Layer", bound=nnx.Module)
# One by one, or stacked.
Layers = Sequence[Layer] | Layer
Sequences = Float[Array, "batch length d_model"]

# remat -> what of a layer is kept for the backward pass, besides its inputs.
_policies = jax.checkpoint_policies
_KEPT = {
    "dots": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names(FLASH_OUTPUTS)
    ),
    "full": _policies.nothing_saveable,
}


def create_layers(kind: Callable[..., Layer], config: ModelConfig, count: int, rngs: nnx.Rngs) -> nnx.List[Layer]:
    """Layers with the weights that they would draw one after the other, by a program of the size of one."""
    stream = rngs.params
    key = stream.key.get_value()
    drawn, stacked = _draw(kind, config, count, key, jnp.asarray(stream.count.get_value()))
    stream.count.set_value(drawn)
    graph = nnx.graphdef(nnx.eval_shape(lambda: kind(config, rngs=Rngs(params=key))))
    return _unstacked(graph, stacked, count)


@partial(jax.jit, static_argnums=(0, 1, 2))  # compiled once for all models of a config
def _draw(
    kind: Callable[..., nnx.Module], config: ModelConfig, count: int, key: PRNGKeyArray, drawn: Array
) -> tuple[Array, nnx.State]:
    """The stacked weights of ``count`` layers, and how many keys are drawn after them."""

    def draw_one(drawn: Array, _: None) -> tuple[Array, nnx.State]:
        own = Rngs(params=key)
        own.params.count.set_value(drawn)
        layer = kind(config, rngs=own)
        return own.params.count.get_value(), nnx.state(layer)

    return jax.lax.scan(draw_one, drawn, length=count)


def _unstacked(graph: nnx.GraphDef, stacked: nnx.State, count: int) -> nnx.List[Any]:
    return nnx.List([nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], stacked)) for i in range(count)])


def stack_layers(model: Model) -> Model:
    """Stack the layers of ``model``, in place, if its config asks for a loop."""
    for stack in _stacks(model):
        if stack.config.scan_layers:
            states = [nnx.state(layer) for layer in stack.layers]
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
            stack.layers = nnx.merge(nnx.graphdef(stack.layers[0]), stacked)
    return model


def unstack_layers(model: Model) -> Model:
    """Give ``model`` its layers one by one, in place, if they are stacked: the inverse of :func:`stack_layers`."""
    for stack in _stacks(model):
        if not isinstance(stack.layers, Sequence):
            graph, stacked = nnx.split(stack.layers)
            stack.layers = _unstacked(graph, stacked, jax.tree.leaves(stacked)[0].shape[0])
    return model


def _stacks(model: Any) -> list[Any]:
    return [getattr(model, name) for name in ("encoder", "decoder") if hasattr(model, name)]


def apply_layers(
    apply: Callable[[Layer, Sequences, nnx.Rngs | None], Sequences],
    layers: Layers[Layer],
    x: Sequences,
    config: ModelConfig,
    rngs: nnx.Rngs | None,
) -> Sequences:
    """Pass ``x`` through all layers; unrolled or as a loop, with or without rematerialization (Chen et al., 2016).

    Args:
        apply: calls one layer.
        layers: one by one, or stacked.
        x: input of the first layer, (batch, length, d_model).
        config: gives ``remat``.
        rngs: with a ``dropout`` stream; None in evaluation.

    Returns:
        Output of the last layer, (batch, length, d_model).
    """
    is_stacked = not isinstance(layers, Sequence)
    if config.remat in _KEPT and not is_recording():
        # Forward and backward pass of stacked layers are two loops, between which XLA cannot merge anything anyway.
        apply = nnx.remat(apply, policy=_KEPT[config.remat], prevent_cse=not is_stacked)
    if is_stacked:
        return _scan(apply, layers, x, rngs)
    for i, layer in enumerate(layers):
        with jax.named_scope(f"layer_{i}"):
            x = apply(layer, x, rngs)
    return x


def _scan(apply: Callable[..., Sequences], layers: nnx.Module, x: Sequences, rngs: nnx.Rngs | None) -> Sequences:
    """Pass ``x`` from one of the stacked layers to the next; each gets random keys of its own."""
    graph, stacked = nnx.split(layers)
    keys = None if rngs is None else jax.random.split(rngs.dropout(), jax.tree.leaves(stacked)[0].shape[0])

    def step(x: Array, part: tuple[nnx.State, Any]) -> tuple[Array, None]:
        state, key = part
        return apply(nnx.merge(graph, state), x, None if key is None else Rngs(dropout=key)), None

    return jax.lax.scan(step, x, (stacked, keys))[0]
