"""``flax-transformer plan``: whether a training step fits a TPU slice, and how fast it can be at best."""

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from flax_transformer.cli.common import PROGRAM, parse
from flax_transformer.cli.flags import CONFIG_FLAGS
from flax_transformer.config import AttentionBackend, FloatDtype, MeshConfig, Mixer, ModelConfig, Remat, TrainConfig
from flax_transformer.errors import UserError
from flax_transformer.outputs import check_report, write_whole
from flax_transformer.presets import PRESETS, PUBLISHED, SIZES, full_rows

if TYPE_CHECKING:
    from flax_transformer.planning.plan import Plan


@dataclass(frozen=True)
class PlanFlags:
    topology: str
    """chip and shape of the slice: v5e:2x4, v6e:16x16, v5p:2x2x2"""
    preset: str = "base"
    """base or large (Vaswani et al., 2017, table 3), another size, bert-base, t5-base, t5-xl (3B) or t5-xxl (11B), a
    task for its default model, or the folder of an import, an export or a run"""
    layers: int | None = None
    """of each stack; the preset's own number if not given"""
    batch: int = 256
    """rows of a batch, on all chips together"""
    length: int = 512
    """tokens of each source, and of each target"""
    mixer: Mixer | None = None
    """what lets tokens read each other; the preset's own if not given"""
    attention: AttentionBackend = "auto"
    """auto takes the flash kernel where it can serve the request"""
    dropout: float | None = None
    """the preset's own if not given"""
    attention_dropout: float | None = None
    """the preset's own if not given; flash kernels take none"""
    relative_buckets: int | None = None
    """the preset's own if not given; flash kernels take no relative bias, so 0 shows what it costs"""
    dtype: FloatDtype = "bfloat16"
    """of matrix products"""
    remat: Remat = "none"
    """what the backward pass of a layer computes again"""
    scan_layers: tyro.conf.FlagCreatePairsOff[bool] = False
    """train the layers as one loop"""
    packing: tyro.conf.FlagCreatePairsOff[bool] = False
    """several examples in each row (of a classifier, one for every 32 tokens), so that the tokens are all real"""
    gradient_accumulation_steps: int = 1
    """parts that a batch is cut into"""
    json: Path | None = None
    """file to write the plan to, too"""
    mesh: MeshConfig = field(default_factory=MeshConfig)


def plan(arguments: Sequence[str]) -> int:
    """Print the plan, and write it as JSON if asked to.

    Raises:
        UserError: libtpu is not installed, or a flag is wrong.
    """
    parsed: Any = parse(
        PlanFlags,
        default=PlanFlags(topology=tyro.MISSING),
        prog=f"{PROGRAM} plan",
        description=__doc__,
        args=list(arguments) or ["--help"],
        registry=CONFIG_FLAGS,
    )
    flags: PlanFlags = replace(parsed, mesh=parsed.mesh.build())
    if flags.json:
        check_report(flags.json)
    config = _config(flags)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("plan needs the TPU compiler, which is an extra: pip install 'flax-transformer[tpu]'")
    # Before jax is loaded: compile on this machine's CPU, beside others who do, and look for no TPU around it.
    os.environ.update(
        JAX_PLATFORMS="cpu",
        ALLOW_MULTIPLE_LIBTPU_LOAD="true",
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-8",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_LIBRARY_LOG_LEVEL="3",
    )

    from flax_transformer.planning.plan import advice, make_plan

    account = make_plan(flags.topology, config)
    print("\n".join([*_lines(account), *(f"- {way}" for way in advice(account, config))]))
    if flags.json:
        settings = {name: value for name, value in asdict(flags).items() if name != "json"}
        record = {"settings": settings, **account.to_dict()}
        write_whole(flags.json, json.dumps(record, indent=2) + "\n")
    return 0


def _config(flags: PlanFlags) -> TrainConfig:
    model = replace(_model(flags.preset), dtype=flags.dtype, attention_backend=flags.attention)
    model = replace(model, remat=flags.remat, scan_layers=flags.scan_layers)
    if flags.layers is not None:
        model = replace(model, num_encoder_layers=flags.layers, num_decoder_layers=flags.layers)
    for name in ("mixer", "dropout", "attention_dropout", "relative_buckets"):
        if (value := getattr(flags, name)) is not None:
            model = replace(model, **{name: value})
    config = full_rows(model, flags.batch, flags.length)
    config = replace(config, batch=replace(config.batch, packing=flags.packing))
    return replace(config, mesh=flags.mesh, gradient_accumulation_steps=flags.gradient_accumulation_steps)


def _model(preset: str) -> ModelConfig:
    from flax_transformer.training.run import load_trained

    known = {**SIZES, **PUBLISHED, **{task: presets["default"].model for task, presets in PRESETS.items()}}
    if preset in known:
        return known[preset]
    if not Path(preset).is_dir():
        raise UserError(f"--preset: expected a folder, or one of {', '.join(known)}, got {preset!r}")
    model = load_trained(Path(preset)).model_config
    # A bare encoder is trained with a head of its own.
    return replace(model, num_classes=2) if model.architecture == "classifier" and not model.num_classes else model


def _lines(plan: "Plan") -> Iterator[str]:
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    yield f"{plan.topology}: {plan.chips} chips, mesh {mesh}; compiled in {plan.compile_seconds:.0f} s"
    yield f"attention          {plan.attention}"
    verdict = "fits" if plan.fits else "does not fit"
    yield f"HBM                {plan.hbm_needed / 2**30:.2f} of {plan.hbm / 2**30:.2f} GiB a chip: {verdict}"
    yield f"FLOPs              {plan.model_flops:.3g} of the model's matrix products a chip"
    if plan.hbm_bytes is None:
        yield "what would make it fit:"
        return
    yield f"                   {plan.xla_flops:.3g} that XLA counts, which are those outside of kernels"
    yield f"bytes              {plan.hbm_bytes:.3g} to and from HBM"
    yield f"                   {plan.xla_bytes:.3g} that XLA counts, with those that stay on the chip"
    for kind, collective in (plan.collectives or {}).items():
        counted = f"{collective.count} x, {collective.bytes:.3g} bytes, {collective.sent:.3g} sent"
        yield f"{kind:<19}{counted}"
    times = {"compute": plan.compute_time, "HBM": plan.memory_time, "links": plan.link_time}
    yield f"at best            {', '.join(f'{name} {_ms(seconds)}' for name, seconds in times.items())}"
    yield f"a step             {_ms(plan.step_time)}: {plan.mfu:.0%} MFU, {plan.tokens_per_second:,.0f} tokens/s in all"


def _ms(seconds: float | None) -> str:
    return f"{1e3 * (seconds or 0.0):.1f} ms"
