"""The clean Transformers of torch_models.py in Flax NNX, with the same names and lines."""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

PAD, BOS, EOS = 0, 1, 2


@dataclass(frozen=True)
class Config:
    vocab: int = 29
    classes: int = 5
    width: int = 32
    heads: int = 4
    layers: int = 2
    max_length: int = 24
    dropout: float = 0.1
    norm_first: bool = False
    positions: str = "sinusoidal"
    tied: bool = False
    token_level: bool = False


class Attention(nnx.Module):
    def __init__(self, config, rngs):
        self.heads, self.head_dim = config.heads, config.width // config.heads
        self.rotary = config.positions == "rotary"
        self.relative = nnx.Param(rngs.params.normal((config.heads, 63))) if config.positions == "relative" else None
        self.query = nnx.Linear(config.width, config.width, rngs=rngs)
        self.key = nnx.Linear(config.width, config.width, rngs=rngs)
        self.value = nnx.Linear(config.width, config.width, rngs=rngs)
        self.output = nnx.Linear(config.width, config.width, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)

    def split(self, x):
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_dim).swapaxes(1, 2)

    def __call__(self, x, memory, mask, cache=None, offset=0):
        query, key, value = self.split(self.query(x)), self.split(self.key(memory)), self.split(self.value(memory))
        if self.rotary:
            query, key = rotate(query, offset), rotate(key, offset)
        if cache is not None:
            if "key" in cache:
                key, value = append(cache["key"], key), append(cache["value"], value)
            cache["key"], cache["value"] = key, value
        scores = query @ key.swapaxes(-2, -1)
        scores = scores / math.sqrt(self.head_dim)
        if self.relative is not None:
            scores = scores + self.relative[:, distances(scores.shape[-2], scores.shape[-1])]
        mask = mask[..., -scores.shape[-1] :]
        scores = jnp.where(mask, scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1)
        weights = self.dropout(weights)
        x = weights @ value
        x = x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
        return self.output(x)


def append(old, new):
    return jnp.concatenate([old, new], axis=2)


def rotate(x, offset):
    half = x.shape[-1] // 2
    steps = jnp.arange(offset, offset + x.shape[2])[:, None]
    angles = steps * 100.0 ** (-jnp.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * jnp.cos(angles) - second * jnp.sin(angles), first * jnp.sin(angles) + second * jnp.cos(angles)], -1
    )


def distances(queries, keys):
    steps = jnp.arange(keys)[None] - jnp.arange(keys - queries, keys)[:, None]
    return steps.clip(-31, 31) + 31


class FeedForward(nnx.Module):
    def __init__(self, config, rngs):
        self.up = nnx.Linear(config.width, 2 * config.width, rngs=rngs)
        self.down = nnx.Linear(2 * config.width, config.width, rngs=rngs)

    def __call__(self, x):
        return self.down(nnx.relu(self.up(x)))


class Layer(nnx.Module):
    def __init__(self, config, crosses, rngs):
        self.norm_first = config.norm_first
        self.self_attention = Attention(config, rngs)
        self.cross_attention: Any = Attention(replace(config, positions="none"), rngs) if crosses else None
        self.feed_forward = FeedForward(config, rngs)
        self.norms = nnx.List(nnx.LayerNorm(config.width, rngs=rngs) for _ in range(3 if crosses else 2))
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)

    def residual(self, x, norm, sublayer):
        if self.norm_first:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def __call__(self, x, mask, memory=None, memory_mask=None, cache=None, offset=0):
        x = self.residual(x, self.norms[0], lambda y: self.self_attention(y, y, mask, cache, offset))
        if self.cross_attention is not None:
            x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, memory, memory_mask))
        return self.residual(x, self.norms[-1], self.feed_forward)


class Embedding(nnx.Module):
    def __init__(self, config, rngs):
        self.width, self.kind = config.width, config.positions
        scale = nnx.initializers.normal(config.width**-0.5)
        self.table = nnx.Embed(config.vocab, config.width, embedding_init=scale, rngs=rngs)
        self.learned = nnx.Embed(config.max_length, config.width, rngs=rngs) if self.kind == "learned" else None
        self.sinusoids = nnx.Cache(sinusoids(config.max_length, config.width))
        self.dropout = nnx.Dropout(config.dropout, rngs=rngs)

    def __call__(self, ids, offset=0):
        x = self.table(ids) * math.sqrt(self.width)
        positions = jnp.arange(offset, offset + ids.shape[1])
        if self.kind == "sinusoidal":
            x = x + self.sinusoids[positions]
        if self.learned is not None:
            x = x + self.learned(positions)
        return self.dropout(x)


def sinusoids(length, width):
    angles = jnp.arange(length)[:, None] * 10000.0 ** (-jnp.arange(0, width, 2) / width)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(length, width)


def causal_mask(queries, keys):
    return jnp.tril(jnp.ones((queries, keys), bool), keys - queries)


class Stack(nnx.Module):
    def __init__(self, config, crosses, rngs):
        self.layers = nnx.List(Layer(config, crosses, rngs) for _ in range(config.layers))
        self.norm = nnx.LayerNorm(config.width, rngs=rngs) if config.norm_first else lambda x: x

    def __call__(self, x, mask, memory=None, memory_mask=None, caches=None, offset=0):
        for number, layer in enumerate(self.layers):
            x = layer(x, mask, memory, memory_mask, None if caches is None else caches[number], offset)
        return self.norm(x)


class Seq2Seq(nnx.Module):
    def __init__(self, config, rngs):
        self.config = config
        self.source_embedding = Embedding(config, rngs)
        self.target_embedding = Embedding(config, rngs)
        self.encoder = Stack(config, False, rngs)
        self.decoder = Stack(config, True, rngs)
        self.output = nnx.Linear(config.width, config.vocab, rngs=rngs)

    def projection(self, x):
        return self.target_embedding.table.attend(x) if self.config.tied else self.output(x)

    def encode(self, source):
        return self.encoder(self.source_embedding(source), (source != PAD)[:, None, None])

    def decode(self, source, memory, target, caches=None, offset=0):
        mask = causal_mask(target.shape[1], offset + target.shape[1])
        memory_mask = (source != PAD)[:, None, None]
        x = self.target_embedding(target, offset)
        return self.projection(self.decoder(x, mask, memory, memory_mask, caches, offset))

    def __call__(self, source, target):
        return self.decode(source, self.encode(source), target)


class Decoder(nnx.Module):
    def __init__(self, config, rngs):
        self.config = config
        self.embedding = Embedding(config, rngs)
        self.stack = Stack(config, False, rngs)
        self.output = nnx.Linear(config.width, config.vocab, rngs=rngs)

    def projection(self, x):
        return self.embedding.table.attend(x) if self.config.tied else self.output(x)

    def __call__(self, ids, caches=None, offset=0):
        mask = causal_mask(ids.shape[1], offset + ids.shape[1])
        return self.projection(self.stack(self.embedding(ids, offset), mask, caches=caches, offset=offset))


class Encoder(nnx.Module):
    def __init__(self, config, rngs):
        self.config = config
        self.embedding = Embedding(config, rngs)
        self.stack = Stack(config, False, rngs)
        self.head = nnx.Linear(config.width, config.vocab if config.token_level else config.classes, rngs=rngs)

    def __call__(self, ids):
        real = ids != PAD
        x = self.stack(self.embedding(ids), real[:, None, None])
        if self.config.token_level:
            return self.head(x)
        x = (x * real[..., None]).sum(axis=1) / real.sum(axis=1, keepdims=True)
        return self.head(x)


def cross_entropy(logits, labels, weights):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * weights).sum() / weights.sum()


def seq2seq_loss(model, source, target):
    logits = model(source, target[:, :-1])
    return cross_entropy(logits, target[:, 1:], target[:, 1:] != PAD)


def decoder_loss(model, ids):
    logits = model(ids[:, :-1])
    return cross_entropy(logits, ids[:, 1:], ids[:, 1:] != PAD)


def seq2seq_generate(model, source, steps):
    memory = model.encode(source)
    caches = [{} for _ in model.decoder.layers]
    ids = jnp.full((len(source), 1), BOS)
    for step in range(steps):
        logits = model.decode(source, memory, ids[:, -1:], caches, step)
        ids = jnp.concatenate([ids, logits[:, -1:].argmax(-1)], axis=1)
    return ids


def decoder_generate(model, ids, steps):
    caches = [{} for _ in model.stack.layers]
    logits = model(ids, caches)
    for _ in range(steps):
        ids = jnp.concatenate([ids, logits[:, -1:].argmax(-1)], axis=1)
        logits = model(ids[:, -1:], caches, ids.shape[1] - 1)
    return ids


def build(kind, config, seed):
    """Keywords for ``doctor.examine``."""
    rngs = nnx.Rngs(seed)
    given = {"kind": kind, "pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "max_length": config.max_length}
    if kind == "seq2seq":
        return {"model": Seq2Seq(config, rngs), "loss": seq2seq_loss, "generate": seq2seq_generate, **given}
    if kind == "decoder":
        return {"model": Decoder(config, rngs), "loss": decoder_loss, "generate": decoder_generate, **given}
    return {"model": Encoder(config, rngs), **given}
