"""The model of seq2seq_torch.py in Flax NNX, with the same four faults."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

BOS, VOCAB, WIDTH, LONGEST = 1, 16, 48, 32


class Layer(nnx.Module):
    def __init__(self, crosses: bool, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(4, WIDTH, decode=False, rngs=rngs)
        self.cross = nnx.MultiHeadAttention(4, WIDTH, decode=False, rngs=rngs) if crosses else None
        self.up, self.down = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)
        self.norms = nnx.List(nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(3))

    def __call__(self, x, mask=None, memory=None, memory_mask=None):
        x = self.norms[0](x + self.attention(x, mask=mask))
        if self.cross is not None:
            x = self.norms[1](x + self.cross(x, memory, mask=memory_mask))
        return self.norms[2](x + self.down(nnx.relu(self.up(x))))


class Repeater(nnx.Module):
    """``fixed`` names what has been fixed so far: "memory mask", "teacher forcing", "causal mask", "positions"."""

    def __init__(self, fixed: frozenset[str], rngs: nnx.Rngs) -> None:
        self.fixed = fixed
        self.source_table = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        self.target_table = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(LONGEST, WIDTH, rngs=rngs)
        self.encoder = nnx.List(Layer(False, rngs) for _ in range(1))
        self.decoder = nnx.List(Layer(True, rngs) for _ in range(1))
        self.projection = nnx.Linear(WIDTH, VOCAB, rngs=rngs)

    def __call__(self, source: jax.Array, target: jax.Array) -> jax.Array:
        """Ids (rows, source) and (rows, target) -> logits (rows, target, vocab)."""
        if "teacher forcing" not in self.fixed:
            target = jnp.full_like(target, BOS)
        x, y = self.source_table(source), self.target_table(target)
        x = x + self.positions(jnp.arange(source.shape[1]))
        if "positions" in self.fixed:
            y = y + self.positions(jnp.arange(target.shape[1]))
        target_mask = nnx.make_causal_mask(target) if "causal mask" in self.fixed else None
        memory_mask = None if "memory mask" in self.fixed else nnx.make_causal_mask(source)
        for layer in self.encoder:
            x = layer(x)
        for layer in self.decoder:
            y = layer(y, target_mask, x, memory_mask)
        return self.projection(y)


def make(fixed: frozenset[str]) -> Repeater:
    return Repeater(fixed, nnx.Rngs(0))


def train(model: Repeater, batches: list[tuple]) -> list[float]:
    """The loss of every step."""
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, source, target):
        def loss(model):
            logits = model(source, target[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, target[:, 1:]).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    return [float(step(model, optimizer, source, target)) for source, target in batches]


def predict(model: Repeater, source) -> jax.Array:
    """Greedily, token by token; filled up to the length that a square memory mask wants."""
    forward = nnx.jit(lambda model, source, ids: model(source, ids))
    ids = jnp.full(source.shape, BOS)
    for step in range(source.shape[1]):
        tokens = forward(model, source, ids)[:, step].argmax(-1)
        if step + 1 < source.shape[1]:
            ids = ids.at[:, step + 1].set(tokens)
    return jnp.concatenate([ids[:, 1:], tokens[:, None]], axis=1)
