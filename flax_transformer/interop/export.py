"""Reading and writing an export folder: ``config.json`` and ``model.safetensors``."""

from pathlib import Path

import safetensors.numpy
from flax import nnx

from flax_transformer.config import ModelConfig, load_config, save_config
from flax_transformer.interop.state_dict import from_torch, get_weights, read_weights, to_params, to_torch
from flax_transformer.nn.models import Classifier, Seq2Seq, create_model

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"


def save_export(directory: Path, model: Classifier | Seq2Seq) -> None:
    """Write ``config.json`` and ``model.safetensors``, which both twins load; makes the folder if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    save_config(model.config, directory / CONFIG_FILE)
    safetensors.numpy.save_file(to_torch(get_weights(model)), directory / WEIGHTS_FILE)


def load_export(directory: Path) -> Classifier | Seq2Seq:
    """The model of an export, whichever twin wrote it.

    Raises:
        UserError: a file is missing or damaged, or config and weights do not belong together.
    """
    config = load_config(ModelConfig, directory / CONFIG_FILE)
    # Drawing weights, only to replace them, would take longer than reading them.
    graph, abstract = nnx.split(nnx.eval_shape(lambda: create_model(config, seed=0)))
    return nnx.merge(graph, to_params(abstract, from_torch(read_weights(directory / WEIGHTS_FILE))))
