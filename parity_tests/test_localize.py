"""The report names the operation and the twin that are off, wherever a mistake is planted."""

import dataclasses

import jax
import pytest
from families import FAMILIES
from mutants import CLASSIFIER, ROPE, TINY, UNTIED
from mutants_catalogue import BASE_MUTANTS
from mutation import mutated

from flax_transformer.parity.cases import make_case
from flax_transformer.parity.localize import first_divergence
from flax_transformer.parity.measure import scaled_ulps
from flax_transformer.parity.oracle import Float64Oracle
from flax_transformer.parity.pair import Pair

EXPECTED = {
    "softmax over queries": "encoder.layers.0.self_attention.weights",
    "last norm left out": "memory",
    "embeddings not scaled by sqrt(d)": "source_embedding.output",
    "tied projection scaled": "logits",
    "GELU by tanh": "encoder.layers.0.feed_forward.hidden",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_first_diverging_operation_and_the_suspect(name: str, x64):
    mutant = next(mutant for mutant in BASE_MUTANTS if mutant.name == name)
    pair = Pair(mutant.case(), backward=False).before_a_change_of(mutant.side)
    with mutated(mutant.file, mutant.old, mutant.new):
        divergence = first_divergence(pair)
    assert divergence is not None
    assert (divergence.intermediate, divergence.suspect) == (EXPECTED[name], mutant.side)
    assert divergence.flax_shape == divergence.torch_shape


def test_an_error_in_a_late_layer_does_not_spread_to_its_neighbours(x64):
    model = dataclasses.replace(TINY, num_encoder_layers=3, dtype="float64", param_dtype="float64")
    pair = Pair(make_case(model, seed=0), backward=False).before_a_change_of("torch")
    old, new = (
        "x = layer(x, mask)\n        return",
        "x = layer(x, mask) * (1 + 1e-9 * (layer is self.layers[1]))\n        return",
    )
    with mutated("torch_reference/nn/layers.py", old, new):
        over = [name for name, ulp in pair.local.items() if ulp > 8]
        spread = [name for name, ulp in pair.cumulative.items() if ulp > 8]
    # The scaling happens between the output of layer 1 and the intermediates that read it.
    assert over
    assert all(
        name.startswith(("encoder.layers.2.self_attention.", "encoder.layers.2.self_attention_residual"))
        for name in over
    )
    assert len(spread) > 2 * len(over)


@pytest.mark.parametrize(
    "variant",
    [{}, ROPE, UNTIED, CLASSIFIER, {"norm_first": False, "activation": "silu"}, *FAMILIES.values()],
    ids=["default", "rope", "untied", "classifier", "post-LN", *FAMILIES],
)
@pytest.mark.sample(3)
def test_clean_twins_agree_with_each_other_and_with_the_oracle(variant: dict, x64):
    case = make_case(dataclasses.replace(TINY, **variant, dtype="float64", param_dtype="float64"), seed=1)
    pair = Pair(case, backward=False)
    assert first_divergence(pair) is None
    judged = Float64Oracle(case.model, case.weights, case.batch, pair.flax.intermediates).values
    assert judged.keys() == pair.flax.intermediates.keys()
    assert max(scaled_ulps(pair.flax.intermediates, judged, "float64").values()) <= 8


def test_a_mistake_that_both_twins_share_is_seen_by_the_oracle(x64):
    """Without rope, a bias of the keys changes no attention weight."""
    case = make_case(dataclasses.replace(TINY, **ROPE, dtype="float64", param_dtype="float64"), seed=1)
    with (
        mutated("flax_transformer/nn/attention.py", "self.key(memory)", "memory @ self.key.kernel[...]"),
        mutated("torch_reference/nn/attention.py", "self.key(memory)", "memory @ self.key.weight.T"),
    ):
        pair = Pair(case, backward=False)
        assert first_divergence(pair) is None
        judged = Float64Oracle(case.model, case.weights, case.batch, pair.flax.intermediates).values
        figures = scaled_ulps(pair.flax.intermediates, judged, "float64")
    over = {name for name, figure in figures.items() if figure > 1e9}
    assert over == {name for name in figures if name.endswith(".key")}


def test_a_nan_is_named_at_its_origin():
    case = make_case(TINY, seed=0)
    name = "decoder.layers.0.cross_attention.value.weight"
    weights = {**case.weights, name: case.weights[name] * float("nan")}
    with jax.enable_x64(False):
        pair = Pair(case, backward=False)
        damaged = Pair(dataclasses.replace(case, weights=weights), backward=False)
        vars(pair)["flax"] = damaged.flax
        divergence = first_divergence(pair)
    assert divergence is not None
    assert divergence.intermediate == "decoder.layers.0.cross_attention.value"
