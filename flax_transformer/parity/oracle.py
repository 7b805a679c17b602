"""A third opinion: each intermediate said once more in float64 numpy, from the intermediates before it.

Where the twins disagree, the one that is farther from the oracle is the suspect. It knows no dropout.
"""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from flax_transformer.config import ModelConfig
from flax_transformer.data.batches import Batch, Seq2SeqBatch
from flax_transformer.parity.cases import Case
from flax_transformer.parity.measure import Arrays, scaled_ulp

Real = Float[np.ndarray, "..."]
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu_tanh(x: Real) -> Real:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


class Float64Oracle:
    """The model in float64, over intermediates that are given.

    Args:
        intermediates: of one pass, from which each intermediate is computed anew; the results are in :attr:`values`.
    """

    def __init__(self, config: ModelConfig, weights: Arrays, batch: Batch, intermediates: Arrays) -> None:
        self.config = config
        self.weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
        self.intermediates = {name: intermediate.astype(np.float64) for name, intermediate in intermediates.items()}
        self.values: dict[str, Real] = {}
        self._judge(batch)

    def _judge(self, batch: Batch) -> None:
        source = self._offer("source_embedding.output", self._embed("source", "source_table", batch.source))
        encoded = self._stack("encoder", source, None, batch.source_lengths, batch.source_lengths)
        memory = self._offer("memory", self._last_norm("encoder", encoded))
        if not isinstance(batch, Seq2SeqBatch):
            pooled = self._offer("pooled", self._pool(memory, batch.source_lengths))
            self._offer("logits", self._linear("head", pooled))
            return
        table = "source_table" if self.config.tie_embeddings else "target_table"
        target = self._offer("target_embedding.output", self._embed("target", table, batch.target[:, :-1]))
        lengths = np.maximum(batch.target_lengths - 1, 0)
        decoded = self._last_norm("decoder", self._stack("decoder", target, memory, lengths, batch.source_lengths))
        if self.config.tie_embeddings:
            self._offer("logits", decoded @ self.weights["source_table.weight"].T)
        else:
            self._offer("logits", self._linear("projection", decoded))

    def _offer(self, name: str, value: Real) -> Real:
        """Note the oracle's value, and go on with the one that was given."""
        self.values[name] = value
        return self.intermediates[name]

    def _linear(self, path: str, x: Real) -> Real:
        return x @ self.weights[f"{path}.weight"].T + self.weights.get(f"{path}.bias", 0.0)

    def _norm(self, path: str, x: Real) -> Real:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.config.norm_eps)
        return scaled * self.weights[f"{path}.weight"] + self.weights.get(f"{path}.bias", 0.0)

    def _last_norm(self, stack: str, x: Real) -> Real:
        return self._norm(f"{stack}.norm", x) if self.config.final_norm else x

    def _embed(self, side: str, table: str, ids: np.ndarray) -> Real:
        width = self.config.d_model
        x = self.weights[f"{table}.weight"][ids] * (math.sqrt(width) if self.config.scale_embeddings else 1.0)
        if self.config.positions == "learned":
            return x + self.weights[f"{side}_embedding.positions.table"][: ids.shape[1]]
        if self.config.positions == "sinusoidal":
            pairs = np.arange(width) // 2
            angles = np.arange(ids.shape[1])[:, None] / 10000.0 ** (2 * pairs / width)
            return x + np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
        return x

    def _rotated(self, x: Float[np.ndarray, "batch length heads head_dim"]) -> Real:
        half = x.shape[-1] // 2
        angles = np.arange(x.shape[1])[:, None] / 10000.0 ** (np.arange(half) / half)
        turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None]
        return np.concatenate([turned.real, turned.imag], axis=-1)

    def _heads(self, path: str, x: Real, rotate: bool) -> Real:
        heads = self._linear(path, x).reshape(*x.shape[:2], self.config.num_heads, -1)
        return self._offer(path, self._rotated(heads) if rotate else heads)

    def _attend(self, path: str, x: Real, memory: Real, allowed: Bool[np.ndarray, "..."]) -> Real:
        rotate = self.config.positions == "rope" and path.endswith("self_attention")
        key = self._heads(f"{path}.key", memory, rotate)
        value = self._heads(f"{path}.value", memory, rotate=False)
        query = self._heads(f"{path}.query", x, rotate)
        scores = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
        largest = scores.max(axis=-1, keepdims=True, where=allowed, initial=np.finfo(np.float64).min)
        powers = np.exp(np.where(allowed, scores - largest, -np.inf))
        total = powers.sum(axis=-1, keepdims=True)
        weights = self._offer(f"{path}.weights", powers / np.where(total == 0, 1, total))
        heads = self._offer(f"{path}.heads", np.einsum("bhqk,bkhd->bqhd", weights, value))
        return self._linear(f"{path}.output", heads.reshape(x.shape))

    def _residual(self, path: str, x: Real, sublayer) -> Real:
        if self.config.norm_first:
            return self._offer(f"{path}.output", x + sublayer(self._norm(f"{path}.norm", x)))
        return self._offer(f"{path}.output", self._norm(f"{path}.norm", x + sublayer(x)))

    def _stack(self, stack: str, x: Real, memory: Real | None, lengths: np.ndarray, memory_lengths: np.ndarray) -> Real:
        allowed = np.arange(x.shape[1]) < lengths[:, None, None, None]
        if memory is not None:
            allowed = allowed & np.tri(x.shape[1], dtype=bool)
        for i in range(self.config.num_encoder_layers if memory is None else self.config.num_decoder_layers):
            x = self._layer(f"{stack}.layers.{i}", x, memory, allowed, memory_lengths)
        return x

    def _layer(
        self, layer: str, x: Real, memory: Real | None, allowed: Bool[np.ndarray, "..."], memory_lengths: np.ndarray
    ) -> Real:
        own, cross = f"{layer}.self_attention", f"{layer}.cross_attention"
        x = self._residual(f"{own}_residual", x, lambda x: self._attend(own, x, x, allowed))
        if memory is not None:
            seen = np.arange(memory.shape[1]) < memory_lengths[:, None, None, None]
            x = self._residual(f"{cross}_residual", x, lambda x: self._attend(cross, x, memory, seen))
        return self._residual(f"{layer}.feed_forward_residual", x, lambda x: self._feed_forward(layer, x))

    def _feed_forward(self, layer: str, x: Real) -> Real:
        hidden = ACTIVATIONS[self.config.activation](self._linear(f"{layer}.feed_forward.up_proj", x))
        return self._linear(f"{layer}.feed_forward.down_proj", self._offer(f"{layer}.feed_forward.hidden", hidden))

    def _pool(self, x: Real, lengths: np.ndarray) -> Real:
        rows: Iterable[Real] = (row[:length] for row, length in zip(x, lengths, strict=True))
        pools = {"mean": lambda r: r.mean(axis=0), "max": lambda r: r.max(axis=0), "first": lambda r: r[0]}
        return np.stack([pools[self.config.pooling](row) if len(row) else np.zeros(x.shape[-1]) for row in rows])


def distances(case: Case, intermediates: Arrays, of_flax: Arrays, of_torch: Arrays, name: str) -> tuple[float, float]:
    """Scaled ULP of each twin from the oracle at one intermediate, all computed from the same ``intermediates``."""
    exact = Float64Oracle(case.model, case.weights, case.batch, intermediates).values[name]
    return scaled_ulp(of_flax[name], exact, case.dtype), scaled_ulp(of_torch[name], exact, case.dtype)
