"""The doctor on JAX models: NNX, Linen with its variables, plain functions; and no PyTorch about."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from flax_transformer import doctor
from flax_transformer.doctor.examination import Examination, Facts
from flax_transformer.doctor.graph import find_attentions, read_attention
from flax_transformer.doctor.jax_subject import JaxSubject
from flax_transformer.doctor.jax_trace import Recording, clamped_lookups
from flax_transformer.doctor.probes.training import probe_structure
from tests.doctor import matrix

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def as_people_have_it() -> Iterator[None]:
    """The parity suite has JAX refuse what it would broadcast; the models examined here rely on it."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_the_same_bug_gets_the_same_diagnosis():
    bugs = {
        framework: next(b for b in matrix.bugs_of(framework) if b.name == "mean over pads too")
        for framework in ("torch", "flax")
    }
    outcomes = {framework: matrix.examine_bug(framework, bug, "encoder", 0) for framework, bug in bugs.items()}
    assert outcomes["flax"].named
    assert outcomes["flax"].first == outcomes["torch"].first
    assert outcomes["flax"].ill == outcomes["torch"].ill


class Decoder(linen.Module):
    """One layer, with an optional flag for dropout that must be switched off."""

    @linen.compact
    def __call__(self, inputs, train: bool = True):
        x = linen.Embed(19, 16)(inputs) + linen.Embed(32, 16)(jnp.arange(inputs.shape[1]))
        mask = linen.make_causal_mask(inputs)
        x = x + linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(x), mask=mask)
        x = linen.Dropout(0.1, deterministic=not train)(x)
        return linen.Dense(19)(x)


def test_what_starts_at_zero_is_examined_as_if_it_had_moved():
    model = Decoder()
    variables = model.init(jax.random.key(0), jnp.ones((2, 5), jnp.int32), train=False)
    attention: Any = variables["params"]["MultiHeadDotProductAttention_0"]
    attention["out"]["kernel"] = jnp.zeros_like(attention["out"]["kernel"])
    report = doctor.examine(model, variables=variables, kind="decoder")
    assert not report.is_ill, str(report)
    assert report.notes[-1].endswith("all zero: params.MultiHeadDotProductAttention_0.out.kernel")
    assert not attention["out"]["kernel"].any()


def test_linen_module_with_its_variables():
    model = Decoder()
    variables = model.init(jax.random.key(0), jnp.ones((2, 5), jnp.int32), train=False)
    before = jax.tree.map(np.array, variables)
    report = doctor.examine(model, variables=variables, kind="decoder")
    assert not report.is_ill, str(report)
    assert "train=False" in report.called_as
    assert {r.probe: r.figure for r in report.results}["scale"] == pytest.approx(1)
    jax.tree.map(np.testing.assert_array_equal, before, variables)
    with pytest.raises(doctor.ExaminationError, match=r"return \(module, variables\)"):
        doctor.examine(model, kind="decoder")


def test_plain_function_without_positions_is_found_out():
    table = np.random.default_rng(0).normal(size=(19, 8)).astype(np.float32)

    def model(ids):
        x = jnp.asarray(table)[ids]
        mask = jnp.tril(jnp.ones((ids.shape[1], ids.shape[1]), bool))
        scores = jnp.where(mask, x @ x.swapaxes(1, 2) / 8**0.5, -jnp.inf)
        return (x + jax.nn.softmax(scores) @ x) @ jnp.asarray(table).T

    report = doctor.examine(model, kind="decoder")
    assert report.diagnoses[0].result.cause == "no-target-positions"


def test_loops_over_layers_are_looked_into():
    """A scan over stacked weights shows every attention, with its scale and its mask."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8)))

    def model(weights, ids):
        x = jax.nn.one_hot(ids, 8) @ jnp.ones((8, 8)) + jnp.sin(ids)[..., None]

        def layer(x, weight):
            mask = jnp.tril(jnp.ones((ids.shape[1], ids.shape[1]), bool))
            scores = jnp.where(mask, (x @ weight) @ x.swapaxes(1, 2) * 0.25, -jnp.inf)
            return x + jax.nn.softmax(scores) @ x, None

        return (jax.lax.scan(layer, x, weights)[0],)

    recording = Recording(model, ["weights"], ["target"], {})
    trace = recording.trace(weights, [jnp.arange(10).reshape(2, 5)])
    attentions = [read_attention(found, np.asarray, (5,)) for found in find_attentions(trace.nodes)]
    assert len(attentions) == 3
    for attention in attentions:
        assert attention is not None
        assert attention.scale == pytest.approx(0.25)
        assert (np.isneginf(attention.scores) == ~np.tril(np.ones((5, 5), bool))).all()
    assert trace.parameters_of(trace.outputs) == {"weights"}


@pytest.mark.parametrize("layout", ["btns", "btsn"])
def test_heads_between_queries_and_keys_or_behind_both_are_looked_into(layout: str):
    """Scores masked by writing into them."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)))

    def model(weight, ids):
        x = (jax.nn.one_hot(ids, 8) @ weight).reshape(2, 5, 2, 4)
        scores = jnp.einsum(f"btnh,bsnh->{layout}", x, x) * 0.5
        queries, keys = jnp.triu_indices(5, 1)
        heads = (slice(None), keys) if layout == "btns" else (keys,)
        weights = jax.nn.softmax(scores.at[:, queries, *heads].set(-jnp.inf), axis=layout.index("s"))
        return (jnp.einsum(f"{layout},bsnh->btnh", weights, x).reshape(2, 5, 8),)

    trace = Recording(model, ["weight"], ["target"], {}).trace(weight, [jnp.arange(10).reshape(2, 5)])
    (found,) = find_attentions(trace.nodes)
    attention = read_attention(found, np.asarray, (5,))
    assert attention is not None
    assert attention.softmax_axis_is_keys
    assert attention.scores.shape == (4, 5, 5)
    assert (np.isneginf(attention.scores) == ~np.tril(np.ones((5, 5), bool))).all()
    seen = np.tril(np.ones((5, 5), bool))
    np.testing.assert_allclose(attention.offsets()[:, seen], 0, atol=1e-6)  # product and scores have one order
    assert attention.scale == pytest.approx(0.5)


@pytest.mark.parametrize(("rows", "beyond"), [(8, []), (6, [(6, 7)])])
def test_positions_beyond_their_table_are_seen(rows: int, beyond: list[tuple[int, int]]):
    """Token ids beyond theirs are another matter, and so is what is filled in where there is no row."""

    def model(tables, ids):
        steps = jnp.arange(ids.shape[1])
        filled = tables["places"].at[steps + 1].get(mode="fill", fill_value=0)
        return (tables["tokens"][ids] + tables["places"][steps] + filled,)

    tables = {"tokens": jnp.ones((3, 2)), "places": jnp.ones((rows, 2))}
    assert clamped_lookups(model, ["target"], tables, [jnp.arange(8)[None]], {}) == beyond


def test_shared_layers_are_seen():
    class Shared(nnx.Module):
        def __init__(self, rngs):
            layer = nnx.Linear(8, 8, rngs=rngs)
            self.table, self.layers = nnx.Embed(19, 8, rngs=rngs), nnx.List([layer, layer])

        def __call__(self, ids):
            x = self.table(ids)
            for layer in self.layers:
                x = x + layer(x)
            return x

    subject = JaxSubject(Shared(nnx.Rngs(0)), forward=None, variables=None, x64=True)
    (result,) = probe_structure(Examination(subject, Facts("encoder", 19, 19)))  # compiles nothing
    assert (result.cause, result.place) == ("shared-layers", "layers")


def test_jax_side_runs_where_no_torch_is():
    program = """
import sys
sys.modules["torch"] = None
import jax, jax.numpy as jnp
from flax_transformer import doctor
def model(ids):
    rates = jnp.arange(1.0, 9.0)
    x = jnp.sin(ids[..., None] * rates) + jnp.cos(jnp.arange(ids.shape[1])[:, None] * rates)
    return jnp.cumsum(x, axis=1)
print(doctor.examine(model, kind="decoder").is_ill)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
