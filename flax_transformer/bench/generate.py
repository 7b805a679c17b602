"""``bench generate``: greedy generation by equal models in turns; new tokens per second, and what a further one costs.

The end token is forbidden, so that all candidates take the same number of steps.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from rich.console import Console
from rich.table import Table

from flax_transformer.bench.measure import Measured, pair_ratios, spread, take_turns
from flax_transformer.bench.records import Record
from flax_transformer.bench.worker import Candidate, Worker
from flax_transformer.config import GenerationConfig, ModelConfig, to_dict
from flax_transformer.errors import UserError
from flax_transformer.presets import SIZES

Preset = Literal["small", "base"]
Peer = Literal["torch", "hf", "naive"]
Tokens = Int[np.ndarray, "batch tokens"]

MAKERS = {
    "flax": "flax_transformer.bench.generate:Flax",
    "torch": "flax_transformer.bench.generate:Torch",
    "hf": "flax_transformer.bench.generate:Marian",
    "naive": "flax_transformer.bench.generate:Naive",
}


class Generator(Candidate):
    """A model with random weights, and how it generates."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def set_shape(self, batch: int, source_length: int, new_tokens: int) -> None:
        shape = (batch, source_length)
        self._source = np.random.default_rng(0).integers(3, self.config.source_vocab_size, shape).astype(np.int32)
        self._settings = GenerationConfig(max_new_tokens=new_tokens, min_new_tokens=new_tokens)

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        raise NotImplementedError

    def time(self, steps: int) -> tuple[float, float]:
        """Seconds of all calls. Results are read, so the host is free no earlier than all is done."""
        start = time.perf_counter()
        for _ in range(steps):
            tokens = self.generate(self._source, self._settings)
        seconds = time.perf_counter() - start
        assert tokens.shape == (len(self._source), self._settings.max_new_tokens)
        assert not np.any(tokens == self.config.eos_id)
        return seconds, seconds


class Flax(Generator):
    def __init__(self, config: ModelConfig) -> None:
        from flax_transformer.decoding.generate import generate
        from flax_transformer.nn.models import create_model
        from flax_transformer.runtime import keep_freed_memory

        super().__init__(config)
        keep_freed_memory()  # as the command line does
        self._generate: Any = generate
        self._model = create_model(config, seed=0)

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        lengths = np.full(len(source), source.shape[1], np.int32)
        return np.asarray(self._generate(self._model, source, lengths, settings).tokens)


class Torch(Generator):
    """The PyTorch twin."""

    def __init__(self, config: ModelConfig) -> None:
        import torch

        from torch_reference.decoding.generate import generate
        from torch_reference.nn.models import create_model

        super().__init__(config)
        self._generate, self._torch = generate, torch
        self._model: Any = create_model(config, seed=0).eval()

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        lengths = self._torch.full((len(source),), source.shape[1])
        return self._generate(self._model, self._torch.tensor(source), lengths, settings).tokens.numpy()


class Naive(Torch):
    """The PyTorch twin without a cache: for every token the decoder runs over the whole prefix."""

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        torch, model = self._torch, self._model
        ids, lengths = torch.tensor(source), torch.full((len(source),), source.shape[1])
        with torch.inference_mode():
            memory = model.decoder.project_memory(model.encode(ids, lengths), lengths)
            target = torch.full((len(source), 1), self.config.bos_id)
            for _ in range(settings.max_new_tokens):
                logits = model.decode(target, memory, lengths)[0][:, -1]
                logits[:, self.config.eos_id] = -torch.inf
                target = torch.cat([target, logits.argmax(dim=-1, keepdim=True)], dim=1)
        return target[:, 1:].numpy()


class Marian(Generator):
    """MarianMT of transformers in the same shape, with its own ``generate``."""

    def __init__(self, config: ModelConfig) -> None:
        import torch
        import transformers

        from flax_transformer.bench.peers import marian

        super().__init__(config)
        self._torch, self._transformers = torch, transformers
        self._ids: dict[str, Any] = {
            "pad_token_id": config.pad_id,
            "eos_token_id": config.eos_id,
            "decoder_start_token_id": config.bos_id,
        }
        self._model: Any = marian(config).eval()

    def generate(self, source: Tokens, settings: GenerationConfig) -> Tokens:
        tokens = self._torch.tensor(source, dtype=self._torch.long)
        theirs = self._transformers.GenerationConfig(
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens,
            do_sample=False,
            num_beams=1,
            **self._ids,
        )
        with self._torch.inference_mode():
            output = self._model.generate(
                tokens, attention_mask=self._torch.ones_like(tokens), generation_config=theirs
            )
        return output[:, 1:].numpy()


def throughput(
    preset: Preset = "small",
    against: tuple[Peer, ...] = ("torch", "hf"),
    batches: tuple[int, ...] = (1, 8, 64),
    new_tokens: int = 64,
    source_length: int = 64,
    rounds: int = 5,
    json: Path | None = None,
) -> int:
    """New tokens per second of greedy generation.

    Args:
        preset: small: 3+3 layers, 256 wide; base: 6+6 layers, 512 wide.
        against: torch: the PyTorch twin; hf: MarianMT of transformers, of equal size (small only, since it has no final
            norms); naive: the twin without a cache.
        batches: rows at a time.
        new_tokens: of each row.
        source_length: tokens of each source.
        rounds: turns of each candidate.
        json: file for the record, or a folder that it is to be named in.
    """
    return _bench("throughput", preset, against, batches, (new_tokens,), source_length, rounds, json)


def slope(
    preset: Preset = "small",
    against: tuple[Peer, ...] = ("torch", "hf"),
    batch: int = 8,
    new_tokens: tuple[int, ...] = (16, 32, 64, 128, 256, 512),
    source_length: int = 64,
    rounds: int = 3,
    json: Path | None = None,
) -> int:
    """What a new token costs, and how much more with each position.

    Args:
        preset: as in throughput.
        against: as in throughput.
        batch: rows at a time.
        new_tokens: of each row; at least three numbers.
        source_length: tokens of each source.
        rounds: turns of each candidate.
        json: file for the record, or a folder that it is to be named in.
    """
    if len(new_tokens) < 3:
        raise UserError(f"--new-tokens: expected at least three numbers to fit a curve to, got {len(new_tokens)}")
    return _bench("slope", preset, against, (batch,), new_tokens, source_length, rounds, json)


def _bench(
    what: str,
    preset: Preset,
    against: Sequence[Peer],
    batches: Sequence[int],
    new_tokens: Sequence[int],
    source_length: int,
    rounds: int,
    json: Path | None,
) -> int:
    if rounds < 1:
        raise UserError(f"--rounds: expected a whole number of at least 1, got {rounds}")
    config, console = SIZES[preset], Console(width=None if Console().is_terminal else 160)
    if config.final_norm and "hf" in against:
        console.print("hf takes no part: MarianMT has no final norms")
        against = [peer for peer in against if peer != "hf"]
    found: list[dict[str, Any]] = []
    with ExitStack() as stack, console.status("starting") as status:
        workers = {name: Worker(MAKERS[name], config) for name in dict.fromkeys(("flax", *against))}
        for worker in workers.values():
            stack.callback(worker.close)
        for batch in batches:
            for count in new_tokens:
                for worker in workers.values():
                    worker.call("set_shape", batch, source_length, count)
                measured = take_turns(workers, rounds, status.update)
                found.append({"batch": batch, "new_tokens": count, "candidates": _figures(measured, batch * count)})
    results = {"shapes": found, "slopes": {name: _slopes(found, name) for name in workers}}
    settings = {"model": to_dict(config), "source_length": source_length}
    record = Record("generate", f"{what}-{preset}", settings, results)
    _print(record, console)
    if json is not None:
        console.print(f"record: {record.save(json)}", markup=False)
    return 0


def _figures(measured: dict[str, Measured], tokens: int) -> dict[str, dict[str, Any]]:
    """Of each candidate, with how many times as fast flax was, round by round."""
    ours = measured["flax"].seconds
    figures = {}
    for name, own in measured.items():
        figures[name] = asdict(own)
        if own.refused is None:
            figures[name] |= {
                "tokens_per_second": tokens / median(own.seconds),
                "spread": spread(own.seconds),
                "ratios": pair_ratios(ours, own.seconds) if ours else [],
            }
    return figures


def _slopes(found: Sequence[dict[str, Any]], name: str) -> dict[int, dict[str, float]]:
    """By batch, the milliseconds that a further token costs: the first one, and how much more with each position.

    A parabola is fitted to the time of n tokens: the encoder, what each token costs, and what grows with the position.
    """
    lines = {}
    for batch in dict.fromkeys(shape["batch"] for shape in found):
        shapes = [shape for shape in found if shape["batch"] == batch and not shape["candidates"][name]["refused"]]
        if len(shapes) >= 3:
            counts = [shape["new_tokens"] for shape in shapes]
            totals = [1e3 * median(shape["candidates"][name]["seconds"]) for shape in shapes]
            half_rise, first, _ = np.polyfit(counts, totals, 2, w=1 / np.array(totals))
            lines[batch] = {"first": float(first), "rise": 2 * float(half_rise)}
    return lines


def _print(record: Record, console: Console) -> None:
    table = Table(title=f"generate {record.label}: {record.machine['device']}", title_justify="left", pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    for column in ("batch", "new tokens", "tokens/s", "ms a token", "spread", "first call", "flax is faster"):
        table.add_column(column, justify="right", no_wrap=True)
    for shape in record.results["shapes"]:
        batch, count = shape["batch"], shape["new_tokens"]
        for name, own in shape["candidates"].items():
            if own["refused"] is not None:
                console.print(f"{name} took no part: {own['refused']}", markup=False)
                continue
            milliseconds = 1e3 * batch / own["tokens_per_second"]
            ratios = own["ratios"] if name != "flax" else []
            ratio = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
            cells = (f"{own['tokens_per_second']:,.0f}", f"{milliseconds:.2f}", f"± {own['spread']:.1%}")
            table.add_row(name, str(batch), str(count), *cells, f"{own['first']:.2f} s", ratio)
    console.print(table)
    for name, lines in record.results["slopes"].items():
        for batch, line in lines.items():
            cost = f"{line['first']:.2f} ms for the first token, {1e3 * line['rise']:+.2f} us more with each position"
            console.print(f"{name}, batch {batch}: {cost}")
