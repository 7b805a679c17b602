"""Streams of random keys for modules that are traced."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import PRNGKeyArray


class Rngs(nnx.Rngs):
    """Streams that draw the keys of ``nnx.Rngs``, but count them on the host.

    A count of nnx's own is traced along with the model. Whenever it rises, jax searches the whole program traced so far
    for the text of an error that nobody sees: for 24 layers in each stack that took ten times as long as all the rest.
    """

    def __init__(self, **keys: PRNGKeyArray) -> None:
        for name, key in keys.items():
            setattr(self, name, _Stream(key, tag=name))


class _Stream(nnx.RngStream):
    def __init__(self, key: PRNGKeyArray, *, tag: str) -> None:
        super().__init__(key, tag=tag)
        zero: Any = np.uint32(0)
        self.count.set_value(zero)

    def __call__(self) -> PRNGKeyArray:
        count = self.count.get_value()
        self.count.set_value(count + 1)
        return jax.random.fold_in(self.key.get_value(), count)
