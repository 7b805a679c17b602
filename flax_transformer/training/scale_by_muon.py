"""Muon for the matrices of the layers and Adam for all other parameters, as one optax transformation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from flax_transformer.training.matrices import is_hidden_matrix
from flax_transformer.training.muon import orthogonal_update


class MuonState(NamedTuple):
    """The running mean of the gradients of the layers' matrices, and Adam's state of all other parameters."""

    momentum: nnx.State
    adam: Any


def scale_by_muon(beta: float, adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Nesterov momentum made orthogonal for the matrices of the layers, and ``adam`` for the other parameters.

    optax's own Muon corrects the two parts of Nesterov's sum for their bias at different steps, so that its updates are
    not those of ``torch.optim.Muon``.
    """

    def init(params: Any) -> MuonState:
        matrices, others = nnx.split_state(params, is_hidden_matrix, ...)
        return MuonState(jax.tree.map(jnp.zeros_like, matrices), adam.init(others))

    @jax.named_scope("muon")
    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, MuonState]:
        matrices, others = nnx.split_state(updates, is_hidden_matrix, ...)
        momentum = jax.tree.map(lambda m, g: m + (1 - beta) * (g - m), state.momentum, matrices)
        ahead = jax.tree.map(lambda m, g: g + beta * (m - g), momentum, matrices)
        scaled, of_adam = adam.update(others, state.adam)
        return nnx.merge_state(jax.tree.map(orthogonal_update, ahead), scaled), MuonState(momentum, of_adam)  # pyright: ignore[reportArgumentType]

    return optax.GradientTransformation(init, update)
