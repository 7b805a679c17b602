"""Folders that ONNX Runtime serves: the graphs of the PyTorch twin, with all that it takes to predict."""

from collections.abc import Sequence
from pathlib import Path

from flax_transformer.config import ModelConfig, PredictionConfig, save_config
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.decoding.predictable import limits_of_model, save_prediction_files
from flax_transformer.errors import UserError
from flax_transformer.interop.export import CONFIG_FILE
from flax_transformer.interop.state_dict import Weights
from flax_transformer.interop.table_rows import mask_rows, rows_without_token
from flax_transformer.outputs import whole_folder


def check_supported(config: ModelConfig) -> None:
    """
    Raises:
        UserError: the graphs, whose caches hold keys and values, have no such model; the message says what to do.
    """
    if config.architecture == "masked":
        raise UserError(
            "expected a classifier or a seq2seq model for ONNX Runtime, got one that predicts masked tokens"
        )
    if not config.mixes_by_attention:
        raise UserError(
            f"expected attention, whose keys and values the graphs hand on, got {config.named_mixers}; train with "
            "--model.mixer attention and no --model.encoder-mixer, or export it with --format torch"
        )


def save_onnx(
    directory: Path,
    config: ModelConfig,
    weights: Weights,
    tokenizer: Tokenizer | None = None,
    classes: Sequence[str] = (),
    prediction: PredictionConfig | None = None,
) -> None:
    """Write ``encoder.onnx`` and ``decoder.onnx``, or ``model.onnx`` of a classifier, and what an export has beside it.

    Args:
        directory: must not exist, or be empty; it is there only once it is whole.
        weights: in PyTorch's names and layouts.
        tokenizer: rows of the table that it has no token for get logits of -inf.
        classes: the names of the class ids, in order.
        prediction: the limits of the run; the model's own if not given.

    Raises:
        UserError: the graphs have no such model, or the folder cannot be written.
    """
    check_supported(config)
    import torch

    from torch_reference.interop import onnx
    from torch_reference.nn.models import Classifier, Seq2Seq

    config, weights = mask_rows(config, weights, rows_without_token(config, tokenizer))
    with torch.device("meta"):
        model = Classifier(config) if config.architecture == "classifier" else Seq2Seq(config)
    model.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()}, assign=True)
    with whole_folder(directory) as folder:
        onnx.save_onnx(folder, model.eval())
        save_config(config, folder / CONFIG_FILE)
        if tokenizer is not None:
            save_prediction_files(folder, tokenizer, classes, prediction or limits_of_model(config))
