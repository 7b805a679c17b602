"""One process of a training run on simulated devices: the manifests model, small and in float64, with dropout.

Argument: [mesh, steps, devices of a process, coordinator, processes, index, mixer, packing, optimizer, r_drop] as JSON.
Prints losses, bytes held by each device, and the rows that this process loads, as JSON.
"""

import json
import sys
from dataclasses import replace
from typing import Literal

import jax

from flax_transformer.config import (
    BatchConfig,
    ManifestsData,
    MeshConfig,
    Mixer,
    ModelConfig,
    TokenizerConfig,
    TrainConfig,
)
from flax_transformer.data.encoding import encode_examples
from flax_transformer.data.manifests.task import load_manifests
from flax_transformer.data.packed_batches import training_batches
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.distributed.processes import join_processes
from flax_transformer.distributed.sharding import bytes_per_device, create_mesh, local_rows, place_rows
from flax_transformer.training.input import prefetch
from flax_transformer.training.loop import with_vocabulary
from flax_transformer.training.step import TrainStep

CONFIG = TrainConfig(
    data=ManifestsData(train_size=320, validation_size=1, test_size=1, max_items=1),
    tokenizer=TokenizerConfig(vocab_size=304),
    model=ModelConfig(
        d_model=32,
        num_heads=8,
        d_ff=64,
        num_encoder_layers=1,
        num_decoder_layers=1,
        attention_dropout=0.1,
        dtype="float64",
        param_dtype="float64",
    ),
    batch=BatchConfig(size=16, buckets=1, word_dropout=0.1, max_source_length=512, max_target_length=512),
    epochs=10,
)


def main(
    sizes: list[int],
    steps: int,
    devices: int,
    coordinator: str,
    processes: int,
    index: int,
    mixer: Mixer,
    packing: bool,
    optimizer: Literal["adamw", "muon"],
    r_drop: float,
) -> None:
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices)
    if processes > 1:
        join_processes(coordinator, processes, index)
    splits = load_manifests(CONFIG.data, seed=0)  # pyright: ignore[reportArgumentType]
    texts = [*splits.train.sources, *map(str, splits.train.targets)]
    tokenizer = train_tokenizer(CONFIG.tokenizer, texts)
    config = replace(with_vocabulary(CONFIG, tokenizer, ()), mesh=MeshConfig(*sizes))
    if mixer == "linear":
        config = replace(config, model=replace(config.model, attention_dropout=0.0))
    batch = replace(config.batch, packing=packing)
    config = replace(config, model=replace(config.model, mixer=mixer), batch=batch)
    config = replace(config, optimizer=replace(config.optimizer, name=optimizer), r_drop=r_drop)
    mesh = create_mesh(config.mesh)
    encoded = encode_examples(splits.train, tokenizer, config.batch, training=True)
    rows = local_rows(mesh, config.batch.size)
    batches = training_batches(encoded, config.batch, epochs=config.epochs, seed=0, rows=rows)
    step = TrainStep(config, len(batches), mesh)
    state = step.init()
    held = bytes_per_device(state)
    losses = []
    feed = prefetch(batches, 0, lambda batch: place_rows(batch, mesh, config.batch.size))
    for _ in range(steps):
        state, metrics = step(state, next(feed))
        losses.append(float(metrics["loss"]))
    print(json.dumps({"losses": losses, "bytes": list(held.values()), "rows": rows.tolist()}))


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
