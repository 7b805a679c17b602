"""A run folder: config, tokenizer, classes and checkpoints, all that it takes to go on, evaluate and export."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from flax import nnx
from jax.sharding import Mesh

from flax_transformer.config import (
    ModelConfig,
    MultilabelData,
    PredictionConfig,
    TrainConfig,
    load_config,
    load_json,
    save_config,
    to_dict,
)
from flax_transformer.data.fingerprint import Record, save_record
from flax_transformer.data.label_scores import thresholds_in
from flax_transformer.data.tasks import TASKS
from flax_transformer.data.tokenizer import Tokenizer
from flax_transformer.decoding.predictable import (
    Predictable,
    load_classes,
    load_prediction_config,
    load_tokenizer_of,
    save_prediction_files,
)
from flax_transformer.distributed.memory import require_memory
from flax_transformer.distributed.sharding import on_mesh
from flax_transformer.errors import UserError
from flax_transformer.formats import require_own_format
from flax_transformer.interop.export import CONFIG_FILE, WEIGHTS_FILE, save_export
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.source import keep_source
from flax_transformer.nn.kernels.scan import stack_layers, unstack_layers
from flax_transformer.nn.models import Model, create_model
from flax_transformer.outputs import check_new_folder, whole_folder, write_whole
from flax_transformer.runtime import require_precision
from flax_transformer.training.checkpoint import Checkpoints

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run(Predictable):
    """``config`` has the vocabulary of ``tokenizer`` filled in; ``classes`` names the class ids, empty for seq2seq."""

    folder: Path
    config: TrainConfig
    tokenizer: Tokenizer
    classes: tuple[str, ...]

    def save(self, record: Record) -> None:
        """Make the folder, which is there only once it is whole: a run that is killed here leaves none behind.

        Args:
            record: of the run's data, see :func:`flax_transformer.data.fingerprint.fingerprint`.

        Raises:
            UserError: something is there already, or it cannot be written.
        """
        with whole_folder(self.folder) as folder:
            # Thresholds follow from evaluations: each checkpoint has its own.
            limits = replace(self.prediction_config, thresholds=())
            save_prediction_files(folder, self.tokenizer, self.classes, limits)
            save_record(record, folder)
            if self.config.pretrained:
                keep_source(Path(self.config.pretrained), folder)
            save_config(self.config, folder / CONFIG_FILE)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training this run; the lock goes with the process, however that ends.

        Raises:
            UserError: one is training it.
        """
        try:
            with FileLock(self.folder / ".lock", blocking=False):
                yield
        except Timeout as error:
            raise UserError(
                f"{self.folder}: expected nobody else to train this run, but another process does; wait until it ends, "
                "or stop it"
            ) from error

    def save_config(self) -> None:
        """Write the config anew, as of a run that goes on for longer."""
        write_whole(self.folder / CONFIG_FILE, json.dumps(to_dict(self.config), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """
        Raises:
            UserError: ``folder`` is no whole run folder.
        """
        folder = Path(folder)
        if not (folder / CONFIG_FILE).is_file():
            raise UserError(f"{folder}: expected a run folder, but there is no config.json in it; train one first")
        require_own_format(folder)
        if (folder / WEIGHTS_FILE).is_file():
            raise UserError(f"{folder}: expected a run, got an export, which knows nothing of its training")
        config = load_config(TrainConfig, folder / CONFIG_FILE)
        limits = load_prediction_config(folder)
        tokenizer = load_tokenizer_of(folder, config.model, limits)
        return cls(folder, config, tokenizer, load_classes(folder, config.model, limits))

    @property
    def model_config(self) -> ModelConfig:
        return self.config.model

    @property
    def train_config(self) -> TrainConfig:
        return self.config

    @property
    def prediction_config(self) -> PredictionConfig:
        batch, data = self.config.batch, self.config.data
        # Where the task has no column of its own, its texts are called "text".
        columns: Any = getattr(data, "text_column", None) or getattr(data, "source_column", "text")
        return PredictionConfig(
            batch.max_source_length,
            batch.max_new_tokens,
            batch.size,
            batch.long,
            data.task,
            columns,
            getattr(data, "numbers_as_text", False),
            thresholds=self._thresholds() if isinstance(data, MultilabelData) else (),
        )

    def _thresholds(self) -> tuple[float, ...]:
        """Those by which the best checkpoint told the labels of the validation split best."""
        scores: dict[str, float] | None = None
        if (self.folder / CHECKPOINTS).is_dir():
            with self.checkpoints() as checkpoints:
                step = checkpoints.best_step
                scores = None if step is None else checkpoints.scores(step)
        return thresholds_in(scores or {}, self.classes)

    @property
    def scores(self) -> dict[str, float | str]:
        """Of the best checkpoint on the test split, as training wrote them down at its end.

        Raises:
            UserError: the run has not ended.
        """
        path = self.folder / "results.json"
        results = load_json(path, "the scores of a run that has ended; resume it first") if path.exists() else None
        if not isinstance(results, dict) or "test" not in results:
            raise UserError(f"{path}: expected the scores of a run that has ended; resume it first")
        return results["test"]

    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / CHECKPOINTS, self.config, TASKS[self.config.data.task].metric)

    def best_model(self, mesh: Mesh | None = None) -> Model:
        """The model with the weights of the best checkpoint, on the devices of ``mesh`` or on one.

        Raises:
            UserError: there is no checkpoint, or it is of another config or damaged.
        """
        require_precision(self.config.model)
        require_memory(self.config.model)
        if not (self.folder / CHECKPOINTS).exists():
            raise UserError(f"{self.folder}: expected a checkpoint, but there is none; go on with --resume first")
        with self.checkpoints() as checkpoints:
            step = checkpoints.best_step
            if step is None:
                raise UserError(f"{self.folder}: expected a checkpoint, but there is none; go on with --resume first")
            shapes = nnx.eval_shape(lambda: stack_layers(create_model(self.config.model, self.config.seed)))
            graph, params = nnx.split(shapes)
            params = params if mesh is None else on_mesh(params, mesh)
            return unstack_layers(nnx.merge(graph, checkpoints.restore_params(step, params)))

    def export(self, directory: str | Path) -> Exported:
        """Write the best checkpoint as PyTorch reads it, with all that it takes to predict what the run predicts.

        Args:
            directory: must not exist, or be empty.

        Raises:
            UserError: it is taken, or cannot be written; or the run has no whole checkpoint.
        """
        check_new_folder(Path(directory))  # before the work
        limits = self.prediction_config
        save_export(directory, self.best_model(), self.tokenizer, self.classes, limits, origin=self.folder)
        return Exported.load(directory)


def load_trained(folder: str | Path) -> Run | Exported:
    """A run or an export, whichever ``folder`` is.

    Raises:
        UserError: it is neither, or not whole.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: expected the folder of a run or of an export, but there is none")
    return Exported.load(folder) if (folder / WEIGHTS_FILE).is_file() else Run.load(folder)
