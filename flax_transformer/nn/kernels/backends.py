"""Which kernel serves a request of attention: decided while tracing, from shapes, dtype, mask and platform."""

import functools
import logging

import jax.numpy as jnp
from jaxtyping import Array

from flax_transformer.config import AttentionBackend
from flax_transformer.distributed.mesh import target_platform
from flax_transformer.errors import UserError
from flax_transformer.intermediates import is_recording
from flax_transformer.nn.masks import AttentionMask

log = logging.getLogger(__name__)


def unsupported_reason(
    backend: AttentionBackend, query: Array, key: Array, mask: AttentionMask, drops_weights: bool, platform: str
) -> str | None:
    """Why a backend cannot serve a request, or None if it can."""
    if backend in ("xla", "blockwise"):
        return None
    needed = {"cudnn": "gpu", "flash": "tpu"}[backend]
    if platform != needed:
        return f"needs a {needed.upper()}, the platform is {platform}"
    if drops_weights:
        return "cannot drop attention weights (attention_dropout > 0)"
    if mask.dense is not None:
        return "takes key lengths and causality, not a dense mask"
    if mask.query_segments is not None and backend == "cudnn":
        return "takes key lengths, which cannot tell the segments of packed rows apart"
    if mask.query_segments is not None and mask.key_lengths is not None:
        return "takes segments or key lengths, not both"
    if mask.bias is not None:
        return "cannot add a bias to the scores (relative_buckets > 0)"
    if not (isinstance(mask.query_offset, int) and mask.query_offset == 0):
        return "cannot mask queries that start behind the first key (cached decoding)"
    if mask.causal and query.shape[1] != key.shape[1]:
        return "needs as many queries as keys under a causal mask"
    if backend == "cudnn" and query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"needs bfloat16 or float16, got {query.dtype}"
    if backend == "cudnn" and (query.shape[-1] % 8 or query.shape[-1] > 128):
        return f"needs head_dim to be a multiple of 8 up to 128, got {query.shape[-1]}"
    if backend == "flash" and query.dtype not in (jnp.bfloat16, jnp.float32):
        return f"needs bfloat16 or float32, got {query.dtype}"
    if backend == "flash" and query.shape[-1] > 128 and query.shape[-1] % 128:
        return f"needs head_dim to be at most 128 or a multiple of it, got {query.shape[-1]}"
    if backend == "flash" and (query.shape[1] % 128 or key.shape[1] % 128):
        return f"needs lengths that are multiples of 128, got {query.shape[1]} queries and {key.shape[1]} keys"
    return None


_FASTEST: dict[str, AttentionBackend] = {"gpu": "cudnn", "tpu": "flash"}
# From how many scores of a head on auto computes them block by block. On a CPU blocks are then as fast and take less
# memory (docs/PERFORMANCE.md). Elsewhere that was not measured: there they begin where scores fill the memory.
_LONG = {"cpu": 512**2}
_LONG_ELSEWHERE = 4096**2


def takes_blocks(backend: AttentionBackend, queries: int, keys: int, platform: str | None = None) -> bool:
    """Whether attention without a flash kernel is computed block by block: where asked for, and under auto if long.

    Never under a recorder, which is to see the weights, and to replace what is dropped.
    """
    if is_recording() or backend not in ("auto", "blockwise"):
        return False
    return backend == "blockwise" or queries * keys >= _LONG.get(platform or target_platform(), _LONG_ELSEWHERE)


@functools.cache
def _log_once(message: str) -> None:
    log.info(message)


def choose_backend(
    backend: AttentionBackend,
    query: Array,
    key: Array,
    mask: AttentionMask,
    drops_weights: bool,
    platform: str | None = None,
) -> AttentionBackend:
    """The backend that serves a request: decided while tracing, from shapes, dtype, mask structure and platform.

    Raises:
        UserError: a backend was named that cannot serve the request. ``auto`` falls back to ``blockwise`` or ``xla``,
            whichever is faster for the lengths, and logs why, once.
    """
    platform = platform or target_platform()
    in_blocks = takes_blocks(backend, query.shape[1], key.shape[1], platform)
    if backend in ("auto", "blockwise"):
        fallback = "blockwise" if in_blocks else "xla"
        fastest = _FASTEST.get(platform, fallback) if backend == "auto" else fallback
        reason = unsupported_reason(fastest, query, key, mask, drops_weights, platform)
        if reason is None:
            return fastest
        _log_once(f"attention falls back from {fastest} to {fallback}: {fastest} {reason}")
        return fallback
    reason = unsupported_reason(backend, query, key, mask, drops_weights, platform)
    if reason is not None:
        raise UserError(f"attention_backend={backend!r} {reason}; choose another backend, or auto")
    return backend
