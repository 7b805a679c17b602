"""What is refused before it does harm: flags that do not go together, and sizes that cannot be."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_transformer.cli import main as cli
from flax_transformer.cli.train import parse_train_flags
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    GenerationConfig,
    ManifestsData,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
    load_config,
)
from flax_transformer.distributed.memory import count_matrix_parameters, require_memory, require_memory_to_train
from flax_transformer.errors import UserError
from flax_transformer.nn.models import create_model
from flax_transformer.runtime import require_precision
from flax_transformer.training.adam import scale_by_adam
from flax_transformer.training.report import Report


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--processes.num-processes", "2", "--processes.process-id", "1"], "coordinator-address too"),
        (["--processes.num-processes", "2"], "num-processes: expected --processes.coordinator-address too"),
        (["--processes.process-id", "0"], "process-id: expected --processes.coordinator-address too"),
        (["--processes.coordinator-address", "localhost"], "expected HOST:PORT, or auto, got 'localhost'"),
        (["--processes.coordinator-address", "localhost:"], "expected HOST:PORT"),
        (["--processes.coordinator-address", ":1234"], "expected HOST:PORT"),
        (["--processes.coordinator-address", "a:0"], "expected HOST:PORT"),
        (["--processes.coordinator-address", "a:65536"], "expected HOST:PORT"),
        (["--processes.coordinator-address", "a:x"], "expected HOST:PORT"),
        (["--processes.coordinator-address", ""], "expected HOST:PORT"),
        (["--processes.coordinator-address", "a:1"], "expected --processes.num-processes N"),
        (["--processes.coordinator-address", "a:1", "--processes.num-processes", "2"], "got 2 and None"),
        *(
            (
                ["--processes.coordinator-address", "a:1", "--processes.num-processes", n, "--processes.process-id", i],
                f"got {n} and {i}",
            )
            for n, i in (("2", "2"), ("2", "-1"), ("0", "0"), ("-1", "0"))
        ),
        (["--processes.coordinator-address", "auto", "--processes.process-id", "1"], "auto finds process_id itself"),
    ],
)
@pytest.mark.sample(6)
def test_a_process_never_trains_alone_by_mistake(flags: list[str], message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_train_flags("manifests", flags)


def test_processes_that_can_find_each_other_are_taken():
    address = ["--processes.coordinator-address", "[::1]:1234"]
    flags = [*address, "--processes.num-processes", "2", "--processes.process-id", "1"]
    assert parse_train_flags("manifests", flags)[3].process_id == 1
    assert parse_train_flags("manifests", ["--processes.coordinator-address", "auto"])[3].num_processes is None
    assert parse_train_flags("manifests", [])[3].coordinator_address is None


HUGE = 10**12


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *((ModelConfig, name) for name in ("d_model", "d_ff", "num_encoder_layers", "num_decoder_layers")),
        *((ModelConfig, name) for name in ("max_length", "source_vocab_size", "target_vocab_size", "num_classes")),
        *((BatchConfig, name) for name in ("size", "max_source_length", "max_target_length", "buckets")),
        *((GenerationConfig, name) for name in ("max_new_tokens", "min_new_tokens", "top_k", "seed")),
        *((ManifestsData, name) for name in ("train_size", "validation_size", "test_size", "max_items")),
        (TokenizerConfig, "vocab_size"),
        (OptimizerConfig, "warmup_steps"),
        *((TrainConfig, name) for name in ("epochs", "log_every", "checkpoint_every", "max_skipped", "seed")),
    ],
)
@pytest.mark.parametrize("value", [HUGE, 10**30, -1, -HUGE])
def test_sizes_that_cannot_be_are_refused_by_name(kind: Any, field: str, value: int):
    with pytest.raises(UserError, match=rf"{field}: expected"):
        kind(**{field: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"d_model": 2**21},
        {"d_ff": 2**31 - 1},
        {"max_length": 2**31 - 1},
        {"max_length": 2**31 - 1, "positions": "rope"},
        {"max_length": 2**31 - 1, "positions": "learned"},
        {"source_vocab_size": 2**31 - 1, "target_vocab_size": 2**31 - 1},
        {"num_encoder_layers": 1000, "d_model": 2**14},
        {"architecture": "classifier", "num_classes": 2**31 - 1},
    ],
    ids=str,
)
def test_a_model_that_cannot_fit_is_refused_before_it_is_made(changes: dict[str, Any]):
    with pytest.raises(UserError, match=r"expected a model and a batch that fit into the .* GiB of a device, got"):
        require_memory(replace(ModelConfig(), **changes))


def test_a_batch_or_a_schedule_that_cannot_fit_is_refused():
    config = TrainConfig()
    require_memory_to_train(config, 1_000_000)
    with pytest.raises(UserError, match=r"expected at most 50,000,000 steps, got 60,000,000"):
        require_memory_to_train(config, 60_000_000)
    wide = replace(config, batch=BatchConfig(size=2**20), model=replace(config.model, d_model=2**14))
    with pytest.raises(UserError, match=r"batch .* GiB; take a smaller one"):
        require_memory_to_train(wide, 10)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architecture": "classifier", "num_classes": 7},
        {"tie_embeddings": "none", "target_vocab_size": 900},
        {"positions": "learned", "max_length": 77},
        {"positions": "learned", "architecture": "classifier"},
        {"positions": "rope", "num_decoder_layers": 1},
    ],
    ids=str,
)
def test_parameters_are_counted_as_they_are(changes: dict[str, Any]):
    """All but norms and biases, which the count leaves out."""
    sizes = {"d_model": 64, "num_heads": 2, "d_ff": 96, "source_vocab_size": 700, "target_vocab_size": 700}
    config = replace(ModelConfig(), **(sizes | changes))
    shapes = jax.tree.leaves(nnx.state(nnx.eval_shape(lambda: create_model(config, seed=0)), nnx.Param))
    assert count_matrix_parameters(config) == sum(math.prod(leaf.shape) for leaf in shapes if len(leaf.shape) > 1)


@pytest.mark.parametrize("eps", [0.0, -1e-8, 1e-46, 1e-39, math.inf, math.nan])
def test_an_epsilon_that_divides_by_zero_is_refused(eps: float):
    with pytest.raises(UserError, match=r"eps: expected a finite number above 0, at least 1\.2e-38"):
        OptimizerConfig(eps=eps)


@pytest.mark.parametrize("eps", [1e-8, 1e-30, 2.0**-126])
def test_a_gradient_of_zero_moves_nothing_whatever_the_epsilon(eps: float):
    """Which is what the bound on it is for."""
    params = {"w": jnp.ones(3)}
    adam = scale_by_adam(0.9, 0.999, OptimizerConfig(eps=eps).eps)
    updates, _ = jax.jit(adam.update)({"w": jnp.zeros(3)}, adam.init(params), params)
    np.testing.assert_array_equal(updates["w"], np.zeros(3))


@pytest.mark.parametrize("field", ["dtype", "param_dtype"])
def test_float64_is_never_made_float32_of(field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = replace(ModelConfig(), **{field: "float64"})
    with pytest.raises(UserError, match=rf"model\.{field}=float64 needs jax in 64 bits; set JAX_ENABLE_X64=1"):
        require_precision(config)
    with jax.enable_x64(True):
        require_precision(config)
    require_precision(ModelConfig(dtype="bfloat16"))
    flag = f"--model.{field.replace('_', '-')}"
    assert cli.main(["train", "manifests", flag, "float64", "--run", str(tmp_path / "run")]) == 2
    assert "set JAX_ENABLE_X64=1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "", "\x00", "[1]", "null"])
def test_a_config_that_is_none_is_one_line(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        load_config(TrainConfig, tmp_path / "config.json")


def test_damaged_metrics_do_not_end_a_run(tmp_path: Path):
    good = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3, 9)]
    damaged = ["{", "[]", "{}", '{"step": "two"}', '{"step": null}', "\x00\x00", "7", "[" * 100_000, "\ufffd"]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(("\n".join([*good[:2], *damaged, *good[2:]]) + "\n").encode() + b'\xff\xfe\n{"step": 2, "lo')
    with Report(tmp_path, step=3, total_steps=9, steps_per_epoch=3, log_every=1, max_skipped=1):
        pass
    assert metrics.read_text(encoding="utf-8").splitlines() == good[:3]


def test_verify_ignores_no_run_that_it_is_to_compare_with(tmp_path: Path):
    from flax_transformer.parity.targets import load_target

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="--run: expected an export of nope to compare with it, got the run"):
        load_target(tmp_path, None, Path("nope"))
    with pytest.raises(UserError, match="--run: expected an export to compare with the run, got a preset"):
        load_target(None, "small", Path("nope"))


def test_attention_that_cannot_serve_is_refused_before_the_folder_is_made(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """So that the corrected command is not refused too."""
    for backend in ("cudnn", "flash"):
        flags = ["--data.path", str(reviews), "--run", str(tmp_path / "run"), "--tokenizer.vocab-size", "300"]
        assert cli.main(["train", "classification", *flags, "--model.attention-backend", backend]) == 2
        assert f"attention_backend='{backend}' needs a" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_labels_of_the_config_are_checked_too():
    with pytest.raises(UserError, match=r"BatchConfig\.long: expected one of auto, cut, skip, error"):
        BatchConfig(long="drop")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="architecture"):
        TrainConfig(data=ClassificationData())
