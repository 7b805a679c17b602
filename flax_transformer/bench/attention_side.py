"""Attention alone, forward and backward, in a process of its own."""

import time
from typing import Any

import numpy as np

from flax_transformer.bench.worker import Candidate


class _Attention(Candidate):
    """
    Args:
        shape: batch, heads, head_dim and dtype.
    """

    def __init__(self, backend: str, shape: dict[str, Any], threads: int) -> None:
        self.backend, self.shape, self.threads = backend, shape, threads
        self.rng = np.random.default_rng(0)
        self.prepare()
        self.before = self.peak()

    def prepare(self) -> None:
        """Load the framework."""

    def compile(self, length: int) -> Any:
        """A function that runs once and waits for the end."""

    def peak(self) -> int:
        memory = self.memory()
        return memory.get("device", memory["rss"])

    def draw(self, length: int) -> Any:
        size = (self.shape["batch"], length, self.shape["heads"], self.shape["head_dim"])
        return self.rng.standard_normal(size, np.float32)

    def start(self, length: int) -> None:
        """Compile, and run once without being timed."""
        self.run = self.compile(length)
        self.run()

    def once(self) -> tuple[float, float]:
        """Seconds of a run, and seconds that it kept processors busy, which other programs hardly change."""
        start, busy = time.perf_counter(), time.process_time()
        self.run()
        return time.perf_counter() - start, time.process_time() - busy

    def memory_used(self) -> int:
        """Bytes at the peak so far, beyond those before the first run."""
        return self.peak() - self.before


class FlaxAttention(_Attention):
    def prepare(self) -> None:
        import jax

        from flax_transformer.runtime import keep_freed_memory

        keep_freed_memory()
        jax.block_until_ready(jax.jit(lambda x: x + 1)(0))

    def compile(self, length: int) -> Any:
        import jax
        import jax.numpy as jnp

        from flax_transformer.nn.attention import plain_attention
        from flax_transformer.nn.kernels.backends import choose_backend
        from flax_transformer.nn.kernels.blockwise import blockwise_attention
        from flax_transformer.nn.kernels.flash import cudnn_attention, flash_attention
        from flax_transformer.nn.masks import AttentionMask

        kernel: Any = {
            "xla": plain_attention,
            "blockwise": blockwise_attention,
            "cudnn": cudnn_attention,
            "flash": flash_attention,
        }[self.backend]
        dtype = jnp.dtype(self.shape["dtype"])
        query, key, value, upstream = (jnp.asarray(self.draw(length), dtype) for _ in range(4))
        mask = AttentionMask()
        backend: Any = self.backend
        choose_backend(backend, query, key, mask, drops_weights=False)  # refuses in plain words

        @jax.jit
        def run(query: Any, key: Any, value: Any) -> Any:
            attended, backward = jax.vjp(lambda *qkv: kernel(*qkv, mask), query, key, value)
            return attended, backward(upstream)

        return lambda: jax.block_until_ready(run(query, key, value))

    def device_memory(self) -> int | None:
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


class TorchAttention(_Attention):
    def prepare(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.ones(1, device=self.device, requires_grad=True).sum().backward()

    def compile(self, length: int) -> Any:
        import torch

        from torch_reference.nn.attention import plain_attention
        from torch_reference.nn.kernels import fused_attention
        from torch_reference.nn.masks import AttentionMask

        kernel: Any = {"plain": plain_attention, "fused": fused_attention}[self.backend]
        dtype = getattr(torch, self.shape["dtype"])
        query, key, value, upstream = (torch.as_tensor(self.draw(length)).to(self.device, dtype) for _ in range(4))
        inputs = [x.requires_grad_() for x in (query, key, value)]
        mask = AttentionMask()

        def run() -> None:
            torch.autograd.grad(kernel(*inputs, mask), inputs, upstream)
            if self.device == "cuda":
                torch.cuda.synchronize()

        return run

    def device_memory(self) -> int | None:
        import torch

        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None
