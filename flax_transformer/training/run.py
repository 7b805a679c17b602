"""A run folder: config, tokenizer, classes and checkpoints, all that it takes to go on, evaluate and export."""

import json
from dataclasses import dataclass
from pathlib import Path

from flax import nnx

from flax_transformer.config import TrainConfig, load_config, save_config
from flax_transformer.data.tasks import primary_metric
from flax_transformer.data.tokenizer import Tokenizer, load_tokenizer
from flax_transformer.errors import UserError
from flax_transformer.models import Classifier, Seq2Seq, create_model
from flax_transformer.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class Run:
    """``config`` has the vocabulary of ``tokenizer`` filled in; ``classes`` names the class ids, empty for seq2seq."""

    folder: Path
    config: TrainConfig
    tokenizer: Tokenizer
    classes: tuple[str, ...]

    def save(self) -> None:
        """Make the folder. The config comes last: a folder with a config is a whole one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(self.folder / "tokenizer.json")
        classes = json.dumps(self.classes, ensure_ascii=False, indent=2)
        (self.folder / "classes.json").write_text(classes + "\n", encoding="utf-8")
        save_config(self.config, self.folder / "config.json")

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Raises :class:`UserError` where ``folder`` is no run folder."""
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder}: expected a run folder, but there is no config.json in it; train one first")
        config = load_config(TrainConfig, folder / "config.json")
        try:
            classes = tuple(json.loads((folder / "classes.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder / 'classes.json'}: expected a JSON list of class names ({error})") from error
        return cls(folder, config, load_tokenizer(folder / "tokenizer.json"), classes)

    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints", self.config, primary_metric(self.config.data))

    def best_model(self) -> Classifier | Seq2Seq:
        """The model with the weights of the best checkpoint.

        Raises:
            UserError: there is no checkpoint, or it is of another config or damaged.
        """
        with self.checkpoints() as checkpoints:
            step = checkpoints.best_step
            if step is None:
                raise UserError(f"{self.folder}: expected a checkpoint, but there is none; go on with --resume first")
            shapes = nnx.eval_shape(lambda: create_model(self.config.model, self.config.seed))
            graph, params = nnx.split(shapes)
            return nnx.merge(graph, checkpoints.restore_params(step, params))


def require_new(folder: Path) -> None:
    """Raises :class:`UserError` where something already stands at ``folder``, so that no run overwrites another."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder}: the run folder exists; go on with --resume, or name another with --run")
