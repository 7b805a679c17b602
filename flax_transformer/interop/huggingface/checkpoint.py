"""A checkpoint folder of transformers: its settings and its tensors, or one line that says why it cannot be read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from flax_transformer.config import load_json
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.family import Settings, Weights

CONFIG_FILE, WEIGHTS_FILE, GENERATION_FILE = "config.json", "model.safetensors", "generation_config.json"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
# Settings that are read here, and what they hold.
_TYPES: dict[str, type] = {"model_type": str, "architectures": list, "id2label": dict, "quantization_config": dict}
# Formats that hold Python code, or belong to other frameworks.
_OTHER_WEIGHTS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds.

    Attributes:
        settings: of ``config.json``.
        generation: of ``generation_config.json``; empty if there is none.
        weights: tensors by their key; floating ones in float32.
        dtypes: those that the floating tensors are stored in.
        files: name -> SHA-256 of each file that was read.
    """

    folder: Path
    settings: Settings
    generation: Settings
    weights: Weights
    dtypes: tuple[str, ...]
    files: dict[str, str]


def read_settings(folder: Path) -> Settings:
    """The settings of ``config.json``.

    Raises:
        UserError: ``folder`` is no folder with a checkpoint of transformers.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder with a checkpoint, but there is none")
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{folder}: expected a checkpoint of transformers, but there is no {CONFIG_FILE} in it")
    settings = read_json(folder / CONFIG_FILE)
    if "model_type" not in settings:
        ours = "architecture" in settings or "data" in settings
        what = "it is a folder of this project, which needs no import" if ours else "and its config.json names none"
        raise UserError(f"{folder}: expected a checkpoint of transformers, which names its model_type; {what}")
    for name, kind in _TYPES.items():
        value = settings.get(name)
        if value is not None and not isinstance(value, kind):
            got = type(value).__name__
            raise UserError(f"{folder / CONFIG_FILE}: {name}: expected {kind.__name__}, got {got} ({str(value)[:60]})")
    return settings


def read_checkpoint(folder: Path) -> Checkpoint:
    """
    Raises:
        UserError: a file is missing, damaged or of a format that is not read.
    """
    settings = read_settings(folder)
    if settings.get("quantization_config"):
        method = settings["quantization_config"].get("quant_method", "unknown")
        raise UserError(
            f"{folder}: expected weights in floating point, got quantized ones ({method}); import the original"
        )
    generation = read_json(folder / GENERATION_FILE) if (folder / GENERATION_FILE).is_file() else {}
    paths = weight_files(folder, settings)
    weights: Weights = {}
    dtypes: set[str] = set()
    for path in paths:
        for key, tensor in _read_tensors(path).items():
            if _is_floating(tensor.dtype):
                dtypes.add(str(tensor.dtype))
                tensor = tensor.astype(np.float32)
            weights[key] = tensor
    read = [folder / name for name in (CONFIG_FILE, GENERATION_FILE) if (folder / name).is_file()]
    files = {path.name: sha256(path) for path in (*read, *paths)}
    return Checkpoint(folder, settings, generation, weights, tuple(sorted(dtypes)), files)


def weight_files(folder: Path, settings: Settings) -> list[Path]:
    """The safetensors files of a checkpoint.

    Args:
        settings: of its ``config.json``.

    Raises:
        UserError: there are none, or one of them is missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        weight_map = read_json(folder / INDEX_FILE).get("weight_map", {})
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{folder / INDEX_FILE}: weight_map: expected the file of each tensor, got something else")
        names = sorted(set(weight_map.values()))
        for name in names:
            if not (folder / name).is_file():
                raise UserError(
                    f"{folder}: expected {name}, one of the {len(names)} files of its index, but it is missing"
                )
        if names:
            return [folder / name for name in names]
    others = sorted(path.name for pattern in _OTHER_WEIGHTS for path in folder.glob(pattern))
    if others:
        cls = (settings.get("architectures") or ["AutoModel"])[0]
        raise UserError(
            f"{folder}: expected {WEIGHTS_FILE}, got {others[0]}, a format that can hold code; convert it: "
            f"python -c \"import transformers as t; t.{cls}.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    raise UserError(f"{folder}: expected {WEIGHTS_FILE} or {INDEX_FILE}, but there is neither")


def _read_tensors(path: Path) -> Weights:
    import ml_dtypes  # noqa: F401  (tells numpy of bfloat16)

    try:
        return safetensors.numpy.load_file(path)
    except OSError as error:
        raise UserError(f"{path}: expected a safetensors file, but it cannot be read ({error.strerror})") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected a whole safetensors file of numpy's dtypes ({error}); download it again"
        ) from error


def _is_floating(dtype: np.dtype[Any]) -> bool:
    return np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the file cannot be read, or holds no JSON object.
    """
    values = load_json(path, "a JSON object")
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
