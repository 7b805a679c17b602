"""Dropout. Its mask can be recorded and replaced, so that both twins can be run with the same one."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from flax_transformer.intermediates import record
from flax_transformer.nn.kernels.random_bits import keep_mask


class Dropout(nnx.Module):
    """Zero elements with probability ``rate`` and scale the others by ``1 / (1 - rate)`` (Srivastava et al., 2014).

    Args:
        rate: in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    @jax.named_scope("dropout")
    def __call__(self, x: Float[Array, "*shape"], rngs: nnx.Rngs | None) -> Float[Array, "*shape"]:
        """
        Args:
            x: activations of any shape.
            rngs: with a ``dropout`` stream; None, as in evaluation, returns ``x`` itself.

        Returns:
            Activations of the shape and dtype of ``x``.

        Example:
            >>> from flax_transformer.nn.kernels.rngs import Rngs
            >>> Dropout(0.5)(jnp.ones((2, 8)), Rngs(dropout=jax.random.key(0))).max().item()
            2.0
        """
        if rngs is None or self.rate == 0.0:
            return x
        keep = record(self, "keep", keep_mask(rngs.dropout(), self.rate, x.shape))
        return jnp.where(keep, x * (1.0 / (1.0 - self.rate)), 0)
