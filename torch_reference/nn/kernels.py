"""PyTorch's own fused attention, and which kernel serves a config."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from flax_transformer.config import AttentionBackend
from flax_transformer.errors import UserError
from torch_reference.nn.masks import AttentionMask


def fused_attention(
    query: Float[Tensor, "batch queries heads head_dim"],
    key: Float[Tensor, "batch keys heads head_dim"],
    value: Float[Tensor, "batch keys heads head_dim"],
    mask: AttentionMask,
    scale: float | None = None,
    drop_rate: float = 0.0,
) -> Float[Tensor, "batch queries heads head_dim"]:
    """torch's own scaled_dot_product_attention, whichever kernel it picks: what one deploys."""
    # A mask written out would keep torch from its flash kernel.
    only_causal = mask.causal and mask.key_lengths is None and mask.dense is None and mask.bias is None
    only_causal = only_causal and mask.query_segments is None
    # torch.compile has symbols for lengths that vary, and the kernel asks for a bool.
    only_causal = only_causal and mask.query_offset == 0 and bool(query.shape[1] == key.shape[1])
    allowed = None if only_causal else mask.materialize(query.shape[1], key.shape[1], query.device)
    if mask.bias is not None:
        bias = mask.bias.to(query.dtype)
        allowed = bias if allowed is None else torch.where(allowed, bias, -torch.inf)
    by_head = (x.transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(
        *by_head, attn_mask=allowed, dropout_p=drop_rate, is_causal=only_causal, scale=scale
    ).transpose(1, 2)


def choose_backend(backend: AttentionBackend) -> AttentionBackend:
    """``auto`` is torch's fused attention; ``xla`` and ``blockwise``, which computes the same, are plain attention.

    cuDNN and TPU kernels are the JAX twin's.

    Raises:
        UserError: the named backend does not exist in PyTorch.
    """
    if backend not in ("auto", "xla", "blockwise"):
        raise UserError(
            f"attention_backend={backend!r} is not available in PyTorch; choose auto or xla (plain attention)"
        )
    return backend
