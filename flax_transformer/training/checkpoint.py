"""The states of a run that are kept: the newest to go on from, and the best to use. Written by orbax, no pickle."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from flax_transformer.config import TrainConfig, to_dict
from flax_transformer.errors import UserError
from flax_transformer.training.step import TrainState


class Checkpoints:
    """A folder with one checkpoint per saved step.

    A save returns as soon as the arrays are copied to the host and is written in the background, under another name
    until it is complete; leaving the context waits for it. Beside its arrays each checkpoint holds the config of its
    run, and no other config reads it.

    Args:
        folder: made if absent.
        config: of the run, with the vocabulary of its tokenizer filled in.
        metric: the score by which the best checkpoint is told, higher being better.
    """

    def __init__(self, folder: Path, config: TrainConfig, metric: str) -> None:
        self._folder, self._config, self._metric = folder.absolute(), to_dict(config), metric
        best = BestN(get_metric_fn=self._value, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=self._value, preservation_policy=AnyPreservationPolicy([LatestN(1), best])
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    @property
    def newest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step with the highest score; the newest one where none was evaluated."""
        best = self._manager.best_step()
        return self.newest_step if best is None else best

    def scores(self, step: int) -> dict[str, float] | None:
        """The validation scores saved with a step, if it was evaluated."""
        return self._manager.metrics(step) if step in self._manager.all_steps() else None

    def save(self, step: int, state: TrainState, scores: Mapping[str, float | str] | None = None) -> None:
        """Keep ``state``. A checkpoint of the same step is replaced where this one brings scores."""
        if step in self._manager.all_steps():
            if scores is None:
                return
            self._manager.wait_until_finished()
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                training=ocp.args.StandardSave({"opt_state": state.opt_state, "step": state.step}),
            ),
            metrics=None if scores is None else {k: v for k, v in scores.items() if not isinstance(v, str)},
            custom_metadata={"config": self._config},
        )

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The whole state of a step; ``like`` gives its shapes and, where its arrays are real, their devices.

        Raises:
            UserError: the checkpoint is of another config, or is damaged.
        """
        training = {"opt_state": like.opt_state, "step": like.step}
        items = self._read(step, params=_restore(like.params), training=_restore(training))
        return TrainState(items.params, items.training["opt_state"], items.training["step"])

    def restore_params(self, step: int, like: nnx.State) -> nnx.State:
        """The parameters of a step alone. Raises :class:`UserError` as :meth:`restore` does."""
        return self._read(step, params=_restore(like)).params

    def _read(self, step: int, **items: ocp.args.StandardRestore) -> Any:
        path = self._folder / str(step)
        try:
            metadata = self._manager.metadata(step).custom_metadata
            if not metadata:
                raise ValueError("its metadata is damaged")
            check_same_config(metadata["config"], self._config, path)
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except UserError:
            raise
        except (ValueError, KeyError, OSError) as error:
            reason = textwrap.shorten(str(error), 200)
            raise UserError(f"{path}: expected a checkpoint, but it cannot be read ({reason})") from error

    def _value(self, scores: Mapping[str, float]) -> float:
        return scores[self._metric]


def _restore(like: Any) -> ocp.args.StandardRestore:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def target(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or here)

    return ocp.args.StandardRestore(jax.tree.map(target, like))


def check_same_config(found: Mapping[str, Any], expected: Mapping[str, Any], where: Path) -> None:
    """Raises :class:`UserError`, which names the keys that differ, where two configs (as dicts) are not the same."""
    found, expected = _flatten(found), _flatten(expected)
    different = [
        f"{key} is {found.get(key)!r} there and {expected.get(key)!r} here"
        for key in sorted(found.keys() | expected.keys())
        if found.get(key) != expected.get(key)
    ]
    if different:
        raise UserError(f"{where}: expected a checkpoint of this config, but " + ", ".join(different))


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
