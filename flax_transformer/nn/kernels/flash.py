"""Flash attention (Dao et al., 2022): cuDNN on GPU, Pallas splash attention on TPU. Memory is linear in the length."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from flax_transformer.distributed.mesh import current_mesh, partition
from flax_transformer.nn.masks import AttentionMask, padding_mask

# By this name rematerialisation may keep what the flash kernel has computed.
FLASH_OUTPUTS = "flash attention"


def _zero_rows_without_keys(kernel: Callable[[AttentionMask], Array], mask: AttentionMask) -> Array:
    """Run a kernel that cannot serve queries without a real key, and give those the zeros they should have."""
    if mask.query_segments is not None and mask.key_segments is not None:
        # Segments count up from 1, so a row has all of them up to its largest.
        has_key = (mask.query_segments > 0) & (mask.query_segments <= mask.key_segments.max(axis=1, keepdims=True))
        return jnp.where(has_key[:, :, None, None], kernel(mask), 0)
    if mask.key_lengths is None:
        return kernel(mask)
    attended = kernel(AttentionMask(jnp.maximum(mask.key_lengths, 1), mask.causal))
    return jnp.where((mask.key_lengths > 0)[:, None, None, None], attended, 0)


def cudnn_attention(query: Array, key: Array, value: Array, mask: AttentionMask, scale: float | None = None) -> Array:
    """cuDNN's flash attention: memory linear in the length. Shapes as in :func:`plain_attention`."""
    return _zero_rows_without_keys(
        lambda mask: jax.nn.dot_product_attention(
            query,
            key,
            value,
            scale=scale,
            is_causal=mask.causal,
            query_seq_lengths=None if mask.key_lengths is None else jnp.full_like(mask.key_lengths, query.shape[1]),
            key_value_seq_lengths=mask.key_lengths,
            implementation="cudnn",
        ),
        mask,
    )


def flash_attention(query: Array, key: Array, value: Array, mask: AttentionMask, scale: float | None = None) -> Array:
    """The Pallas splash attention of TPU: memory linear in the length. Shapes as in :func:`plain_attention`.

    It is flash attention (Dao et al., 2022) that leaves out the blocks above the diagonal of a causal mask.
    """
    # TPU only, and slow to import.
    from jax.experimental.pallas.ops.tpu import splash_attention as pallas

    factor = query.shape[-1] ** -0.5 if scale is None else scale

    def attend(query: Array, key: Array, value: Array, segments: Any) -> Array:
        shape = (query.shape[1], key.shape[1])
        one_head = (pallas.CausalMask if mask.causal else pallas.FullMask)(shape)
        kernel = pallas.make_splash_mha_single_device(
            pallas.MultiHeadMask([one_head] * query.shape[2]),
            block_sizes=_flash_blocks(*shape),
            residual_checkpoint_name=FLASH_OUTPUTS,
        )
        by_head = (jnp.swapaxes(x, 1, 2) for x in (query * factor, key, value))
        attended: Any = jax.vmap(kernel)(*by_head, segments)
        return jnp.swapaxes(attended, 1, 2)

    def kernel(mask: AttentionMask) -> Array:
        segments = None
        if mask.key_lengths is not None:
            real_keys = padding_mask(mask.key_lengths, key.shape[1])
            segments = pallas.SegmentIds(jnp.ones(query.shape[:2], jnp.int32), real_keys.astype(jnp.int32))
        elif mask.query_segments is not None and mask.key_segments is not None:
            segments = pallas.SegmentIds(mask.query_segments, mask.key_segments)
        return _on_every_device(attend, query, key, value, segments)

    return _zero_rows_without_keys(kernel, mask)


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


def _on_every_device(attend: Callable[..., Array], query: Array, key: Array, value: Array, segments: Any) -> Array:
    """Attend on each device to its own rows and heads: XLA cannot cut a Pallas kernel by itself."""
    mesh = current_mesh()
    if mesh is None:
        return attend(query, key, value, segments)
    sequences = partition(("batch", None, "heads", None), query.shape, mesh.shape)
    rows = partition(("batch",), query.shape[:1], mesh.shape)
    # A kernel's outputs do not say along which axes of the mesh they vary, so that check is off.
    specs = (sequences, sequences, sequences, rows)
    return jax.shard_map(attend, in_specs=specs, out_specs=sequences, check_vma=False)(query, key, value, segments)
