"""The PyTorch candidates: the twin eager and compiled, torch.nn's own layers, and Hugging Face's models."""

import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flax_transformer.bench.peers import of_torch_nn, of_transformers
from flax_transformer.bench.worker import Candidate
from flax_transformer.bench.workload import make_batches
from flax_transformer.config import FloatDtype, TrainConfig
from flax_transformer.data.batches import Batch
from torch_reference import load
from torch_reference.nn.losses import cross_entropy, shift_target
from torch_reference.nn.masks import padding_mask
from torch_reference.nn.models import create_model
from torch_reference.training.optim import clip_by_global_norm, create_optimizer, schedule

Kind = Literal["torch", "torch-compile", "torch-nn", "hf"]
_STEPS = 10_000  # of the schedule: more than are timed


def place(batch: Batch, device: str) -> Any:
    return type(batch)(*(torch.as_tensor(array).to(device) for array in batch))


def logits_of(model: Any, batch: Any, padded: bool = True) -> Tensor:
    """Logits of a batch; one without padding needs no lengths."""
    source_lengths = batch.source_lengths if padded else None
    if not hasattr(batch, "target"):
        return model(batch.source, source_lengths)
    decoder_input, _, lengths = shift_target(batch.target, batch.target_lengths)
    return model(batch.source, decoder_input, source_lengths, lengths if padded else None)


def mean_loss(model: Any, batch: Any, padded: bool = True) -> Tensor:
    logits = logits_of(model, batch, padded)
    if not hasattr(batch, "target"):
        loss_sum, count = cross_entropy(logits, batch.labels, batch.source_lengths > 0)
    else:
        _, labels, lengths = shift_target(batch.target, batch.target_lengths)
        loss_sum, count = cross_entropy(logits, labels, padding_mask(lengths, labels.shape[1]))
    return loss_sum / count.clamp(min=1)


class Torch(Candidate):
    """
    Args:
        what: training steps, or forward passes without dropout.
        threads: as many as the other candidates have.
        weights: an export to start from.
        batches: to be run in turns; random tokens if not given.
    """

    def __init__(
        self,
        config: TrainConfig,
        kind: Kind,
        what: Literal["train", "forward"],
        threads: int,
        weights: Path,
        batches: Sequence[Batch] | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(config.seed)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config, self.what, self.weights = config, what, weights
        self.batches = [place(batch, self.device) for batch in batches or make_batches(config, 2)]
        # On a GPU any mask would keep PyTorch from its flash kernel, while cuDNN takes ours as lengths.
        self.padded = batches is not None or self.device == "cpu"
        self.model = self._build(kind).to(self.device).train(what == "train")
        self.optimizer = create_optimizer(config.optimizer, self.model, fused=True)
        self.schedule = schedule(self.optimizer, config.optimizer, _STEPS)
        # A graph that ends early would be slower without a word, so it is an error.
        compiled = functools.partial(torch.compile, dynamic=False, fullgraph=True)
        prepare = compiled if kind == "torch-compile" else lambda run: run
        self._loss, self._logits = prepare(mean_loss), prepare(logits_of)

    def _build(self, kind: Kind) -> Any:
        if kind == "hf":
            return of_transformers(self.config.model)
        twin = load(self.weights)
        return of_torch_nn(twin) if kind == "torch-nn" else twin

    def _autocast(self) -> Any:
        """For modules that know no compute dtype of their own; the twin casts by itself."""
        dtype = getattr(torch, self.config.model.dtype)
        return torch.autocast(self.device, dtype, enabled=dtype == torch.bfloat16)

    def _train(self, batch: Any) -> None:
        self.optimizer.zero_grad()
        with self._autocast():
            loss = self._loss(self.model, batch, self.padded)
        loss.backward()
        if self.config.optimizer.max_grad_norm:
            clip_by_global_norm(self.model.parameters(), self.config.optimizer.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()

    def _evaluate(self, batch: Any) -> None:
        with torch.inference_mode(), self._autocast():
            self._logits(self.model, batch, self.padded)

    def outputs(self, file: Path) -> float:
        """Write the logits of the first batch, without dropout, to ``file``; returns the mean loss."""
        self.model.eval()
        with torch.no_grad(), self._autocast():
            logits = self._logits(self.model, self.batches[0], self.padded)
            loss = mean_loss(self.model, self.batches[0], self.padded)
        self.model.train(self.what == "train")
        np.save(file, logits.float().cpu().numpy())
        return float(loss)

    def twin_outputs(self, dtype: FloatDtype, file: Path) -> float:
        """:meth:`outputs` of a fresh twin on the CPU, by which the effect of rounding can be told."""
        param_dtype = "float64" if dtype == "float64" else "float32"
        twin = create_model(replace(self.config.model, dtype=dtype, param_dtype=param_dtype), self.config.seed)
        twin.load_state_dict(load(self.weights).state_dict())
        batch = place(self.batches[0], "cpu")
        with torch.no_grad():
            logits, loss = logits_of(twin.eval(), batch), mean_loss(twin, batch)
        np.save(file, logits.float().numpy() if dtype == "bfloat16" else logits.numpy())
        return float(loss)

    def time(self, steps: int) -> tuple[float, float]:
        """Seconds until ``steps`` steps were under way, and until they were done."""
        run = self._train if self.what == "train" else self._evaluate
        start = time.perf_counter()
        for i in range(steps):
            run(self.batches[i % len(self.batches)])
        dispatched = time.perf_counter()
        self._synchronize()
        return dispatched - start, time.perf_counter() - start

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def device_memory(self) -> int | None:
        """The most bytes that were in use on the device; None where its memory is the host's."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def matmul_peak(self) -> float:
        """FLOP/s of the fastest of some large matrix products in the config's dtype."""
        size = 2048 if self.device == "cpu" else 8192
        a = torch.randn(size, size, device=self.device).to(getattr(torch, self.config.model.dtype))
        seconds = []
        for _ in range(9):
            self._synchronize()
            start = time.perf_counter()
            torch.matmul(a, a)
            self._synchronize()
            seconds.append(time.perf_counter() - start)
        return 2 * size**3 / min(seconds)
