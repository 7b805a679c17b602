"""The twin as ONNX graphs: ``model.onnx`` of a classifier, ``encoder.onnx`` and ``decoder.onnx`` of a generator.

All dimensions but the model's own are dynamic. Attention is written out, so that the graphs hold standard operators.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim

from flax_transformer.config import ModelConfig
from torch_reference.nn.attention import KeyValue
from torch_reference.nn.models import Classifier, Seq2Seq

MODEL_FILE, ENCODER_FILE, DECODER_FILE = "model.onnx", "encoder.onnx", "decoder.onnx"
# The format holds at most 2 GiB in one file; above this, weights stand in a file beside the graph.
_LARGEST_FILE = 2**30
# Tracing takes a dimension of 0 or 1 for a constant.
_ROWS, _SOURCE, _TARGET, _PAST = 2, 5, 3, 4


def save_onnx(folder: Path, model: Classifier | Seq2Seq) -> None:
    """Write the graphs of a model.

    Args:
        folder: to write to; must exist.
        model: in evaluation mode.
    """
    import onnx  # noqa: F401  (torch.onnx would tell of a missing one in many lines)
    import onnxscript  # noqa: F401

    model = _plain(model)
    config = model.config
    source = torch.ones(_ROWS, _SOURCE, dtype=torch.int64)
    lengths = torch.tensor([_SOURCE, 2])
    rows, width = Dim("batch"), Dim("source", max=config.max_length)
    of_source = {"source": {0: rows, 1: width}, "source_lengths": {0: rows}}
    if isinstance(model, Classifier):
        names = ["logits" if config.num_classes else "pooled"]
        _export(folder / MODEL_FILE, model, (source, lengths), names, of_source)
        return
    encoder, decoder = EncoderGraph(model), DecoderGraph(model)
    memory = encoder(source, lengths)
    _export(folder / ENCODER_FILE, encoder, (source, lengths), entry_names("memory", config), of_source)
    target = torch.ones(_ROWS, _TARGET, dtype=torch.int64)
    cache = [entry.new_zeros(_ROWS, config.num_heads, _PAST, config.head_dim) for entry in memory]
    new, past = Dim("target", max=config.max_length), Dim("past", max=config.max_length)
    shapes = {
        "target": {0: rows, 1: new},
        "source_lengths": {0: rows},
        "memory": [{0: rows, 2: width}] * len(memory),
        "cache": [{0: rows, 2: past}] * len(cache),
    }
    outputs = ["logits", *entry_names("new_cache", config)]
    inputs = ["target", "source_lengths", *entry_names("memory", config), *entry_names("cache", config)]
    _export(folder / DECODER_FILE, decoder, (target, lengths, memory, cache), outputs, shapes, inputs)


def entry_names(kind: str, config: ModelConfig) -> list[str]:
    """Names of each layer's keys and values, such as ``cache.0.key``."""
    return [f"{kind}.{layer}.{part}" for layer in range(config.num_decoder_layers) for part in ("key", "value")]


class EncoderGraph(nn.Module):
    """Source -> keys and values of the memory for each decoder layer: projected once, however much is decoded."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Int[Tensor, "batch source"], source_lengths: Int[Tensor, " batch"]) -> list[Tensor]:
        """
        Args:
            source: token ids, (batch, source), right-padded.
            source_lengths: real tokens of each source, (batch,).

        Returns:
            Keys and values in turn, each (batch, heads, source, head_dim).
        """
        memory = self.model.encode(source, source_lengths)
        return list(chain(*self.model.decoder.project_memory(memory, source_lengths)))


class DecoderGraph(nn.Module):
    """The next tokens, given keys and values of the earlier ones -> logits, and the keys and values with theirs."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        target: Int[Tensor, "batch target"],
        source_lengths: Int[Tensor, " batch"],
        memory: Sequence[Float[Tensor, "batch heads source head_dim"]],
        cache: Sequence[Float[Tensor, "batch heads past head_dim"]],
    ) -> tuple[Tensor, ...]:
        """
        Args:
            target: the next tokens, (batch, target).
            source_lengths: real tokens of each source, (batch,).
            memory: from the encoder.
            cache: keys and values of the tokens before, in turn, each (batch, heads, past, head_dim); past may be 0.

        Returns:
            Logits, (batch, target, vocab), then the new cache, in which past has grown by target.
        """
        offset = cache[0].shape[2]
        grown = [torch.cat([entry, entry.new_zeros(*_room(entry, target))], dim=2) for entry in cache]
        logits, written = self.model.decode(
            target, _by_layer(memory), source_lengths, offset=offset, cache=_by_layer(grown)
        )
        return logits, *chain(*written)


def _room(entry: Tensor, target: Tensor) -> tuple[int, int, int, int]:
    """The shape of the keys of new tokens."""
    return entry.shape[0], entry.shape[1], target.shape[1], entry.shape[3]


def _by_layer(entries: Sequence[Tensor]) -> list[KeyValue]:
    return [KeyValue(key, value) for key, value in zip(entries[::2], entries[1::2], strict=True)]


def _plain(model: Classifier | Seq2Seq) -> Classifier | Seq2Seq:
    """The same weights in float32, without a fused kernel, which would leave a row without tokens to the runtime."""
    with torch.device("meta"):
        plain = type(model)(replace(model.config, attention_backend="xla", dtype="float32", param_dtype="float32"))
    plain.load_state_dict({name: weight.float() for name, weight in model.state_dict().items()}, assign=True)
    return plain.eval()


def _export(
    path: Path,
    module: nn.Module,
    arguments: tuple[Any, ...],
    outputs: list[str],
    shapes: dict[str, Any],
    inputs: list[str] | None = None,
) -> None:
    size = sum(weight.numel() * weight.element_size() for weight in module.state_dict().values())
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), torch.no_grad():
        # Of the exporter about its own parts, and that torchvision is not there.
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        torch.onnx.export(
            module,
            arguments,
            str(path),
            dynamo=True,
            verbose=False,
            input_names=inputs or list(shapes),
            output_names=outputs,
            dynamic_shapes=shapes,
            external_data=size > _LARGEST_FILE,
        )
    logger.setLevel(level)
