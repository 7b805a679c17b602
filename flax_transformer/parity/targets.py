"""What can be verified: a preset's model with random weights, the best checkpoint of a run, or an export."""

import dataclasses
from pathlib import Path

import numpy as np

from flax_transformer.config import ModelConfig, MultilabelData, load_config
from flax_transformer.data.tokenizer import Tokenizer, load_tokenizer
from flax_transformer.decoding.predictable import TOKENIZER_FILE, load_prediction_config
from flax_transformer.errors import UserError
from flax_transformer.formats import require_own_format
from flax_transformer.interop.export import CONFIG_FILE, WEIGHTS_FILE
from flax_transformer.interop.imported import model_type_of
from flax_transformer.interop.state_dict import check_weights, get_weights, read_weights, to_torch
from flax_transformer.parity.cases import Case, Sizes, make_case, random_weights
from flax_transformer.parity.measure import Arrays
from flax_transformer.presets import PRESETS, SIZES
from torch_reference.nn import models

# Of the batches that a preset is verified with.
_MINI_SIZES, _SIZES, _TASK_SIZES = Sizes(8, 24, 20), Sizes(3, 128, 128), Sizes(4, 32, 24)


@dataclasses.dataclass(frozen=True)
class Target:
    """What is verified. Weights are in PyTorch's names and layouts.

    Args:
        trained: what ``weights`` were exported from, if that is known: the two must be the same bit for bit.
        model_type: that of transformers which an import comes from.
        has_labels: of a classifier, whether a text may have several classes, each decided by itself.
    """

    name: str
    model: ModelConfig
    weights: Arrays
    sizes: Sizes
    trained: Arrays | None = None
    tokenizer: Tokenizer | None = None
    model_type: str | None = None
    has_labels: bool = False

    def case(self, dtype: str, seed: int = 0) -> Case:
        """In this dtype, with no limit but the model's own on the lengths of the input."""
        longest = self.model.max_length
        sizes = Sizes(self.sizes.rows, min(self.sizes.source, longest), min(self.sizes.target, longest))
        param_dtype = "float64" if dtype == "float64" else "float32"
        without_dropout = {"dropout": 0.0, "attention_dropout": 0.0, "feed_forward_dropout": None, "head_dropout": None}
        model = dataclasses.replace(self.model, dtype=dtype, param_dtype=param_dtype, **without_dropout)
        weights = {name: weight.astype(param_dtype) for name, weight in self.weights.items()}
        return make_case(model, seed, sizes, weights, **({"data": MultilabelData()} if self.has_labels else {}))


def preset_names() -> list[str]:
    return [*SIZES, *PRESETS]


def load_target(path: Path | None, preset: str | None, run: Path | None, *, headed: bool = True) -> Target:
    """
    Args:
        run: the run that the export at ``path`` was made from.
        headed: give a bare encoder a random head, since checks need a loss.

    Raises:
        UserError: both or neither of path and preset are given, the preset is unknown, or a folder is not what it
            should be.
    """
    if (path is None) == (preset is None):
        raise UserError("expected a run folder, an export folder or --preset, and only one of them")
    if path is None:
        if run is not None:
            raise UserError("--run: expected an export to compare with the run, got a preset")
        return _preset(str(preset))
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"{path}: expected a run or an export, but there is no {CONFIG_FILE} in it")
    if (path / "checkpoints").is_dir():
        if run is not None:
            raise UserError(f"--run: expected an export of {run} to compare with it, got the run {path}")
        return _run(path)
    require_own_format(path)
    target = _export(path, headed)
    if run is None:
        return target
    source = _run(run)
    if source.model != target.model:
        raise UserError(f"{path}: expected an export of {run}, got one of another model config")
    return dataclasses.replace(target, trained=source.weights)


def _preset(name: str) -> Target:
    data = PRESETS[name]["default"].data if name in PRESETS else None
    if name in SIZES:
        model, sizes = SIZES[name], _MINI_SIZES if name == "mini" else _SIZES
    elif name in PRESETS:
        model, sizes = PRESETS[name]["default"].model, _TASK_SIZES
    else:
        raise UserError(f"--preset: expected one of {', '.join(preset_names())}, got {name!r}")
    weights = random_weights(model, seed=0)
    return Target(f"preset {name}", model, weights, sizes, has_labels=isinstance(data, MultilabelData))


def _export(folder: Path, headed: bool) -> Target:
    model = load_config(ModelConfig, folder / CONFIG_FILE)
    weights = _checked(model, read_weights(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    if headed and model.architecture == "classifier" and not model.num_classes:
        model, weights = with_head(model, weights)
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE) if (folder / TOKENIZER_FILE).is_file() else None
    limits = load_prediction_config(folder)
    return Target(
        f"export {folder.name}",
        model,
        weights,
        Sizes(8, 48, 40),
        tokenizer=tokenizer,
        model_type=model_type_of(folder),
        has_labels=limits is not None and bool(limits.thresholds),
    )


def with_head(model: ModelConfig, weights: Arrays) -> tuple[ModelConfig, Arrays]:
    """A bare encoder with a random head."""
    model = dataclasses.replace(model, num_classes=2)
    head = {name: weight for name, weight in random_weights(model, seed=0).items() if name.startswith("head.")}
    return model, {**weights, **head}


def _run(folder: Path) -> Target:
    from flax_transformer.training.run import Run  # loads orbax

    run = Run.load(folder)
    model = run.config.model
    weights = _checked(model, to_torch(get_weights(run.best_model())), folder / "checkpoints")
    has_labels = isinstance(run.config.data, MultilabelData)
    return Target(
        f"run {folder.name}",
        model,
        weights,
        Sizes(8, 48, 40),
        tokenizer=run.tokenizer,
        model_type=model_type_of(folder),
        has_labels=has_labels,
    )


def _checked(model: ModelConfig, weights: Arrays, where: Path) -> Arrays:
    """The weights, if they are those of the model and finite."""
    import torch

    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in models.create_model(model, 0).state_dict().items()}
    check_weights(expected, weights)
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            count = int((~np.isfinite(weight)).sum())
            raise UserError(f"{where}: {name!r} holds {count} values that are not finite; train or export again")
    return weights
