"""A run folder: config, tokenizer, classes and checkpoints, all that it takes to go on, evaluate and export."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flax import nnx
from jax.sharding import Mesh

from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    ModelConfig,
    Seq2SeqData,
    TrainConfig,
    load_config,
    save_config,
)
from flax_transformer.data.fingerprint import Record, save_record
from flax_transformer.data.tasks import primary_metric
from flax_transformer.data.tokenizer import Tokenizer, load_tokenizer
from flax_transformer.distributed.sharding import on_mesh
from flax_transformer.errors import UserError
from flax_transformer.interop.export import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, load_export
from flax_transformer.nn.kernels.scan import stack_layers, unstack_layers
from flax_transformer.nn.models import Classifier, Seq2Seq, create_model
from flax_transformer.training.checkpoint import Checkpoints

CLASSES_FILE = "classes.json"


@dataclass(frozen=True)
class Run:
    """``config`` has the vocabulary of ``tokenizer`` filled in; ``classes`` names the class ids, empty for seq2seq."""

    folder: Path
    config: TrainConfig
    tokenizer: Tokenizer
    classes: tuple[str, ...]

    def save(self, record: Record) -> None:
        """Make the folder, under another name until it is whole: a run that is killed here leaves none behind.

        Args:
            record: of the run's data, see :func:`flax_transformer.data.fingerprint.fingerprint`.
        """
        unfinished = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self.tokenizer.save(unfinished / TOKENIZER_FILE)
        save_classes(unfinished, self.classes)
        save_record(record, unfinished)
        save_config(self.config, unfinished / CONFIG_FILE)
        unfinished.replace(self.folder)

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Raises :class:`UserError` where ``folder`` is no whole run folder."""
        if not (folder / CONFIG_FILE).is_file():
            raise UserError(f"{folder}: expected a run folder, but there is no config.json in it; train one first")
        config = load_config(TrainConfig, folder / CONFIG_FILE)
        return cls(folder, config, load_tokenizer(folder / TOKENIZER_FILE), _load_classes(folder))

    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints", self.config, primary_metric(self.config.data))

    def best_model(self, mesh: Mesh | None = None) -> Classifier | Seq2Seq:
        """The model with the weights of the best checkpoint, on the devices of ``mesh`` or on one.

        Raises:
            UserError: there is no checkpoint, or it is of another config or damaged.
        """
        with self.checkpoints() as checkpoints:
            step = checkpoints.best_step
            if step is None:
                raise UserError(f"{self.folder}: expected a checkpoint, but there is none; go on with --resume first")
            shapes = nnx.eval_shape(lambda: stack_layers(create_model(self.config.model, self.config.seed)))
            graph, params = nnx.split(shapes)
            params = params if mesh is None else on_mesh(params, mesh)
            return unstack_layers(nnx.merge(graph, checkpoints.restore_params(step, params)))


class Exported(Run):
    """An export folder in the place of a run. Of the training it knows nothing, so its lengths are the model's."""

    @classmethod
    def load(cls, folder: Path) -> "Exported":
        """Raises :class:`UserError` where ``folder`` is no whole export."""
        model = load_config(ModelConfig, folder / CONFIG_FILE)
        is_classifier = model.architecture == "classifier"
        config = TrainConfig(
            data=ClassificationData() if is_classifier else Seq2SeqData(),
            model=model,
            batch=BatchConfig(max_source_length=model.max_length, max_target_length=model.max_length),
        )
        classes = _load_classes(folder) if is_classifier else ()
        return cls(folder, config, load_tokenizer(folder / TOKENIZER_FILE), classes)

    def best_model(self, mesh: Mesh | None = None) -> Classifier | Seq2Seq:
        """On one device, whatever the mesh: an export is not what is being trained."""
        return load_export(self.folder)


def load_trained(folder: Path) -> Run:
    """A run or an export, whichever ``folder`` is.

    Raises:
        UserError: it is neither, or not whole.
    """
    return Exported.load(folder) if (folder / WEIGHTS_FILE).is_file() else Run.load(folder)


def save_classes(folder: Path, classes: Sequence[str]) -> None:
    text = json.dumps(classes, ensure_ascii=False, indent=2) + "\n"
    (folder / CLASSES_FILE).write_text(text, encoding="utf-8")


def _load_classes(folder: Path) -> tuple[str, ...]:
    path = folder / CLASSES_FILE
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: expected a JSON list of class names ({error})") from error


def require_new(folder: Path) -> None:
    """Raises :class:`UserError` where something already stands at ``folder``, so that no run overwrites another."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder}: the run folder exists; go on with --resume, or name another with --run")
