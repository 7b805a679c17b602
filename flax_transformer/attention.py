"""Scaled dot-product attention and its multi-head layer (Vaswani et al., 2017, section 3.2)."""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import AttentionBackend, ModelConfig
from flax_transformer.dropout import Dropout
from flax_transformer.errors import UserError
from flax_transformer.linear import TORCH_PACKED_PROJECTION, Linear
from flax_transformer.masks import AttentionMask, padding_mask
from flax_transformer.mesh import current_mesh, partition, target_platform
from flax_transformer.positions import rotate
from flax_transformer.taps import tap

log = logging.getLogger(__name__)


# By this name rematerialisation may keep what the flash kernel has computed.
FLASH_OUTPUTS = "flash attention"


class KeyValue(NamedTuple):
    """Projected keys and values: of the memory, or of the tokens decoded so far.

    Heads come first, as matrix products read them: otherwise each new token would transpose the whole of both again.
    """

    key: Float[Array, "batch heads keys head_dim"]
    value: Float[Array, "batch heads keys head_dim"]


def attention_weights(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    mask: AttentionMask,
) -> Float[Array, "batch heads queries keys"]:
    """``softmax(q k^T / sqrt(head_dim))`` over the keys that the mask allows, in at least float32.

    A query that may attend to no key has zero weights, and finite gradients.
    """
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    query, key = jnp.swapaxes(query, 1, 2), jnp.swapaxes(key, 1, 2)  # (batch, heads, length, head_dim)
    # Both contracted over their last axis: a key with its axes swapped would be copied on CPU.
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=dtype) * query.shape[-1] ** -0.5
    allowed = mask.materialize(scores.shape[-2], scores.shape[-1])
    if allowed is None:
        return jax.nn.softmax(scores, axis=-1)
    weights = jax.nn.softmax(jnp.where(allowed, scores, jnp.finfo(dtype).min), axis=-1)
    return jnp.where(allowed, weights, 0)


def plain_attention(
    query: Float[Array, "batch queries heads head_dim"],
    key: Float[Array, "batch keys heads head_dim"],
    value: Float[Array, "batch keys heads head_dim"],
    mask: AttentionMask,
    on_weights: Callable[[Array], Array] = lambda weights: weights,
) -> Float[Array, "batch queries heads head_dim"]:
    """Attention with its weights written out; ``on_weights`` may drop some of them."""
    weights = on_weights(attention_weights(query, key, mask)).astype(value.dtype)
    return jnp.swapaxes(jnp.matmul(weights, jnp.swapaxes(value, 1, 2)), 1, 2)


def _zero_rows_without_keys(kernel: Callable[[AttentionMask], Array], mask: AttentionMask) -> Array:
    """Run a kernel that cannot serve rows without a real key, and give those rows the zeros they should have."""
    if mask.key_lengths is None:
        return kernel(mask)
    attended = kernel(AttentionMask(jnp.maximum(mask.key_lengths, 1), mask.causal))
    return jnp.where((mask.key_lengths > 0)[:, None, None, None], attended, 0)


def cudnn_attention(query: Array, key: Array, value: Array, mask: AttentionMask) -> Array:
    """cuDNN's flash attention: memory linear in the length. Shapes as in :func:`plain_attention`."""
    return _zero_rows_without_keys(
        lambda mask: jax.nn.dot_product_attention(
            query,
            key,
            value,
            is_causal=mask.causal,
            query_seq_lengths=None if mask.key_lengths is None else jnp.full_like(mask.key_lengths, query.shape[1]),
            key_value_seq_lengths=mask.key_lengths,
            implementation="cudnn",
        ),
        mask,
    )


def flash_attention(query: Array, key: Array, value: Array, mask: AttentionMask) -> Array:
    """The Pallas splash attention of TPU: memory linear in the length. Shapes as in :func:`plain_attention`.

    It is flash attention (Dao et al., 2022) that leaves out the blocks above the diagonal of a causal mask.
    """
    # TPU only, and slow to import.
    from jax.experimental.pallas.ops.tpu import splash_attention as pallas

    def attend(query: Array, key: Array, value: Array, key_lengths: Array | None) -> Array:
        shape = (query.shape[1], key.shape[1])
        one_head = (pallas.CausalMask if mask.causal else pallas.FullMask)(shape)
        kernel = pallas.make_splash_mha_single_device(
            pallas.MultiHeadMask([one_head] * query.shape[2]),
            block_sizes=_flash_blocks(*shape),
            residual_checkpoint_name=FLASH_OUTPUTS,
        )
        segments = None
        if key_lengths is not None:
            real_keys = padding_mask(key_lengths, key.shape[1])
            segments = pallas.SegmentIds(jnp.ones(query.shape[:2], jnp.int32), real_keys.astype(jnp.int32))
        by_head = (jnp.swapaxes(x, 1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
        attended: Any = jax.vmap(kernel)(*by_head, segments)
        return jnp.swapaxes(attended, 1, 2)

    return _zero_rows_without_keys(lambda mask: _on_every_device(attend, query, key, value, mask.key_lengths), mask)


def _flash_blocks(queries: int, keys: int) -> Any:
    """Blocks of up to 512 tokens: the fewest passes over keys and values whose scores fit on the chip.

    Where one block holds all keys, a single kernel computes all three gradients; otherwise it would write out a
    gradient of the queries for each block of keys.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes

    of_queries, of_keys = (max(size for size in (128, 256, 512) if length % size == 0) for length in (queries, keys))
    fused = keys == of_keys
    return BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_q_dq=None if fused else of_queries,
        block_kv_dq=None if fused else of_keys,
        use_fused_bwd_kernel=fused,
    )


def _on_every_device(
    attend: Callable[..., Array], query: Array, key: Array, value: Array, key_lengths: Int[Array, " batch"] | None
) -> Array:
    """Attend on each device to its own rows and heads: XLA cannot cut a Pallas kernel by itself."""
    mesh = current_mesh()
    if mesh is None:
        return attend(query, key, value, key_lengths)
    sequences = partition(("batch", None, "heads", None), query.shape, mesh.shape)
    rows = partition(("batch",), query.shape[:1], mesh.shape)
    # A kernel's outputs do not say along which axes of the mesh they vary, so that check is off.
    specs = (sequences, sequences, sequences, rows)
    return jax.shard_map(attend, in_specs=specs, out_specs=sequences, check_vma=False)(query, key, value, key_lengths)


def refusal(
    backend: AttentionBackend, query: Array, key: Array, mask: AttentionMask, drops_weights: bool, platform: str
) -> str | None:
    """Why a backend cannot serve a request, or None if it can."""
    if backend == "xla":
        return None
    needed = {"cudnn": "gpu", "flash": "tpu"}[backend]
    if platform != needed:
        return f"needs a {needed.upper()}, the platform is {platform}"
    if drops_weights:
        return "cannot drop attention weights (attention_dropout > 0)"
    if mask.dense is not None:
        return "takes key lengths and causality, not a dense mask"
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
        UserError: a backend was named that cannot serve the request. ``auto`` falls back to ``xla`` and logs why, once.
    """
    platform = platform or target_platform()
    if backend == "auto":
        fastest = _FASTEST.get(platform, "xla")
        reason = refusal(fastest, query, key, mask, drops_weights, platform)
        if reason is None:
            return fastest
        _log_once(f"attention falls back from {fastest} to xla: {fastest} {reason}")
        return "xla"
    reason = refusal(backend, query, key, mask, drops_weights, platform)
    if reason is not None:
        raise UserError(f"attention_backend={backend!r} {reason}; choose another backend, or auto")
    return backend


class MultiHeadAttention(nnx.Module):
    """``concat_h(softmax(q_h k_h^T / sqrt(head_dim)) v_h) W_o``, with q = x W_q, k = memory W_k, v = memory W_v.

    torch.nn.MultiheadAttention packs W_q, W_k and W_v into one matrix and stores each transposed.

    Args:
        is_self_attention: queries and keys come from one sequence, so that rope applies.
    """

    def __init__(self, config: ModelConfig, *, is_self_attention: bool, rngs: nnx.Rngs) -> None:
        self.config = config
        self.uses_rope = is_self_attention and config.positions == "rope"
        zeros = nnx.initializers.zeros
        # torch.nn.MultiheadAttention starts all its biases at zero.
        packed = {"axes": ("embed", "heads"), "torch_kernel": TORCH_PACKED_PROJECTION, "torch_bias": zeros}
        self.query = Linear(config.d_model, config.d_model, config, rngs=rngs, **packed)
        self.key = Linear(config.d_model, config.d_model, config, rngs=rngs, **packed)
        self.value = Linear(config.d_model, config.d_model, config, rngs=rngs, **packed)
        self.output = Linear(
            config.d_model, config.d_model, config, axes=("heads", "embed"), rngs=rngs, torch_bias=zeros
        )
        self.dropout = Dropout(config.attention_dropout)

    def _split_heads(self, x: Float[Array, "batch length d_model"]) -> Float[Array, "batch length heads head_dim"]:
        return x.reshape(*x.shape[:2], self.config.num_heads, self.config.head_dim)

    def _rotate(self, x: Array, offset: int | Int[Array, ""]) -> Array:
        return rotate(x, offset, self.config.max_length) if self.uses_rope else x

    def project(self, memory: Float[Array, "batch keys d_model"], offset: int | Int[Array, ""] = 0) -> KeyValue:
        """Keys and values of a sequence whose first token stands at ``offset``."""
        key = tap(self, "key", self._rotate(self._split_heads(self.key(memory)), offset))
        value = tap(self, "value", self._split_heads(self.value(memory)))
        return KeyValue(jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2))

    def __call__(
        self,
        x: Float[Array, "batch queries d_model"],
        memory: KeyValue,
        mask: AttentionMask,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch queries d_model"]:
        query = tap(self, "query", self._rotate(self._split_heads(self.query(x)), mask.query_offset))
        key, value = jnp.swapaxes(memory.key, 1, 2), jnp.swapaxes(memory.value, 1, 2)
        drops_weights = rngs is not None and self.config.attention_dropout > 0
        match choose_backend(self.config.attention_backend, query, key, mask, drops_weights):
            case "cudnn":
                heads = cudnn_attention(query, key, value, mask)
            case "flash":
                heads = flash_attention(query, key, value, mask)
            case _:
                heads = plain_attention(
                    query,
                    key,
                    value,
                    mask,
                    lambda weights: self.dropout(tap(self, "weights", weights), rngs),
                )
        heads = tap(self, "heads", heads)
        return self.output(heads.reshape(*x.shape[:2], self.config.d_model))
