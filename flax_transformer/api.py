"""Training and loading from Python: what the commands ``train`` and ``predict`` do."""

from pathlib import Path

from flax_transformer.config import TrainConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.exported import Exported
from flax_transformer.runtime import quiet_libraries
from flax_transformer.training import loop
from flax_transformer.training.run import Run, load_trained


def train(config: TrainConfig, folder: str | Path, *, resume: bool = False) -> Run:
    """Train to the end and score the best checkpoint on the test split.

    Args:
        config: data, tokenizer, model, optimizer and the rest of the run. Vocabulary sizes, special ids and the number
            of classes are taken from the data.
        folder: of the run; it must not exist unless ``resume`` is set.
        resume: continue the run in ``folder`` from its newest checkpoint.

    Returns:
        The run: ``run.predict([...])``, ``run.model``, ``run.scores``, ``run.export("DIR")``.

    Raises:
        UserError: bad input; or ``folder`` exists without ``resume``, or holds a run of another config.

    Example:
        >>> import tempfile
        >>> from flax_transformer.config import BatchConfig, ManifestsData, ModelConfig
        >>> config = TrainConfig(
        ...     data=ManifestsData(train_size=8, validation_size=1, test_size=1, max_items=1),
        ...     model=ModelConfig(d_model=8, d_ff=16, num_encoder_layers=1, num_decoder_layers=1),
        ...     batch=BatchConfig(size=4, buckets=1, max_source_length=512),
        ... )
        >>> folder = tempfile.mkdtemp()
        >>> run = train(config, f"{folder}/run")  # doctest: +ELLIPSIS
        manifests: 8 training examples, ...
        >>> sorted(run.scores)[:2]
        ['exact_match', 'field/carrier']
        >>> load(f"{folder}/run").model.config.d_model
        8
    """
    if not isinstance(config, TrainConfig):
        raise UserError(f"config: expected a TrainConfig, got {type(config).__name__}")
    quiet_libraries()
    return loop.train(config, Path(folder), resume=resume).run


def load(folder: str | Path) -> Run | Exported:
    """A trained model: the best checkpoint of a run, or an export.

    Args:
        folder: of a run or of an export.

    Returns:
        ``load("DIR").predict([...])`` predicts for texts, ``load("DIR").model`` is the model itself.

    Raises:
        UserError: ``folder`` is neither, or not whole.
    """
    quiet_libraries()
    return load_trained(folder)
