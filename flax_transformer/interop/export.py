"""Export folders: a model in PyTorch's names and layouts, with all that it takes to predict what its run predicts."""

from collections.abc import Sequence
from pathlib import Path

import safetensors.numpy
from flax import nnx

from flax_transformer.config import ModelConfig, PredictionConfig, load_config, save_config
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.decoding.predictable import limits_of_model, save_prediction_files
from flax_transformer.distributed.memory import require_memory
from flax_transformer.interop.source import keep_source
from flax_transformer.interop.state_dict import from_torch, get_weights, read_weights, to_params, to_torch
from flax_transformer.nn.models import Model, create_model
from flax_transformer.outputs import whole_folder
from flax_transformer.runtime import require_precision

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def save_export(
    directory: str | Path,
    model: Model,
    tokenizer: Tokenizer | None = None,
    classes: Sequence[str] = (),
    prediction: PredictionConfig | None = None,
    origin: Path | None = None,
) -> None:
    """Write an export, which both twins load. It is there only once it is whole; its parents are made if need be.

    Args:
        directory: must not exist, or be empty.
        tokenizer: to predict from texts; without it the folder holds a bare model, ``config.json`` and
            ``model.safetensors``.
        classes: the names of the class ids, in order.
        prediction: the limits of the run; the model's own if not given.
        origin: the folder of the run, whose record of an import is kept.

    Raises:
        UserError: the folder is not empty, or cannot be written.
    """
    with whole_folder(Path(directory)) as folder:
        save_config(model.config, folder / CONFIG_FILE)
        weights = to_torch(get_weights(model))
        # The mark by which transformers knows a file whose tensors lie as PyTorch has them.
        safetensors.numpy.save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        if tokenizer is not None:
            save_prediction_files(folder, tokenizer, classes, prediction or limits_of_model(model.config))
        if origin is not None:
            keep_source(origin, folder)


def load_export(directory: str | Path) -> Model:
    """The model of an export, whichever twin wrote it.

    Raises:
        UserError: a file is missing or damaged, or config and weights do not belong together.
    """
    directory = Path(directory)
    config = load_config(ModelConfig, directory / CONFIG_FILE)
    require_precision(config)
    require_memory(config)
    # Drawing weights, only to replace them, would take longer than reading them.
    graph, abstract = nnx.split(nnx.eval_shape(lambda: create_model(config, seed=0)))
    return nnx.merge(graph, to_params(abstract, from_torch(read_weights(directory / WEIGHTS_FILE))))
