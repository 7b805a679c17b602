"""Dynamic loss scaling, which keeps small gradients of float16 from becoming zero.

The loss is multiplied by a factor and the gradient divided by it; the factor is halved when the gradient overflows
(Micikevicius et al., 2018, "Mixed Precision Training", section 3.2).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

INITIAL_SCALE = 2.0**10  # of the sum over a batch's tokens, which is that many times as large as their mean
GROWTH_INTERVAL = 2_000  # finite steps after which the scale is doubled, as in torch.amp.GradScaler


class LossScale(NamedTuple):
    """The factor on the loss, and the steps since it last changed."""

    scale: Float[Array, ""]
    good_steps: Int[Array, ""]


def create_loss_scale() -> LossScale:
    """As training starts."""
    return LossScale(jnp.asarray(INITIAL_SCALE, jnp.float32), jnp.zeros((), jnp.int32))


def update_loss_scale(state: LossScale, is_finite: Bool[Array, ""]) -> LossScale:
    """Half of it after an overflow, which the step skips; twice after so many finite steps."""
    good_steps = jnp.where(is_finite, state.good_steps + 1, 0)
    grows = good_steps == GROWTH_INTERVAL
    factor = jnp.where(is_finite, jnp.where(grows, 2.0, 1.0), 0.5)
    return LossScale(state.scale * factor, jnp.where(grows, 0, good_steps))
