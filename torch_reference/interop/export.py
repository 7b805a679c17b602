"""Reading and writing an export folder: ``config.json`` and ``model.safetensors``."""

from pathlib import Path

import safetensors
import safetensors.torch

from flax_transformer.config import ModelConfig, load_config, save_config
from flax_transformer.errors import UserError
from flax_transformer.formats import require_own_format
from flax_transformer.legacy import current_weight_name
from torch_reference.nn.models import Model, create_model

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


def save_export(directory: str | Path, model: Model) -> None:
    """Write ``config.json`` and ``model.safetensors``, which both twins load; makes the folder if need be."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_config(model.config, directory / CONFIG_FILE)
    safetensors.torch.save_file(model.state_dict(), directory / WEIGHTS_FILE)


def load_export(directory: str | Path) -> Model:
    """The model of an export, in evaluation mode, whichever twin wrote it.

    Raises:
        UserError: a file is missing or damaged, or config and weights do not belong together.
    """
    directory = Path(directory)
    require_own_format(directory)
    path = directory / WEIGHTS_FILE
    if (directory / CONFIG_FILE).is_file() and not path.is_file():
        raise UserError(f"{directory}: expected an export, but there is no {WEIGHTS_FILE} in it; of a run, export one")
    model = create_model(load_config(ModelConfig, directory / CONFIG_FILE), seed=0)
    try:
        weights = safetensors.torch.load_file(path)
        model.load_state_dict({current_weight_name(name): weight for name, weight in weights.items()}, strict=True)
    except OSError as error:
        raise UserError(f"{path}: expected a safetensors file, but it cannot be read ({error.strerror})") from error
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: expected a whole safetensors file, got a damaged one ({error}); export again"
        ) from error
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit config.json ({' '.join(str(error).split())})") from error
    return model.eval()
