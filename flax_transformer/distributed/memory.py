"""The least memory that a model can do with, counted from its config: what cannot fit is refused before it is tried."""

import os
from pathlib import Path

import jax

from flax_transformer.config import ModelConfig, TrainConfig
from flax_transformer.errors import UserError

_TRAINED_COPIES = 3  # the weights, and Adam's two means
_SHORTEST_ROW = 8  # tokens that the rows of a batch have at least
_MOST_STEPS = 50_000_000  # the schedule is a table, which is part of the program


def count_matrix_parameters(model: ModelConfig) -> int:
    """Of embeddings, linear maps and learned positions. Norms and biases, which come to little, are left out."""
    width = model.d_model
    attention = 4 * width * model.num_heads * model.head_dim
    feed_forward = (3 if model.gated else 2) * width * model.d_ff
    positions = model.max_length + model.position_offset if model.positions == "learned" else 0
    # Of an LSTM two directions of half the width, and one of the whole width.
    reading, writing = (
        lstm if mixer == "lstm" else attention
        for mixer, lstm in zip(model.mixers, (6 * width**2, 8 * width**2), strict=True)
    )
    encoder = model.num_encoder_layers * (reading + feed_forward)
    encoder += model.embedding_dim * (model.source_vocab_size + positions)
    if model.architecture == "classifier":
        return encoder + width * model.num_classes
    if model.architecture == "masked":
        return encoder
    decoder = model.num_decoder_layers * (writing + attention + feed_forward) + model.embedding_dim * positions
    # Of the target's table and the projection, those that are not the source's table nor each other.
    separate = {"all": 0, "inputs": 1, "target": 1, "none": 2}[model.tie_embeddings]
    return encoder + decoder + width * separate * model.target_vocab_size


def require_memory(model: ModelConfig, rows: int = 1, copies: int = 1, shares: int = 1) -> None:
    """
    Args:
        rows: of a batch, on one device.
        copies: of the weights.
        shares: devices that share a copy.

    Raises:
        UserError: even the largest arrays alone are more than the memory of a device.
    """
    item = 8 if model.param_dtype == "float64" else 4
    weights = count_matrix_parameters(model) * item * copies / shares
    # The table of positions is computed in float64, with its angles; the first activations have the width of the model.
    widths = {"sinusoidal": model.d_model, "sinusoidal_halves": model.d_model, "rope": model.head_dim}
    positions = widths.get(model.positions, 0) * model.max_length * 2 * 8
    batch = rows * _SHORTEST_ROW * (model.d_model * 4 / shares + 4)
    needed, there_is = weights + positions + batch, device_memory()
    if needed > there_is:
        raise UserError(
            f"expected a model and a batch that fit into the {_gib(there_is)} of a device, got {_gib(needed)}: weights "
            f"and optimizer {_gib(weights)}, positions {_gib(positions)}, batch {_gib(batch)}; take a smaller one"
        )


def require_memory_to_train(config: TrainConfig, total_steps: int) -> None:
    """As :func:`require_memory`, of a training run; and a schedule that can be written down."""
    if total_steps > _MOST_STEPS:
        raise UserError(
            f"expected at most {_MOST_STEPS:,} steps, got {total_steps:,}; take fewer epochs or larger batches"
        )
    shares = config.mesh.fsdp * config.mesh.model
    devices = max(1, jax.device_count() // config.mesh.model)
    rows = config.batch.size // (devices * config.gradient_accumulation_steps)
    require_memory(config.model, rows, _TRAINED_COPIES, shares)


def device_memory() -> int:
    """Bytes of one device; of a CPU, what this machine or its container has."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no container, or one without a limit
        return physical


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
