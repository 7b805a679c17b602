"""Three clean Transformers in PyTorch, written out so that every common bug is one changed line."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

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


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.head_dim = config.heads, config.width // config.heads
        self.relative = nn.Parameter(torch.randn(config.heads, 63)) if config.positions == "relative" else None
        self.rotary = config.positions == "rotary"
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x, memory, mask, cache=None, offset=0):
        query, key, value = self.split(self.query(x)), self.split(self.key(memory)), self.split(self.value(memory))
        if self.rotary:
            query, key = rotate(query, offset), rotate(key, offset)
        if cache is not None:
            if "key" in cache:
                key, value = torch.cat([cache["key"], key], dim=2), torch.cat([cache["value"], value], dim=2)
            cache["key"], cache["value"] = key, value
        scores = query @ key.transpose(-2, -1)
        scores = scores / math.sqrt(self.head_dim)
        if self.relative is not None:
            scores = scores + self.relative[:, distances(scores.shape[-2], scores.shape[-1])]
        mask = mask[..., -scores.shape[-1] :]
        scores = scores.masked_fill(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        weights = self.dropout(weights)
        x = weights @ value
        x = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)
        return self.output(x)


def rotate(x, offset):
    half = x.shape[-1] // 2
    steps = torch.arange(offset, offset + x.shape[2], dtype=x.dtype)[:, None]
    angles = steps * 100.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos()], -1)


def distances(queries, keys):
    steps = torch.arange(keys)[None] - torch.arange(keys - queries, keys)[:, None]
    return steps.clamp(-31, 31) + 31


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.width, 2 * config.width)
        self.down = nn.Linear(2 * config.width, config.width)

    def forward(self, x):
        return self.down(F.relu(self.up(x)))


class Layer(nn.Module):
    def __init__(self, config, crosses):
        super().__init__()
        self.norm_first = config.norm_first
        self.self_attention = Attention(config)
        self.cross_attention: Any = Attention(replace(config, positions="none")) if crosses else None
        self.feed_forward = FeedForward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3 if crosses else 2))
        self.dropout = nn.Dropout(config.dropout)

    def residual(self, x, norm, sublayer):
        if self.norm_first:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def forward(self, x, mask, memory=None, memory_mask=None, cache=None, offset=0):
        x = self.residual(x, self.norms[0], lambda y: self.self_attention(y, y, mask, cache, offset))
        if self.cross_attention is not None:
            x = self.residual(x, self.norms[1], lambda y: self.cross_attention(y, memory, memory_mask))
        return self.residual(x, self.norms[-1], self.feed_forward)


class Embedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.width, self.kind = config.width, config.positions
        self.table = nn.Embedding(config.vocab, config.width)
        nn.init.normal_(self.table.weight, std=config.width**-0.5)
        self.learned = nn.Embedding(config.max_length, config.width) if self.kind == "learned" else None
        self.sinusoids: torch.Tensor
        self.register_buffer("sinusoids", sinusoids(config.max_length, config.width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids, offset=0):
        x = self.table(ids) * math.sqrt(self.width)
        positions = torch.arange(offset, offset + ids.shape[1])
        if self.kind == "sinusoidal":
            x = x + self.sinusoids[positions]
        if self.learned is not None:
            x = x + self.learned(positions)
        return self.dropout(x)


def sinusoids(length, width):
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(length, width)


def causal_mask(queries, keys):
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


class Stack(nn.Module):
    def __init__(self, config, crosses):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, crosses) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.norm_first else nn.Identity()

    def forward(self, x, mask, memory=None, memory_mask=None, caches=None, offset=0):
        for number, layer in enumerate(self.layers):
            x = layer(x, mask, memory, memory_mask, None if caches is None else caches[number], offset)
        return self.norm(x)


class Seq2Seq(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.source_embedding = Embedding(config)
        self.target_embedding = Embedding(config)
        self.encoder = Stack(config, crosses=False)
        self.decoder = Stack(config, crosses=True)
        self.projection = nn.Linear(config.width, config.vocab)
        if config.tied:
            self.projection.weight = self.target_embedding.table.weight

    def encode(self, source):
        return self.encoder(self.source_embedding(source), (source != PAD)[:, None, None])

    def decode(self, source, memory, target, caches=None, offset=0):
        mask = causal_mask(target.shape[1], offset + target.shape[1])
        memory_mask = (source != PAD)[:, None, None]
        x = self.target_embedding(target, offset)
        return self.projection(self.decoder(x, mask, memory, memory_mask, caches, offset))

    def forward(self, source, target):
        return self.decode(source, self.encode(source), target)


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.stack = Stack(config, crosses=False)
        self.projection = nn.Linear(config.width, config.vocab)
        if config.tied:
            self.projection.weight = self.embedding.table.weight

    def forward(self, ids, caches=None, offset=0):
        mask = causal_mask(ids.shape[1], offset + ids.shape[1])
        return self.projection(self.stack(self.embedding(ids, offset), mask, caches=caches, offset=offset))


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = Embedding(config)
        self.stack = Stack(config, crosses=False)
        self.head = nn.Linear(config.width, config.vocab if config.token_level else config.classes)

    def forward(self, ids):
        real = ids != PAD
        x = self.stack(self.embedding(ids), real[:, None, None])
        if self.config.token_level:
            return self.head(x)
        x = (x * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        return self.head(x)


def seq2seq_loss(model, source, target):
    logits = model(source, target[:, :-1])
    return F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)


def decoder_loss(model, ids):
    logits = model(ids[:, :-1])
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=PAD)


def seq2seq_generate(model, source, steps):
    memory = model.encode(source)
    caches = [{} for _ in model.decoder.layers]
    ids = torch.full((len(source), 1), BOS)
    for step in range(steps):
        logits = model.decode(source, memory, ids[:, -1:], caches, step)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids


def decoder_generate(model, ids, steps):
    caches = [{} for _ in model.stack.layers]
    logits = model(ids, caches)
    for _ in range(steps):
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        logits = model(ids[:, -1:], caches, ids.shape[1] - 1)
    return ids


def build(kind, config, seed):
    """Keywords for ``doctor.examine``."""
    torch.manual_seed(seed)
    given = {"kind": kind, "pad_id": PAD, "bos_id": BOS, "eos_id": EOS, "max_length": config.max_length}
    if kind == "seq2seq":
        return {"model": Seq2Seq(config), "loss": seq2seq_loss, "generate": seq2seq_generate, **given}
    if kind == "decoder":
        return {"model": Decoder(config), "loss": decoder_loss, "generate": decoder_generate, **given}
    return {"model": Encoder(config), **given}
