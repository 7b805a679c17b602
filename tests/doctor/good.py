"""Models with nothing wrong in them, of many shapes: none of them may be called ill."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from flax_transformer import doctor
from tests.doctor.planting import load

KINDS = ("seq2seq", "decoder", "encoder")


@dataclass(frozen=True)
class Case:
    """A clean model: options of its config, the type of its parameters, and whether it is trained first."""

    framework: str
    kind: str
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    trained: bool = False

    def __str__(self) -> str:
        options = "-".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.framework}-{self.kind}-{options}-{self.dtype}{'-trained' * self.trained}-{self.seed}"


def cases() -> Iterator[Case]:
    """More than a hundred in PyTorch, and some of each kind in JAX."""
    for kind in KINDS:
        for norm_first in (False, True):
            for positions in ("sinusoidal", "learned", "rotary", "relative"):
                for seed in range(2):
                    yield Case("torch", kind, seed, {"norm_first": norm_first, "positions": positions})
            for layers in (1, 6, 12):
                yield Case("torch", kind, 0, {"norm_first": norm_first, "layers": layers})
        for options in (
            {"width": 16},
            {"width": 128},
            {"width": 512, "heads": 8},
            {"heads": 1},
            {"width": 256, "heads": 16},
        ):
            yield Case("torch", kind, 0, options)
        yield Case("torch", kind, 1, {"heads": 1, "layers": 1, "width": 16, "positions": "learned"})
        for seed in range(2):
            yield Case("torch", kind, seed, {}, dtype="bfloat16")
            yield Case("torch", kind, seed, {"positions": "learned"}, trained=True)
        yield Case("torch", kind, 0, {"norm_first": True}, trained=True)
        yield Case("torch", kind, 0, {"positions": "rotary"}, trained=True)
        yield Case("flax", kind, 0, {})
        yield Case("flax", kind, 1, {"norm_first": True, "positions": "learned"})
        yield Case("flax", kind, 0, {"positions": "rotary"})
    for seed in range(3):
        yield Case("torch", "seq2seq", seed, {"tied": True})
        yield Case("torch", "decoder", seed, {"tied": True, "norm_first": True})
        yield Case("torch", "encoder", seed, {"token_level": True})
    yield Case("flax", "decoder", 0, {"tied": True})
    yield Case("flax", "encoder", 0, {"token_level": True})


def examine_good(case: Case) -> doctor.Report:
    module = load(f"{case.framework}_models.py")
    given = module.build(case.kind, module.Config(**case.options), case.seed)
    if case.trained:
        _train(given["model"], case.kind, case.seed)
        given["fresh"] = False
    if case.dtype != "float32":
        given["model"].to(getattr(torch, case.dtype))
    return doctor.examine(**given)


def _train(model: torch.nn.Module, kind: str, seed: int, steps: int = 150) -> None:
    """To copy, to count on, or to find the largest: enough for weights that are no longer fresh."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        ids = torch.randint(3, 29, (32, 8), generator=random)
        if kind == "seq2seq":
            logits, labels = model(ids, torch.cat([torch.ones_like(ids[:, :1]), ids[:, :-1]], 1)), ids
        elif kind == "decoder":
            counted = 3 + (ids[:, :1] + torch.arange(9)) % 26
            logits, labels = model(counted[:, :-1]), counted[:, 1:]
        else:
            logits, labels = model(ids), ids.max(dim=1).values % 5
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
