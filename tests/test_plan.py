"""The TPU plan: what is read off a compiled program, and what is refused."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flax_transformer.cli import main as cli
from flax_transformer.cli.plan import PlanFlags
from flax_transformer.cli.plan import _config as plan_config
from flax_transformer.config import Architecture, ModelConfig, TokenizerConfig
from flax_transformer.data.batches import Encoded, Sequences
from flax_transformer.data.masking import Masking
from flax_transformer.data.packed_batches import PackedBatches
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.errors import UserError
from flax_transformer.interop.export import save_export
from flax_transformer.interop.huggingface.families import family_of
from flax_transformer.nn.models import create_model
from flax_transformer.planning.flops import train_flops
from flax_transformer.planning.plan import CHIPS, Plan, _needed, abstract_batch, advice
from flax_transformer.presets import PUBLISHED, SIZES, full_rows

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, the extra tpu")


def test_flops_of_other_mixers_by_hand():
    """Linear attention in two chunks of 64 tokens, two heads of width 4; an LSTM that reads both ways, or one."""
    config = full_rows(replace(SIZES["mini"], d_model=8, num_heads=2, d_ff=16, mixer="linear"), batch=1, length=100)
    layers = config.model.num_encoder_layers, config.model.num_decoder_layers
    head = 2 * 100 * 8 * config.model.target_vocab_size
    feed_forward = 2 * 2 * 100 * 8 * 16

    def linear(tokens: int) -> int:
        return 4 * 2 * tokens * 8 * 8 + 2 * 8 * (tokens * 4 + tokens * 5)

    causal = linear(128) + 2 * 2 * 128 * 64 * 8
    counted = layers[0] * (linear(100) + feed_forward) + layers[1] * (causal + linear(100) + feed_forward)
    assert train_flops(config) == 3 * (counted + head)

    config = replace(config, model=replace(config.model, mixer="lstm"))
    attention = 4 * 2 * 100 * 8 * 8 + 2 * 2 * 100 * 100 * 8
    reading, writing = 2 * (2 * 4 * 4 * (8 + 4)) * 100, 2 * 4 * 8 * (8 + 8) * 100
    counted = layers[0] * (reading + feed_forward) + layers[1] * (writing + attention + feed_forward)
    assert train_flops(config) == 3 * (counted + head)

    config = replace(config, model=replace(config.model, mixer="attention", encoder_mixer="lstm"))
    counted = layers[0] * (reading + feed_forward) + layers[1] * (2 * attention + feed_forward)
    assert train_flops(config) == 3 * (counted + head)


def test_flops_of_a_model_by_hand():
    encoder = ModelConfig("classifier", d_model=4, num_heads=1, d_ff=6, num_encoder_layers=1)
    # 4 projections of (3, 4) x (4, 4), two products of 3 x 3 x 4, two of 3 x 4 x 6; forward once and backward twice.
    layer = 4 * 2 * 3 * 16 + 2 * 2 * 36 + 2 * 2 * 72
    assert train_flops(full_rows(encoder, batch=5, length=3)) == 3 * 5 * (layer + 2 * 4 * encoder.num_classes)
    both = replace(encoder, architecture="seq2seq", num_decoder_layers=1)
    decoder = layer + 4 * 2 * 3 * 16 + 2 * 2 * 36 + 2 * 3 * 4 * both.target_vocab_size
    assert train_flops(full_rows(both, batch=5, length=3)) == 3 * 5 * (layer + decoder)


def test_what_does_not_fit_comes_with_advice():
    config = full_rows(ModelConfig(), batch=32, length=128)
    mesh = {"data": 4, "fsdp": 1, "model": 1}
    plan = Plan("v5e:2x2", 4, mesh, "xla", 1.0, False, 20e9, CHIPS["v5e"].hbm, 1e12, 8192)
    ways = " ".join(advice(plan, config))
    for flag in ("--attention auto", "--mesh.fsdp 4", "--gradient-accumulation-steps 2"):
        assert flag in ways
    assert "--mesh.fsdp" not in " ".join(advice(replace(plan, mesh={"data": 1, "fsdp": 4, "model": 1}), config))
    assert advice(replace(plan, fits=True), config) == []


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm. Exceeded",
            17.5 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, HLO temporaries (512.00M) exceeds available HBM (0.25G)",
            2**29,
        ),
        ("INTERNAL: Used 17.50G of 15.75G hbm.", None),
    ],
)
def test_what_does_not_fit_is_told_by_the_compilers_complaint(message: str, needed: float | None):
    assert _needed(message) == needed


def test_without_the_compiler_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["plan", "--topology", "v5e:2x4"]) == 2
    assert capsys.readouterr().err == (
        "error: plan needs the TPU compiler, which is an extra: pip install 'flax-transformer[tpu]'\n"
    )


def run_plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flax_transformer", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(("attention", "expected"), [("auto", "flash"), ("xla", "xla")])
def test_the_compiler_takes_the_step(tmp_path: Path, attention: str, expected: str):
    flags = ["--preset", "manifests", "--batch", "16", "--length", "128", "--attention", attention]
    result = run_plan("--topology", "v5e:2x4", *flags, "--json", str(tmp_path / "plan.json"))
    assert result.returncode == 0, result.stderr
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (plan["chips"], plan["attention"], plan["fits"]) == (8, expected, True)
    assert plan["collectives"]["all-reduce"]["bytes"] > 1e6  # the gradient, which every chip has a part of
    assert 0 < plan["mfu"] < 1


@needs_libtpu
@pytest.mark.parametrize("topology", ["v9:2x2", "v5e:3x5"])
def test_an_unknown_topology_is_refused(topology: str):
    result = run_plan("--topology", topology)
    assert result.returncode == 2
    assert f"got '{topology}'" in result.stderr


PUBLISHED_SETTINGS: dict[str, dict[str, Any]] = {
    "bert-base": {"model_type": "bert", "architectures": ["BertForSequenceClassification"]},
    "t5-base": {"num_layers": 12, "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_heads": 12},
    "t5-xl": {"num_layers": 24, "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_heads": 32},
    "t5-xxl": {"num_layers": 24, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_what_an_import_would_give(name: str):
    settings = PUBLISHED_SETTINGS[name]
    if name.startswith("t5"):
        own = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "scale_decoder_outputs": False}
        settings = {"model_type": "t5", **own, **settings}
    family = family_of(settings)
    model = family.read({**family.defaults, **settings}, bos_id=PUBLISHED[name].bos_id, eos_id=PUBLISHED[name].eos_id)
    assert model == PUBLISHED[name]


def test_a_plan_is_made_for_the_model_of_a_folder(tmp_path: Path):
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=300), ["one text"])
    size = tokenizer.vocab_size
    sizes: dict[str, Any] = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1}
    config = ModelConfig("classifier", **sizes, source_vocab_size=size, target_vocab_size=size)
    save_export(tmp_path / "encoder", create_model(config), tokenizer, classes=("a", "b"))
    flags = PlanFlags("v5e:2x4", str(tmp_path / "encoder"), batch=8, length=16, dropout=0.3, attention_dropout=0.2)
    model = plan_config(flags).model
    assert (model.d_model, model.num_classes, model.dropout, model.attention_dropout) == (8, 2, 0.3, 0.2)


def test_a_preset_that_is_not_known_is_refused():
    with pytest.raises(UserError, match=r"--preset: expected a folder, or one of mini, .*t5-xxl.*, got 'nope'"):
        plan_config(PlanFlags("v5e:2x4", "nope"))


@pytest.mark.parametrize("architecture", ["classifier", "masked", "seq2seq"])
def test_a_packed_batch_has_the_shapes_of_training(architecture: Architecture):
    """The number of a row's segments follows from the texts, and so it is the only one that may differ."""
    config = full_rows(replace(SIZES["mini"], architecture=architecture), batch=4, length=64)
    config = replace(config, batch=replace(config.batch, packing=True))
    texts = Sequences([[5] * 32] * 16)
    targets = {"classifier": np.zeros(16, np.int32), "masked": Masking(1, np.arange(4, 9), (0,)), "seq2seq": texts}
    (filler,) = PackedBatches(Encoded(texts, targets[architecture], 0, 1), config.batch, epochs=1, seed=0).fillers()
    planned = abstract_batch(config)
    assert type(planned) is type(filler)
    assert [(array.shape, array.dtype) for array in planned] == [(array.shape, array.dtype) for array in filler]
