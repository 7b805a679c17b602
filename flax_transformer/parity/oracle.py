"""A third opinion: each intermediate said once more in float64 numpy, from the intermediates before it.

Where the twins disagree, the one that is farther from the oracle is the suspect. It knows no dropout.
"""

import itertools
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from flax_transformer.config import ModelConfig
from flax_transformer.data.batches import MaskedBatch, PaddedBatch, Seq2SeqBatch
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
    "tanh": np.tanh,
}


def linear_attention(query: Real, key: Real, value: Real, allowed: Bool[np.ndarray, "..."]) -> Real:
    """Its quadratic form (Katharopoulos et al., 2020, equation 4): the weight of a pair is ``phi(q_i) . phi(k_j)``."""
    query, key = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (query, key))
    weights = np.where(allowed, np.einsum("bqhd,bkhd->bhqk", query, key), 0)
    total = np.moveaxis(weights.sum(axis=-1), 1, 2)[..., None]
    return np.einsum("bhqk,bkhd->bqhd", weights, value) / np.where(total == 0, 1, total)


class Float64Oracle:
    """The model in float64, over intermediates that are given.

    Args:
        intermediates: of one pass, from which each intermediate is computed anew; the results are in :attr:`values`.
    """

    def __init__(self, config: ModelConfig, weights: Arrays, batch: PaddedBatch, intermediates: Arrays) -> None:
        self.config = config
        self.weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
        self.intermediates = {name: intermediate.astype(np.float64) for name, intermediate in intermediates.items()}
        self.values: dict[str, Real] = {}
        self._judge(batch)

    def _judge(self, batch: PaddedBatch) -> None:
        source = self._offer("source_embedding.output", self._embed("source", "source_table", batch.source))
        source = self._project_embedding("source", source)
        encoded = self._stack("encoder", source, None, batch.source_lengths, batch.source_lengths)
        memory = self._offer("memory", self._last_norm("encoder", encoded))
        if isinstance(batch, MaskedBatch):
            predicted = np.stack([row[places] for row, places in zip(memory, batch.positions, strict=True)])
            bias = self.weights.get("output_bias", 0.0)
            self._offer("logits", predicted @ self.weights["source_table.weight"].T + bias)
            return
        if not isinstance(batch, Seq2SeqBatch):
            pooled = self._offer("pooled", self._pool(memory, batch.source_lengths))
            if self.config.head_hidden != "none":
                pooled = ACTIVATIONS[self.config.head_hidden](self._linear("hidden", pooled))
            self._offer("logits", self._linear("head", pooled))
            return
        table = "source_table" if self.config.tie_embeddings in ("all", "inputs") else "target_table"
        target = self._offer("target_embedding.output", self._embed("target", table, batch.target[:, :-1]))
        target = self._project_embedding("target", target)
        lengths = np.maximum(batch.target_lengths - 1, 0)
        decoded = self._last_norm("decoder", self._stack("decoder", target, memory, lengths, batch.source_lengths))
        decoded = decoded / math.sqrt(self.config.d_model) if self.config.scale_logits else decoded
        if self.config.tie_embeddings in ("all", "target"):
            logits = decoded @ self.weights[f"{table}.weight"].T
        else:
            logits = self._linear("projection", decoded)
        self._offer("logits", logits + self.weights.get("logits_bias", 0.0))

    def _offer(self, name: str, value: Real) -> Real:
        """Note the oracle's value, and go on with the one that was given."""
        self.values[name] = value
        return self.intermediates[name]

    def _linear(self, path: str, x: Real) -> Real:
        return x @ self.weights[f"{path}.weight"].T + self.weights.get(f"{path}.bias", 0.0)

    def _norm(self, path: str, x: Real) -> Real:
        centred = x if self.config.norm == "rms" else x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.config.norm_eps)
        return scaled * self.weights[f"{path}.weight"] + self.weights.get(f"{path}.bias", 0.0)

    def _last_norm(self, stack: str, x: Real) -> Real:
        return self._norm(f"{stack}.norm", x) if self.config.final_norm else x

    def _embed(self, side: str, table: str, ids: np.ndarray) -> Real:
        x = self.weights[f"{table}.weight"][ids]
        x = x * (math.sqrt(self.config.d_model) if self.config.scale_embeddings else 1.0)
        if self.config.token_types:
            x = x + self.weights[f"{side}_embedding.types.weight"][self._token_types(ids)]
        x = x + self._positions(side, ids.shape[1], x.shape[-1])
        return self._norm(f"{side}_embedding.norm", x) if self.config.embedding_norm else x

    def _positions(self, side: str, length: int, width: int) -> Real | float:
        if self.config.positions == "learned":
            return self.weights[f"{side}_embedding.positions.table"][self.config.position_offset :][:length]
        pairs = np.arange(width) // 2
        angles = np.arange(length)[:, None] / 10000.0 ** (2 * pairs / width)
        if self.config.positions == "sinusoidal":
            return np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles))
        if self.config.positions == "sinusoidal_halves":
            return np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1)
        return 0.0

    def _token_types(self, ids: np.ndarray) -> np.ndarray:
        last = self.config.token_types - 1
        return np.array([[min(last, list(row[:i]).count(self.config.eos_id)) for i in range(len(row))] for row in ids])

    def _project_embedding(self, side: str, x: Real) -> Real:
        return self._linear(f"{side}_embedding.projection", x) if self.config.embedding_width else x

    def _bias(self, path: str, length: int) -> Real | float:
        """T5's relative bias of a layer's self-attention, (heads, queries, keys)."""
        stack, is_own = path.split(".")[0], path.endswith("self_attention")
        if not (self.config.relative_buckets and is_own):
            return 0.0
        table = self.weights[f"{stack}.relative_bias.weight"]
        places = [[self._bucket(key - query, stack == "encoder") for key in range(length)] for query in range(length)]
        return np.moveaxis(table[np.array(places)], -1, 0)

    def _bucket(self, distance: int, two_sided: bool) -> int:
        """As T5's code has it, one distance at a time."""
        count = self.config.relative_buckets // (2 if two_sided else 1)
        first = count if two_sided and distance > 0 else 0
        size = abs(distance) if two_sided else max(-distance, 0)
        single = count // 2
        if size < single:
            return first + size
        grown = math.log(size / single) / math.log(self.config.relative_max_distance / single)
        return first + min(count - 1, single + int(grown * (count - single)))

    def _rotated(self, x: Float[np.ndarray, "batch length heads head_dim"]) -> Real:
        half = x.shape[-1] // 2
        angles = np.arange(x.shape[1])[:, None] / 10000.0 ** (np.arange(half) / half)
        turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None]
        return np.concatenate([turned.real, turned.imag], axis=-1)

    def _heads(self, path: str, x: Real, rotate: bool) -> Real:
        heads = self._linear(path, x).reshape(*x.shape[:2], self.config.num_heads, -1)
        return self._offer(path, self._rotated(heads) if rotate else heads)

    def _smeared(self, key: Real, share: Real) -> Real:
        own = 1 / (1 + np.exp(-share))
        mixed = [own[:, None] * key[:, 0]]
        for before, now in itertools.pairwise(range(key.shape[1])):
            mixed.append(own[:, None] * key[:, now] + (1 - own[:, None]) * key[:, before])
        return np.stack(mixed, axis=1)

    def _attend(self, path: str, x: Real, memory: Real, allowed: Bool[np.ndarray, "..."]) -> Real:
        is_attention = self._mixer(path) == "attention"
        rotate = self.config.positions == "rope" and path.endswith("self_attention") and is_attention
        key = self._heads(f"{path}.key", memory, rotate)
        if f"{path}.smear" in self.weights:
            key = self._offer(f"{path}.smeared_key", self._smeared(key, self.weights[f"{path}.smear"]))
        value = self._heads(f"{path}.value", memory, rotate=False)
        query = self._heads(f"{path}.query", x, rotate)
        if self._mixer(path) == "linear":
            heads = self._offer(f"{path}.heads", linear_attention(query, key, value, allowed))
            return self._linear(f"{path}.output", heads.reshape(*x.shape[:2], -1))
        scores = np.einsum("bqhd,bkhd->bhqk", query, key)
        scores = scores / (math.sqrt(query.shape[-1]) if self.config.scale_attention else 1.0)
        scores = scores + self._bias(path, key.shape[1])
        largest = scores.max(axis=-1, keepdims=True, where=allowed, initial=np.finfo(np.float64).min)
        powers = np.exp(np.where(allowed, scores - largest, -np.inf))
        total = powers.sum(axis=-1, keepdims=True)
        weights = self._offer(f"{path}.weights", powers / np.where(total == 0, 1, total))
        heads = self._offer(f"{path}.heads", np.einsum("bhqk,bkhd->bqhd", weights, value))
        return self._linear(f"{path}.output", heads.reshape(*x.shape[:2], -1))

    def _mixer(self, path: str) -> str:
        encoder, decoder = self.config.mixers
        return encoder if path.startswith("encoder") else decoder

    def _recur(self, path: str, x: Real, lengths: np.ndarray) -> Real:
        directions = [f"{path}.{name}" for name in ("left_to_right", "right_to_left")]
        read = [self._read(name, x, lengths) for name in directions if f"{name}.input_proj.weight" in self.weights]
        return self._offer(f"{path}.states", np.concatenate(read, axis=-1))

    def _read(self, path: str, x: Real, lengths: np.ndarray) -> Real:
        """The hidden states of each row by itself, from its first real token on, or from its last one."""
        gates = self._linear(f"{path}.input_proj", x)
        recurrent = self.weights[f"{path}.recurrent_proj.weight"]
        states = np.zeros((*x.shape[:2], recurrent.shape[1]))
        for row, length in enumerate(lengths):
            hidden = cell = np.zeros(recurrent.shape[1])
            for at in range(length)[:: -1 if path.endswith("right_to_left") else 1]:
                enter, forget, candidate, leave = np.split(gates[row, at] + recurrent @ hidden, 4)
                cell = cell / (1 + np.exp(-forget)) + np.tanh(candidate) / (1 + np.exp(-enter))
                hidden = states[row, at] = np.tanh(cell) / (1 + np.exp(-leave))
        return states

    def _residual(self, path: str, x: Real, sublayer) -> Real:
        if self.config.norm_first:
            return self._offer(f"{path}.output", x + sublayer(self._norm(f"{path}.norm", x)))
        return self._offer(f"{path}.output", self._norm(f"{path}.norm", x + sublayer(x)))

    def _stack(self, stack: str, x: Real, memory: Real | None, lengths: np.ndarray, memory_lengths: np.ndarray) -> Real:
        allowed = np.arange(x.shape[1]) < lengths[:, None, None, None]
        if memory is not None:
            allowed = allowed & np.tri(x.shape[1], dtype=bool)
        for i in range(self.config.num_encoder_layers if memory is None else self.config.num_decoder_layers):
            x = self._layer(f"{stack}.layers.{i}", x, memory, allowed, lengths, memory_lengths)
        return x

    def _layer(
        self,
        layer: str,
        x: Real,
        memory: Real | None,
        allowed: Bool[np.ndarray, "..."],
        lengths: np.ndarray,
        memory_lengths: np.ndarray,
    ) -> Real:
        own, cross = f"{layer}.self_attention", f"{layer}.cross_attention"
        if self._mixer(layer) == "lstm":
            x = self._residual(f"{own}_residual", x, lambda x: self._recur(own, x, lengths))
        else:
            x = self._residual(f"{own}_residual", x, lambda x: self._attend(own, x, x, allowed))
        if memory is not None:
            seen = np.arange(memory.shape[1]) < memory_lengths[:, None, None, None]
            x = self._residual(f"{cross}_residual", x, lambda x: self._attend(cross, x, memory, seen))
        return self._residual(f"{layer}.feed_forward_residual", x, lambda x: self._feed_forward(layer, x))

    def _feed_forward(self, layer: str, x: Real) -> Real:
        activation, path = ACTIVATIONS[self.config.activation], f"{layer}.feed_forward"
        if self.config.gated:
            hidden = activation(self._linear(f"{path}.gate_proj", x)) * self._linear(f"{path}.up_proj", x)
        else:
            hidden = activation(self._linear(f"{path}.up_proj", x))
        return self._linear(f"{layer}.feed_forward.down_proj", self._offer(f"{layer}.feed_forward.hidden", hidden))

    def _pool(self, x: Real, lengths: np.ndarray) -> Real:
        rows: Iterable[Real] = (row[:length] for row, length in zip(x, lengths, strict=True))
        pools = {"mean": lambda r: r.mean(axis=0), "max": lambda r: r.max(axis=0), "first": lambda r: r[0]}
        return np.stack([pools[self.config.pooling](row) if len(row) else np.zeros(x.shape[-1]) for row in rows])


def distances(case: Case, intermediates: Arrays, of_flax: Arrays, of_torch: Arrays, name: str) -> tuple[float, float]:
    """Scaled ULP of each twin from the oracle at one intermediate, all computed from the same ``intermediates``."""
    exact = Float64Oracle(case.model, case.weights, case.batch, intermediates).values[name]
    return scaled_ulp(of_flax[name], exact, case.dtype), scaled_ulp(of_torch[name], exact, case.dtype)
