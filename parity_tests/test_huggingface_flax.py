"""Imported models against transformers: outputs of the Flax twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import STACK, ulps

from flax_transformer.parity.against_transformers import in_float64

pytest.importorskip("transformers", reason="needs transformers, to compare with its models")

from hf_models import KINDS, flax_twin, imported, in_dtype, inputs, outputs, random_model, real

# Two stacks of layers, each with its own rounding.
CEILING = 2 * STACK
# These differ from RoBERTa and ELECTRA in settings alone.
SAME = {"xlm-roberta", "camembert", "electra-base", "mpnet-bare"}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in SAME])
@pytest.mark.sample(6)
def test_the_flax_twin_computes_what_transformers_computes(name: str, dtype: str):
    model, config, weights = imported(name)
    model = in_float64(random_model(name)) if dtype == "float64" else model
    arrays = inputs(model, config)
    twin = flax_twin(*in_dtype(config, weights, dtype))
    ours = np.asarray(jax.jit(lambda twin, *ids: twin(*ids))(twin, *map(jnp.asarray, arrays)))
    assert ulps(real(ours, arrays), real(outputs(model, arrays), arrays)) <= CEILING


def test_a_mistake_shows():
    model, config, weights = imported("bert")
    arrays = inputs(model, config)
    twin = flax_twin(*in_dtype(config, weights, "float32"))
    twin.source_embedding.types.embedding[...] = jnp.zeros_like(twin.source_embedding.types.embedding[...])
    assert ulps(np.asarray(twin(*map(jnp.asarray, arrays))), outputs(model, arrays)) > CEILING
