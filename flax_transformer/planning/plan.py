"""What a training step will cost on a TPU slice, by the TPU's own compiler; no TPU is needed.

The step is compiled for the chips of a topology (``libtpu`` holds the compiler), and the compiler's own account of it
is set against the public peaks of the chip: the roofline model (Williams et al., 2009). A bound is what no run can
beat, not what a run will reach.
"""

import re
import time
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from flax_transformer.config import TrainConfig
from flax_transformer.data.batches import ClassifierBatch, MaskedBatch, Seq2SeqBatch
from flax_transformer.data.masking import count_predicted
from flax_transformer.data.packing import PackedClassifierBatch, PackedMaskedBatch, PackedSeq2SeqBatch
from flax_transformer.distributed.sharding import create_mesh
from flax_transformer.errors import UserError
from flax_transformer.nn.kernels.backends import takes_blocks
from flax_transformer.planning.flops import tokens_per_step, train_flops
from flax_transformer.planning.hlo import Collective, traffic
from flax_transformer.training.step import Batch, TrainStep


@dataclass(frozen=True)
class Chip:
    """Public peaks: bfloat16 operations a second, bytes of HBM, bytes a second of HBM and of all links one way."""

    flops: float
    hbm: float
    hbm_bandwidth: float
    link_bandwidth: float


_GIB = 2.0**30
_SEGMENT = 32  # tokens, of packed rows whose texts are not known
# https://docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e: link bandwidth is half of the bidirectional figure there,
# and the compiler shows that GB of HBM are GiB.
CHIPS = {
    "v4": Chip(275e12, 32 * _GIB, 1228e9, 150e9),
    "v5e": Chip(197e12, 16 * _GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * _GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * _GIB, 1600e9, 400e9),
}


@dataclass(frozen=True)
class Plan:
    """The account of one step. Sizes and times are those of one chip; times in seconds are lower bounds.

    ``xla_flops`` and ``xla_bytes`` are what the compiler counts: it cannot look into a Pallas kernel, counts the body
    of a loop once, and bytes that stay on the chip as well. ``hbm_bytes`` are those of the compiled program that do go
    to HBM, loops as often as they run. ``model_flops`` is counted from the config: the matrix products of the forward
    pass, three times.
    """

    topology: str
    chips: int
    mesh: dict[str, int]
    attention: str
    compile_seconds: float
    fits: bool
    hbm_needed: float
    hbm: float
    model_flops: float
    tokens: int
    xla_flops: float | None = None
    xla_bytes: float | None = None
    hbm_bytes: float | None = None
    collectives: dict[str, Collective] | None = None
    compute_time: float | None = None
    memory_time: float | None = None
    link_time: float | None = None
    step_time: float | None = None
    mfu: float | None = None
    tokens_per_second: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(topology: str, config: TrainConfig) -> Plan:
    """Compile the training step of ``config`` for a topology such as ``v5e:2x4`` and take account of it.

    Raises:
        UserError: chip or topology is unknown, or mesh, batch and chips do not fit each other.
    """
    chip = CHIPS.get(topology.split(":")[0])
    if chip is None:
        raise UserError(f"--topology: expected one of {', '.join(CHIPS)} and its shape, as v5e:2x4, got {topology!r}")
    mesh = create_mesh(config.mesh, _devices(topology))
    lowered = TrainStep(config, total_steps=1_000, mesh=mesh).lower(abstract_batch(config))
    tokens = tokens_per_step(config)
    start = time.perf_counter()
    compiled, too_large = _compile(lowered)
    account: dict[str, Any] = {
        "topology": topology,
        "chips": mesh.size,
        "mesh": dict(mesh.shape),
        "attention": _mixer(config, lowered),
        "compile_seconds": time.perf_counter() - start,
        "hbm": chip.hbm,
        "model_flops": train_flops(config) / mesh.size,
        "tokens": tokens,
    }
    if compiled is None:
        return Plan(**account, fits=False, hbm_needed=too_large)
    return Plan(**account, **_costs(compiled, chip, account["model_flops"], tokens))


def _mixer(config: TrainConfig, lowered: jax.stages.Lowered) -> str:
    """What mixes tokens; of attention, how it is computed."""
    model, length = config.model, config.batch.max_source_length
    if not model.mixes_by_attention:
        return " and ".join(dict.fromkeys(model.mixers))
    if "tpu_custom_call" in lowered.as_text():
        return "flash"
    return "blockwise" if takes_blocks(model.attention_backend, length, length, "tpu") else "xla"


def _devices(topology: str) -> list[Any]:
    try:
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except Exception as error:  # jaxlib's own class, which is not public
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--topology: expected one that the TPU compiler knows, got {topology!r} ({reason})") from error


def abstract_batch(config: TrainConfig) -> Batch:
    """The shapes of the largest batch of a run."""

    def integers(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    rows, sizes = config.batch.size, config.batch
    if sizes.packing:
        return _abstract_packed_batch(config)
    source = (integers(rows, sizes.max_source_length), integers(rows))
    if config.model.architecture == "classifier":
        return ClassifierBatch(*source, integers(rows))
    if config.model.architecture == "masked":
        predicted = integers(rows, count_predicted(sizes.max_source_length))
        return MaskedBatch(*source, predicted, predicted, integers(rows))
    return Seq2SeqBatch(*source, integers(rows, sizes.max_target_length), integers(rows))


def _abstract_packed_batch(config: TrainConfig) -> Batch:
    """How many segments a row of a classifier has depends on the texts; here it is one for every 32 tokens."""
    rows, sizes = config.batch.size, config.batch

    def integers(length: int) -> Any:
        return jax.ShapeDtypeStruct((rows, length), jnp.int32)

    source, target = integers(sizes.max_source_length), integers(sizes.max_target_length)
    if config.model.architecture == "classifier":
        segments = integers(-(-sizes.max_source_length // _SEGMENT))
        return PackedClassifierBatch(source, source, segments, segments)
    if config.model.architecture == "masked":
        predicted = integers(count_predicted(sizes.max_source_length))
        counts: Any = jax.ShapeDtypeStruct((rows,), jnp.int32)
        return PackedMaskedBatch(source, source, predicted, predicted, counts)
    return PackedSeq2SeqBatch(source, source, target, target)


def _compile(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled | None, float]:
    """The compiled step; or None, and the bytes that it would need at least, where it does not fit."""
    try:
        return lowered.compile(), 0.0
    except jax.errors.JaxRuntimeError as error:
        needed = _needed(str(error))
        if needed is None:
            raise
        return None, needed


def _needed(message: str) -> float | None:
    """Bytes of HBM by the compiler's complaint that there are too few; it has a second one for temporaries alone."""
    found = re.search(
        r"RESOURCE_EXHAUSTED.*(?:Used |temporaries \()([\d.]+)([KMGT]?)\)? (?:of|exceeds)", message, re.DOTALL
    )
    return float(found[1]) * 1024 ** " KMGT".index(found[2] or " ") if found else None


def _costs(compiled: jax.stages.Compiled, chip: Chip, model_flops: float, tokens: int) -> dict[str, Any]:
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    needed = held + memory.temp_size_in_bytes
    cost: Any = compiled.cost_analysis()
    moved = traffic(compiled.as_text() or "")
    times = {
        "compute_time": max(cost["flops"], model_flops) / chip.flops,
        "memory_time": moved.hbm / chip.hbm_bandwidth,
        "link_time": sum(kind.sent for kind in moved.collectives.values()) / chip.link_bandwidth,
    }
    step_time = max(times.values())
    return {
        "fits": needed <= chip.hbm,
        "hbm_needed": needed,
        "xla_flops": cost["flops"],
        "xla_bytes": cost["bytes accessed"],
        "hbm_bytes": moved.hbm,
        "collectives": moved.collectives,
        **times,
        "step_time": step_time,
        "mfu": model_flops / chip.flops / step_time,
        "tokens_per_second": tokens / step_time,
    }


def advice(plan: Plan, config: TrainConfig) -> list[str]:
    """What makes a step fit that does not, the cheapest first."""
    if plan.fits:
        return []
    rows = config.batch.size // (plan.mesh["data"] * plan.mesh["fsdp"])
    ways = [
        (
            plan.attention == "xla",
            "let attention use the flash kernel: --attention auto, no attention dropout, lengths of 128s",
        ),
        (
            plan.mesh["data"] > 1,
            f"cut the weights and the optimizer's state: --mesh.fsdp {plan.mesh['data'] * plan.mesh['fsdp']}",
        ),
        (config.model.remat != "full", "compute layers again in the backward pass: --remat dots, or full"),
        (
            config.gradient_accumulation_steps < rows,
            f"cut the batch: --gradient-accumulation-steps {min(rows, config.gradient_accumulation_steps * 2)}",
        ),
        (True, "take more chips, or a smaller batch"),
    ]
    return [way for applies, way in ways if applies]
