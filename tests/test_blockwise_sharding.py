"""Attention block by block on a mesh: each device computes its own rows and heads, and drops what one device drops."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.optimized

SCRIPT = """
import json, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from flax_transformer.nn.kernels.blockwise import WeightDropout, blockwise_attention
from flax_transformer.nn.kernels.distances import DistanceBias
from flax_transformer.nn.masks import AttentionMask

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
query, key, value, upstream = rng.standard_normal((4, 4, 37, 2, 8))
lengths, bias = np.array([37, 0, 5, 20], np.int32), rng.standard_normal((2, 73))

def attend(query, key, value, bias, lengths, upstream):
    dropout = WeightDropout(jax.random.key(3), 0.3)
    output, pull_back = jax.vjp(
        lambda q, k, v, b: blockwise_attention(
            q, k, v, AttentionMask(lengths, causal=True, bias=DistanceBias(b)), dropout=dropout, blocks=(16, 16)
        ), query, key, value, bias)
    return output, pull_back(upstream)

inputs = query, key, value, bias, lengths, upstream
alone = jax.tree.leaves(jax.jit(attend)(*map(jnp.asarray, inputs)))
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
specs = [P("data", None, "model")] * 3 + [P("model"), P("data"), P("data", None, "model")]
placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(inputs, specs)]
compiled = jax.jit(attend).lower(*placed).compile()
results = jax.tree.leaves(compiled(*placed))
differences = [float(abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(results, alone)]
collective = r"= \\w+\\[([\\d,]*)\\]\\S* (?:all-gather|all-to-all|collective-permute|all-reduce)\\("
moved = [shape.split(",") for shape in re.findall(collective, compiled.as_text())]
print(json.dumps([differences, [int(np.prod([int(n) for n in shape if n])) for shape in moved]]))
"""


@pytest.mark.slow
def test_a_mesh_computes_what_one_device_computes() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    differences, moved = json.loads(done.stdout)
    assert max(differences) < 1e-13
    # Across devices goes only the gradient of the bias, a block at a time, which all rows share.
    assert max(moved, default=0) <= 16 * 16
