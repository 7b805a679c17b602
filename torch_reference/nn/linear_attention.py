"""Linear attention: a feature map in place of the softmax (Katharopoulos et al., 2020, "Transformers are RNNs").

Without a softmax the sums over keys can be taken before a query reads them. What is kept of all keys and values has one
size, however many there are: time and memory are linear in the length, and a further token costs the same at any place.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from flax_transformer.errors import UserError
from flax_transformer.intermediates import record
from torch_reference.dtypes import compute_dtype
from torch_reference.nn.attention import HeadProjections
from torch_reference.nn.masks import AttentionMask, padding_mask

# Tokens that see each other directly in the causal form; all before them are read from the sums.
CHUNK = 64

Lengths = Int[Tensor, " batch"] | None


class LinearState(NamedTuple):
    """What is kept of all keys and values: ``sum_j phi(k_j) v_j^T`` and ``sum_j phi(k_j)``, in at least float32."""

    products: Float[Tensor, "batch heads head_dim head_dim"]
    keys: Float[Tensor, "batch heads head_dim"]


def feature_map(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``elu(x) + 1`` (section 3.2.1), in at least float32. Positive: written with expm1, it would round down to 0."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    is_positive = wide > 0
    return torch.where(is_positive, wide + 1, torch.exp(torch.where(is_positive, 0, wide)))


def sum_up(
    key: Float[Tensor, "batch keys heads head_dim"],
    value: Float[Tensor, "batch keys heads head_dim"],
    lengths: Lengths = None,
) -> LinearState:
    """The sums over the real keys of each row.

    Args:
        key: before the feature map, (batch, keys, heads, head_dim).
        value: of the same shape.
        lengths: real keys of each row, (batch,); None if all are real.
    """
    features = _real_features(key, lengths)
    products = torch.einsum("bnhd,bnhe->bhde", features, value.to(features.dtype))
    return LinearState(products, features.sum(dim=1))


def read_out(
    query: Float[Tensor, "batch queries heads head_dim"], state: LinearState
) -> Float[Tensor, "batch queries heads head_dim"]:
    """``phi(q)^T products / phi(q)^T keys`` (equation 6), in at least float32; zeros where no key was summed up."""
    features = feature_map(query)
    attended = torch.einsum("bnhd,bhde->bnhe", features, state.products)
    return _normalized(attended, torch.einsum("bnhd,bhd->bnh", features, state.keys))


def causal_linear_attention(
    query: Float[Tensor, "batch length heads head_dim"],
    key: Float[Tensor, "batch length heads head_dim"],
    value: Float[Tensor, "batch length heads head_dim"],
    lengths: Lengths = None,
    state: LinearState | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "batch length heads head_dim"], LinearState]:
    """Each token attends to itself and all before it (section 3.3), chunk by chunk.

    Within a chunk weights are written out; earlier chunks are read from their sums. All chunks are computed at once, in
    memory linear in the length.

    Args:
        query: before the feature map, as the keys; (batch, length, heads, head_dim).
        key: of the same tokens.
        value: of the same tokens.
        lengths: real tokens of each row, (batch,); None if all are real.
        state: of the tokens before these; None if there are none.
        chunk: tokens of a chunk.

    Returns:
        What each token attended to, in at least float32, and the state with these tokens.
    """
    length, size = query.shape[1], min(chunk, query.shape[1])
    queries, keys = _in_chunks(feature_map(query), size), _in_chunks(_real_features(key, lengths), size)
    values = _in_chunks(value.to(keys.dtype), size)
    weights = torch.tril(torch.einsum("bhcqd,bhckd->bhcqk", queries, keys))
    before, state = _running_sums(keys, values, state)
    attended = torch.einsum("bhcqk,bhcke->bhcqe", weights, values)
    attended = attended + torch.einsum("bhcqd,bhcde->bhcqe", queries, before.products)
    total = weights.sum(dim=-1) + torch.einsum("bhcqd,bhcd->bhcq", queries, before.keys)
    heads = _normalized(attended, total)
    heads = heads.reshape(*heads.shape[:2], -1, heads.shape[-1])[:, :, :length]
    return heads.transpose(1, 2), state


def _real_features(key: Float[Tensor, "batch keys heads head_dim"], lengths: Lengths) -> Tensor:
    """Features of the keys; zeros where a key is not real, which no sum notices."""
    features = feature_map(key)
    if lengths is None:
        return features
    return torch.where(padding_mask(lengths, key.shape[1])[:, :, None, None], features, 0)


def _in_chunks(
    x: Float[Tensor, "batch length heads head_dim"], size: int
) -> Float[Tensor, "batch heads chunks {size} head_dim"]:
    """Filled up with zeros to whole chunks."""
    x = functional.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % size))
    return x.reshape(*x.shape[:2], -1, size, x.shape[-1])


class _Sums(NamedTuple):
    """A state for each chunk: of all tokens before it."""

    products: Float[Tensor, "batch heads chunks head_dim head_dim"]
    keys: Float[Tensor, "batch heads chunks head_dim"]


def _running_sums(
    keys: Float[Tensor, "batch heads chunks size head_dim"],
    values: Float[Tensor, "batch heads chunks size head_dim"],
    state: LinearState | None,
) -> tuple[_Sums, LinearState]:
    """What was before each chunk, and what there is behind the last."""
    of_chunks = torch.einsum("bhckd,bhcke->bhcde", keys, values), keys.sum(dim=3)
    start = (torch.zeros_like(x[:, :, 0]) for x in of_chunks) if state is None else state
    totals = [torch.cat([first[:, :, None], x], dim=2).cumsum(dim=2) for first, x in zip(start, of_chunks, strict=True)]
    return _Sums(*(x[:, :, :-1] for x in totals)), LinearState(*(x[:, :, -1] for x in totals))


def _normalized(attended: Float[Tensor, "*shape head_dim"], total: Float[Tensor, "*shape"]) -> Tensor:
    """``attended / total``; zeros, with finite gradients, where there was no key."""
    has_keys = total > 0
    return torch.where(has_keys[..., None], attended, 0) / torch.where(has_keys, total, 1)[..., None]


class LinearAttention(HeadProjections):
    """``concat_h(phi(q_h)^T sum_j phi(k_j) v_j^T / phi(q_h)^T sum_j phi(k_j)) W_o`` with ``phi(x) = elu(x) + 1``.

    It has the weights of :class:`~torch_reference.nn.attention.MultiHeadAttention`.

    Args:
        config: gives d_model, num_heads and head_width.
    """

    def project(
        self, memory: Float[Tensor, "batch keys d_model"], *, lengths: Lengths = None, segments: None = None
    ) -> LinearState:
        """The sums over a memory, which any number of queries may read.

        Args:
            memory: the sequence that is attended to, (batch, keys, d_model).
            lengths: its real tokens, (batch,); None if all are real.
            segments: none, since one sum cannot keep the segments of packed rows apart.
        """
        return sum_up(*self._keys_and_values(memory), lengths)

    def forward(
        self, x: Float[Tensor, "batch queries d_model"], memory: LinearState, mask: AttentionMask
    ) -> Float[Tensor, "batch queries d_model"]:
        """
        Args:
            x: the sequence that attends, (batch, queries, d_model).
            memory: from :meth:`project`, which left out what is not real.
            mask: whose lengths :meth:`project` had.

        Returns:
            What each query attended to, (batch, queries, d_model).

        Raises:
            UserError: the mask asks for what sums cannot tell apart.

        Example:
            >>> from flax_transformer.config import ModelConfig
            >>> attention = LinearAttention(ModelConfig(d_model=8, mixer="linear"))
            >>> x = torch.ones(2, 5, 8)
            >>> attention(x, attention.project(x), AttentionMask()).shape
            torch.Size([2, 5, 8])
        """
        _check_mask(mask)
        return self._join_heads(read_out(self._queries(x), memory))

    def mix(
        self,
        x: Float[Tensor, "batch length d_model"],
        mask: AttentionMask,
        cache: LinearState | None = None,
    ) -> tuple[Float[Tensor, "batch length d_model"], LinearState]:
        """Self-attention, causal if the mask is.

        Args:
            x: a sequence, or its next tokens, (batch, length, d_model).
            mask: key lengths and causality.
            cache: the sums over the tokens before ``x``.

        Returns:
            The output, (batch, length, d_model), and the sums with the tokens of ``x``.

        Raises:
            UserError: the mask asks for what sums cannot tell apart.
        """
        _check_mask(mask)
        (key, value), query = self._keys_and_values(x), self._queries(x)
        if mask.causal:
            heads, state = causal_linear_attention(query, key, value, mask.key_lengths, cache)
        else:
            state = sum_up(key, value, mask.key_lengths)
            heads = read_out(query, state)
        return self._join_heads(heads), state

    def empty_cache(self, batch: int, length: int) -> LinearState:
        """The sums over no tokens, in at least float32; ``length``, for which other caches need room, is no matter."""
        heads, width = self.config.num_heads, self.config.head_dim
        dtype = torch.promote_types(compute_dtype(self.config), torch.float32)
        products = torch.zeros(batch, heads, width, width, dtype=dtype, device=self.query.weight.device)
        return LinearState(products, products.new_zeros(batch, heads, width))

    def _keys_and_values(self, x: Float[Tensor, "batch keys d_model"]) -> tuple[Tensor, Tensor]:
        key = record(self, "key", self._split_heads(self.key(x)))
        return key, record(self, "value", self._split_heads(self.value(x)))

    def _queries(self, x: Float[Tensor, "batch queries d_model"]) -> Tensor:
        return record(self, "query", self._split_heads(self.query(x)))

    def _join_heads(self, heads: Float[Tensor, "batch queries heads head_dim"]) -> Tensor:
        heads = record(self, "heads", heads.to(compute_dtype(self.config)))
        return self.output(heads.reshape(*heads.shape[:2], -1))


def _check_mask(mask: AttentionMask) -> None:
    if mask.dense is not None or mask.bias is not None:
        raise UserError(
            "linear attention: expected a mask of key lengths and causality, got a dense mask or a bias; take "
            "mixer='attention' for it"
        )
