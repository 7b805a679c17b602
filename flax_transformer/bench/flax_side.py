"""The JAX candidate: the model and the step that the command line trains with."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flax_transformer.bench.worker import Candidate
from flax_transformer.bench.workload import make_batches
from flax_transformer.config import TrainConfig
from flax_transformer.data.batches import Batch
from flax_transformer.interop.export import save_export
from flax_transformer.nn.losses import shift_target
from flax_transformer.runtime import keep_freed_memory
from flax_transformer.training.step import TrainStep, batch_loss

_STEPS = 10_000  # of the schedule: more than are timed


def set_up(config: TrainConfig) -> None:
    """As the command line does it, with products as exact as PyTorch's are by default."""
    keep_freed_memory()
    if config.model.dtype == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")


def model_logits(model: Any, batch: Any) -> Any:
    """Of an evaluation, without dropout."""
    if not hasattr(batch, "target"):
        return model(batch.source, batch.source_lengths)
    decoder_input, _, lengths = shift_target(batch.target, batch.target_lengths)
    return model(batch.source, decoder_input, batch.source_lengths, lengths)


class Device(Candidate):
    """What JAX runs on."""

    def describe(self) -> dict[str, str]:
        device = jax.devices()[0]
        return {"platform": device.platform, "kind": device.device_kind}


class Flax(Candidate):
    """
    Args:
        what: training steps, or forward passes without dropout.
        batches: to be run in turns; random tokens if not given.
    """

    def __init__(
        self, config: TrainConfig, what: Literal["train", "forward"], batches: Sequence[Batch] | None = None
    ) -> None:
        set_up(config)
        self.config = config
        self.batches = [jax.device_put(batch) for batch in batches or make_batches(config, 2)]
        self.step = TrainStep(config, _STEPS)
        self.state = self.step.init()
        graph = self.step.graph
        # Not nnx.jit, which takes the model apart in each call: 10 ms for a small one.
        self._forward = jax.jit(lambda params, batch: model_logits(nnx.merge(graph, params), batch))
        self._run: Callable[[Batch], Any] = self._train if what == "train" else self._evaluate

    def _train(self, batch: Batch) -> Any:
        self.state, metrics = self.step(self.state, batch)
        return metrics["loss"]

    def _evaluate(self, batch: Batch) -> Any:
        return self._forward(self.state.params, batch)

    def save_weights(self, folder: Path) -> None:
        """An export, for the other candidates to start from."""
        save_export(folder, self.step.model(self.state))

    def outputs(self, file: Path) -> float:
        """Write the logits of the first batch, without dropout, to ``file``; returns the mean loss."""
        batch = self.batches[0]
        logits = self._forward(self.state.params, batch)
        np.save(file, np.asarray(logits.astype(jnp.promote_types(logits.dtype, jnp.float32))))
        loss_sum, count = nnx.jit(batch_loss)(self.step.model(self.state), batch)
        return float(loss_sum / count)

    def time(self, steps: int) -> tuple[float, float]:
        """Seconds until ``steps`` steps were under way, and until they were done."""
        start = time.perf_counter()
        for i in range(steps):
            done = self._run(self.batches[i % len(self.batches)])
        dispatched = time.perf_counter()
        jax.block_until_ready((done, self.state))
        return dispatched - start, time.perf_counter() - start

    def device_memory(self) -> int | None:
        """The most bytes that were in use on the device; None where its memory is the host's."""
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    def matmul_peak(self) -> float:
        """FLOP/s of the fastest of some large matrix products in the config's dtype."""
        size = 2048 if jax.default_backend() == "cpu" else 8192
        a = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(self.config.model.dtype))
        multiply = jax.jit(jnp.matmul)
        multiply(a, a).block_until_ready()
        seconds = []
        for _ in range(8):
            start = time.perf_counter()
            multiply(a, a).block_until_ready()
            seconds.append(time.perf_counter() - start)
        return 2 * size**3 / min(seconds)
