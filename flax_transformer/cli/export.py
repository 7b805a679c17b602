"""``flax-transformer export``: write a trained model for PyTorch, transformers, CTranslate2 or ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, deferred, parse
from flax_transformer.errors import UserError

if TYPE_CHECKING:
    from flax_transformer.config import ModelConfig
    from flax_transformer.interop.state_dict import Weights
    from flax_transformer.training.run import Exported, Run

Format = Literal["torch", "hf", "ctranslate2", "onnx"]
Quantization = Literal["float32", "float16", "int8", "int8_float16"]


def export(arguments: Sequence[str]) -> int:
    """Write a trained model for PyTorch, transformers, CTranslate2 or ONNX Runtime."""
    return parse(deferred(_export), prog=f"{PROGRAM} export", args=list(arguments) or ["--help"])()


def _export(
    run: Positional[Path],
    directory: Positional[Path],
    file_format: Annotated[Format, tyro.conf.arg(name="format")] = "torch",
    quantization: Quantization = "float32",
) -> int:
    """Write a run's best checkpoint, with all that it takes to predict.

    Args:
        run: folder of the run; for all formats but torch also of an export.
        directory: where to; must not exist, or be empty.
        file_format: torch: what both twins load; hf: what transformers loads, where it has a class for the model;
            ctranslate2: what CTranslate2 generates with; onnx: graphs for ONNX Runtime.
        quantization: of the weights, for ctranslate2.
    """
    from flax_transformer.interop.source import keep_source
    from flax_transformer.outputs import check_new_folder

    check_new_folder(directory)
    if quantization != "float32" and file_format != "ctranslate2":
        raise UserError(f"--quantization {quantization}: expected --format ctranslate2, got {file_format}")
    match file_format:
        case "torch":
            _to_torch(run, directory)
        case "hf":
            _to_transformers(run, directory)
        case "ctranslate2":
            _to_ctranslate2(run, directory, quantization)
        case "onnx":
            _to_onnx(run, directory)
    if file_format != "torch":  # which holds it from the start
        keep_source(run, directory)
    print(f"wrote {', '.join(sorted(path.name for path in directory.iterdir()))} to {directory}")
    return 0


def _to_torch(folder: Path, directory: Path) -> None:
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.run import Run

    run = Run.load(folder)
    set_up_jax()
    run.export(directory)


def _to_transformers(folder: Path, directory: Path) -> None:
    from flax_transformer.interop.imported import export_huggingface

    print(f"{export_huggingface(_load(folder), directory)} of transformers reads it")


def _to_ctranslate2(folder: Path, directory: Path, quantization: Quantization) -> None:
    import ctranslate2  # noqa: F401  (missing, it is to be told before the weights are read)

    from flax_transformer.interop.ctranslate2_export import save_ctranslate2
    from flax_transformer.interop.ctranslate2_spec import check_supported

    if _is_bare(folder):
        config, weights, tokenizer = *_read_bare(folder), None
    else:
        trained = _load(folder)
        check_supported(trained.model_config)
        config, weights, tokenizer = trained.model_config, _weights(trained), trained.tokenizer
    save_ctranslate2(directory, config, weights, tokenizer, quantization)


def _to_onnx(folder: Path, directory: Path) -> None:
    import onnx  # noqa: F401
    import onnxscript  # noqa: F401

    from flax_transformer.interop.onnx_export import check_supported, save_onnx

    if _is_bare(folder):
        save_onnx(directory, *_read_bare(folder))
    else:
        trained = _load(folder)
        check_supported(trained.model_config)
        limits = trained.prediction_config
        save_onnx(directory, trained.model_config, _weights(trained), trained.tokenizer, trained.classes, limits)


def _load(folder: Path) -> "Run | Exported":
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training.run import load_trained

    trained = load_trained(folder)
    if trained.model_config.architecture == "masked":
        raise UserError(
            f"--format: expected a classifier or a seq2seq model, got {folder}, which predicts masked tokens; "
            f"train a classifier from it (--pretrained {folder}) and export that, or take --format torch"
        )
    set_up_jax()
    return trained


def _weights(trained: "Run | Exported") -> "Weights":
    from flax_transformer.interop.state_dict import get_weights, to_torch

    return to_torch(get_weights(trained.best_model()))


def _is_bare(folder: Path) -> bool:
    """Whether it is an import without a tokenizer, as of a Marian model."""
    from flax_transformer.decoding.predictable import TOKENIZER_FILE
    from flax_transformer.interop.export import WEIGHTS_FILE

    return (folder / WEIGHTS_FILE).is_file() and not (folder / TOKENIZER_FILE).is_file()


def _read_bare(folder: Path) -> "tuple[ModelConfig, Weights]":
    from flax_transformer.config import ModelConfig, load_config
    from flax_transformer.interop.export import CONFIG_FILE, WEIGHTS_FILE
    from flax_transformer.interop.huggingface.shapes import weight_shapes
    from flax_transformer.interop.state_dict import check_weights, read_weights

    config, weights = load_config(ModelConfig, folder / CONFIG_FILE), read_weights(folder / WEIGHTS_FILE)
    check_weights(weight_shapes(config), weights)
    return config, weights
