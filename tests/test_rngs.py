"""Random keys: those of nnx, and nothing of their numbering in the traced program."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx

from flax_transformer.nn.kernels.rngs import Rngs


def draw(kind: type[nnx.Rngs], key: jax.Array) -> list[jax.Array]:
    rngs = kind(dropout=key)
    return [jax.random.key_data(rngs.dropout()) for _ in range(3)]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_keys_are_those_of_nnx(compiled: bool):
    transform = jax.jit if compiled else lambda function: function
    ours, of_nnx = (transform(partial(draw, kind))(jax.random.key(3)) for kind in (Rngs, nnx.Rngs))
    np.testing.assert_array_equal(ours, of_nnx)
    assert len(np.unique(np.stack(ours), axis=0)) == 3


def test_the_traced_program_does_not_count():
    ours, of_nnx = (str(jax.make_jaxpr(partial(draw, kind))(jax.random.key(3))) for kind in (Rngs, nnx.Rngs))
    assert " add " in of_nnx
    assert " add " not in ours
