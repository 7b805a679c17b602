"""What the generators of both twins share: the checks of a request, padded widths and random draws."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from flax_transformer.config import GenerationConfig, ModelConfig
from flax_transformer.data.copying import Copying
from flax_transformer.errors import UserError

_DRAW_BITS = 23


class Constraint(NamedTuple):
    """A finite automaton over token ids that accepts whole outputs: state 0 begins, the end token leads to acceptance.

    Args:
        transitions: the state after each token; -1 where the token may not come.
        distances: fewest tokens from a state to the end of an output, the end token included. With them an output
            always ends within its limit.
    """

    transitions: Int32[np.ndarray, "states vocab"]
    distances: Int32[np.ndarray, " states"]


def check_request(
    model: ModelConfig,
    source: Int[np.ndarray, "batch source"],
    source_lengths: Int[np.ndarray, " batch"],
    config: GenerationConfig,
    constraint: Constraint | None = None,
    copying: Copying | None = None,
) -> None:
    """All that can be known to be wrong before anything is compiled.

    A row of length 0 is filler and stays without output; a batch of nothing else is a mistake.

    Raises:
        UserError: names what was expected and what came.
    """
    check_settings(model, config, constraint)
    _check_source(model, source, source_lengths)
    if copying is not None and copying.transitions.shape[1] != model.target_vocab_size:
        raise UserError(
            f"copying: expected a rule for {model.target_vocab_size} token ids, got {copying.transitions.shape[1]}"
        )
    if copying is not None and len(copying.starts) != len(source):
        raise UserError(f"copying: expected that of {len(source)} sources, got {len(copying.starts)}")


def check_settings(model: ModelConfig, config: GenerationConfig, constraint: Constraint | None = None) -> None:
    """What can be known to be wrong before there is a source.

    Raises:
        UserError: names what was expected and what came.
    """
    if model.architecture != "seq2seq":
        raise UserError(f"expected a seq2seq model to generate with, got a {model.architecture}")
    vocabulary = min(model.target_vocab_size, config.num_tokens or model.target_vocab_size)
    for name, value, limit, of in (
        ("max_new_tokens", config.max_new_tokens, model.max_length, "model's max_length"),
        ("beam_width", config.beam_width if config.strategy == "beam" else 1, vocabulary, "vocabulary size"),
        ("top_k", config.top_k, vocabulary, "vocabulary size"),
    ):
        if value > limit:
            raise UserError(f"{name}: expected at most the {of}={limit}, got {value}")
    for token in config.prefix:
        if not 0 <= token < vocabulary or token in (model.pad_id, model.eos_id):
            raise UserError(
                f"prefix: expected token ids below the vocabulary size {vocabulary}, without padding "
                f"({model.pad_id}) and end token ({model.eos_id}), got {token}"
            )
    if constraint is not None:
        _check_constraint(model, config, constraint)


def _check_source(model: ModelConfig, source: Int[np.ndarray, "..."], lengths: Int[np.ndarray, "..."]) -> None:
    if source.ndim != 2 or source.size == 0:
        raise UserError(f"source: expected token ids of shape (batch, length), none of them 0, got {source.shape}")
    for name, values in (("source", source), ("source_lengths", lengths)):
        if not np.issubdtype(values.dtype, np.integer):
            raise UserError(f"{name}: expected whole numbers, got {values.dtype}")
    batch, width = source.shape
    if lengths.shape != (batch,):
        raise UserError(f"source_lengths: expected one for each of {batch} rows, got shape {lengths.shape}")
    if width > model.max_length:
        raise UserError(f"source: expected at most the model's max_length={model.max_length} tokens, got {width}")
    if lengths.min() < 0 or lengths.max() > width:
        raise UserError(f"source_lengths: expected 0 to {width}, got {lengths.min()} to {lengths.max()}")
    if lengths.max() == 0:
        raise UserError("source_lengths: expected a row with at least one token, got nothing but padding")
    real = np.arange(width) < lengths[:, None]
    lowest, highest = source[real].min(), source[real].max()
    if lowest < 0 or highest >= model.source_vocab_size:
        raise UserError(f"source: expected ids in [0, {model.source_vocab_size}), got {lowest} to {highest}")
    padding_only = (lengths > 0) & (~real | (source == model.pad_id)).all(axis=1)
    if padding_only.any():
        row = int(padding_only.argmax())
        raise UserError(f"source: row {row} has a length of {lengths[row]}, but is only padding; give it a length of 0")


def _check_constraint(model: ModelConfig, config: GenerationConfig, constraint: Constraint) -> None:
    vocabulary = constraint.transitions.shape[1]
    if vocabulary != model.target_vocab_size:
        raise UserError(f"constraint: expected one of {model.target_vocab_size} token ids, got one of {vocabulary}")
    if config.min_new_tokens > 0:
        raise UserError(
            f"min_new_tokens: a constraint says where an output ends; expected 0, got {config.min_new_tokens}"
        )
    state = 0
    for token in config.prefix:
        state = constraint.transitions[state, token]
        if state < 0:
            raise UserError(f"prefix: expected what the constraint allows, got {config.prefix}")
    needed = len(config.prefix) + int(constraint.distances[state])
    if needed > config.max_new_tokens:
        raise UserError(
            f"max_new_tokens: expected at least {needed}, the shortest output that the constraint allows, "
            f"got {config.max_new_tokens}"
        )


def padded_width(width: int, max_length: int) -> int:
    """The next of 16, 24, 32, 48, 64, 96, ...: few widths, so few compiled shapes, and at most half of one wasted."""
    padded = 16
    while padded < width:
        padded = padded * 3 // 2 if padded & (padded - 1) == 0 else padded * 4 // 3
    return min(padded, max_length)


def uniform_draws(seed: int, row_seeds: Sequence[int], length: int) -> Float32[np.ndarray, "batch {length}"]:
    """Numbers in [0, 1) that rows draw their tokens with: a function of ``seed`` and the row's own seed alone.

    They have 23 bits, so that they are exact in float32 and the product of one with any total stays below the total.
    """
    draws = [np.random.default_rng((seed, int(row))).integers(2**_DRAW_BITS, size=length) for row in row_seeds]
    return np.stack(draws).astype(np.float32) / np.float32(2**_DRAW_BITS)
