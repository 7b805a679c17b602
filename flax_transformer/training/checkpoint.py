"""The states of a run that are kept: the newest to go on from, and the best to use. Written by orbax, no pickle."""

import itertools
import json
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jaxtyping import Array, UInt32
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from flax_transformer.config import TrainConfig, from_dict, to_dict
from flax_transformer.distributed.processes import in_any_process, is_first_process, to_host, wait_for_all
from flax_transformer.errors import UserError
from flax_transformer.legacy import current_fields, is_of_old_run
from flax_transformer.training.state import TrainState

_KEPT = 2  # newest checkpoints: one to go on from, and one in case that the other is damaged
_DAMAGED = ".damaged"
_UNREADABLE = "expected the scores of a checkpoint, but they cannot be read"
# Where the files stand that a run learned from, and how they are written.
_MOVED = {"data.path", "data.validation_path", "data.test_path", "data.delimiter", "data.encoding"}


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read, or that holds other bits than were saved."""


@jax.jit
def fingerprint(tree: Any) -> UInt32[Array, ""]:
    """A number that changes with any single bit of the arrays: the sum of their words, each mixed with its position.

    Sums of integers do not depend on their order, so it is the same on every mesh.
    """
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        total = total * jnp.uint32(0x01000193) + _leaf_fingerprint(leaf)
    return total


def _leaf_fingerprint(array: Array) -> UInt32[Array, ""]:
    width = array.dtype.itemsize
    words = jax.lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16}.get(width, jnp.uint32)).astype(jnp.uint32)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    # Both steps are one-to-one in the word (Weyl sequence and mixer of MurmurHash3), so no changed word goes unseen.
    mixed = words ^ (position * jnp.uint32(0x9E3779B9))
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    return jnp.sum(mixed ^ (mixed >> 13), dtype=jnp.uint32)


def set_aside_unscored(folder: Path, say: Callable[[str], None]) -> None:
    """Set those checkpoints aside whose scores cannot be read: orbax reads all of them before anything else.

    Args:
        say: is told of each of them.
    """
    for scores in _damaged_scores(folder):
        say(f"{scores}: {_UNREADABLE}; the checkpoint is set aside")
        _set_aside(scores.parents[1])


def _damaged_scores(folder: Path) -> list[Path]:
    files = [folder / str(step) / "metrics" / "metrics" for step in _steps_on_disk(folder)]
    return [file for file in files if file.parent.exists() and not _holds_scores(file)]


def _holds_scores(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_bytes()), dict)
    except (OSError, ValueError):
        return False


def _set_aside(path: Path) -> None:
    wait_for_all(f"damaged {path.name}")  # no process still reads it
    if is_first_process():
        path.rename(_free_name(path.with_name(path.name + _DAMAGED)))
    wait_for_all(f"set aside {path.name}")


def _steps_on_disk(folder: Path) -> list[int]:
    """Complete checkpoints, the newest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


class Checkpoints:
    """A folder with one checkpoint per saved step.

    A save returns as soon as the arrays are copied to the host and is written in the background, under another name
    until it is complete; leaving the context waits for it. Beside its arrays each checkpoint holds the config of its
    run and its step, and is read for no others, and a fingerprint of the arrays, by which damage is told. Kept are the
    two newest and the best.

    Args:
        folder: made if absent.
        config: of the run, with the vocabulary of its tokenizer filled in.
        metric: the score by which the best checkpoint is told, higher being better.

    Raises:
        UserError: here, in :meth:`save` and on leaving: the folder cannot be written. What was saved before is kept.
        DamagedCheckpointError: the scores of a checkpoint cannot be read.
    """

    def __init__(self, folder: Path, config: TrainConfig, metric: str) -> None:
        self._folder, self._config, self._metric = folder.absolute(), to_dict(config), metric
        if self._folder.exists() and not self._folder.is_dir():
            raise UserError(f"{self._folder}: expected a folder of checkpoints, got a file; move it away")
        if damaged := _damaged_scores(self._folder):
            raise DamagedCheckpointError(f"{damaged[0]}: {_UNREADABLE}; go on with --resume, which sets it aside")
        best = BestN(get_metric_fn=self._value, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=self._value, preservation_policy=AnyPreservationPolicy([LatestN(_KEPT), best])
        )
        with self._writing():
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        # Reads without waiting for the other processes, whose reading may have failed.
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone))
        self._reader = ocp.Checkpointer(handler, multiprocessing_options=alone)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._reader.close()
            with self._writing():
                self._manager.close()
        except UserError:
            if kind is None:  # otherwise what went wrong first is what is told
                raise

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

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what it means when orbax cannot write."""
        try:
            yield
        except Exception as error:  # tensorstore's and orbax's own have no common class
            reason = textwrap.shorten(str(error), 200)
            kept = _steps_on_disk(self._folder)
            remains = f"the last good checkpoint is of step {kept[0]}" if kept else "there is no checkpoint yet"
            raise UserError(
                f"{self._folder}: expected to write a checkpoint, but could not ({reason}); {remains}; "
                "make room or mend the folder, then go on with --resume"
            ) from error

    def save(self, step: int, state: TrainState, scores: Mapping[str, float | str] | None = None) -> None:
        """Keep ``state``. A checkpoint of the same step is replaced where this one brings scores."""
        with self._writing():
            self._save(step, state, scores)

    def _save(self, step: int, state: TrainState, scores: Mapping[str, float | str] | None) -> None:
        if step in self._manager.all_steps():
            if scores is None:
                return
            self._manager.wait_until_finished()
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.weights),
                training=ocp.args.StandardSave({**_only_to_train(state), "step": state.step}),
                fingerprints=ocp.args.StandardSave(
                    {"params": fingerprint(state.weights), "opt_state": fingerprint(_only_to_train(state))}
                ),
            ),
            metrics=None if scores is None else {k: v for k, v in scores.items() if not isinstance(v, str)},
            custom_metadata={"config": self._config, "step": step},
        )

    def restore_newest(self, like: TrainState, say: Callable[[str], None]) -> tuple[int, TrainState | None]:
        """The newest state that is whole, and its step; (0, None) where there is none. Damaged ones are set aside.

        Args:
            say: is told of each that is damaged.

        Raises:
            UserError: the newest is of another config; or all are damaged.
        """
        damaged = None
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return step, self.restore(step, like)
            except DamagedCheckpointError as error:
                damaged = error
                say(f"{error}; it is set aside, and the one before it used")
                _set_aside(self._folder / str(step))
                self._manager.reload()
        if damaged is not None:
            raise UserError(
                f"{self._folder}: expected a whole checkpoint, but all are damaged; start anew"
            ) from damaged
        return 0, None

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The whole state of a step; ``like`` gives its shapes and, where they have any, their shardings.

        Raises:
            UserError: the checkpoint is of another config.
            DamagedCheckpointError: it cannot be read, or holds other bits than were saved.
        """
        items = self._read(step, params=like.weights, training={**_only_to_train(like), "step": like.step})
        averaged = like.average is not None
        params, average = (items.training["params"], items.params) if averaged else (items.params, None)
        opt_state, loss_scale = items.training["opt_state"], items.training.get("loss_scale")
        state = TrainState(params, opt_state, items.training["step"], average, loss_scale)
        self._check(step, items, params=state.weights, opt_state=_only_to_train(state))
        return state

    def restore_params(self, step: int, like: nnx.State) -> nnx.State:
        """The parameters of a step alone. Raises as :meth:`restore` does."""
        items = self._read(step, params=like)
        self._check(step, items, params=items.params)
        return items.params

    def _has_fingerprints(self, step: int) -> bool:
        return (self._folder / str(step) / "fingerprints").is_dir()

    def _check(self, step: int, items: Any, **restored: Any) -> None:
        if "fingerprints" not in items:  # of version 0.1.0
            return
        saved, found = to_host((dict(items.fingerprints), {name: fingerprint(tree) for name, tree in restored.items()}))
        different = [name for name in found if found[name] != saved[name]]
        if different:
            raise DamagedCheckpointError(
                f"{self._folder / str(step)}: expected the {' and '.join(different)} that were saved, but bits changed"
            )

    def _read(self, step: int, **likes: Any) -> Any:
        """Items of a checkpoint. It is damaged for all processes where one of them cannot read its part."""
        path = self._folder / str(step)
        items, damage = None, None
        try:
            items = self._read_own_part(step, path, likes)
        except UserError:
            raise
        except Exception as error:  # damage comes as any class, Exception itself among them
            damage = error
        if in_any_process(damage is not None):
            reason = "in another process" if damage is None else textwrap.shorten(str(damage), 200)
            raise DamagedCheckpointError(f"{path}: expected a checkpoint, but it cannot be read ({reason})") from damage
        return items

    def _read_own_part(self, step: int, path: Path, likes: dict[str, Any]) -> Any:
        metadata = self._manager.metadata(step).custom_metadata
        if not metadata:
            raise ValueError("its metadata is damaged")
        if is_of_old_run(metadata["config"]):
            raise UserError(
                f"{path}: expected a checkpoint of this version, got one of 0.1.0; export the run with version 0.1.0 "
                "(flax-transformer export), whose exports are read"
            )
        # Read as a config, so that a field that came later has its default.
        found = to_dict(from_dict(TrainConfig, current_fields(metadata["config"]), str(path)))
        check_same_config(found, self._config, path)
        if metadata.get("step", step) != step:
            raise ValueError(f"it is of step {metadata['step']}")
        if "step" in metadata or self._has_fingerprints(step):
            word = jax.ShapeDtypeStruct((), jnp.uint32, sharding=_whole_like(likes["params"]))
            likes = {**likes, "fingerprints": {"params": word, "opt_state": word}}
        arguments = {name: ocp.args.StandardRestore(jax.tree.map(_target, like)) for name, like in likes.items()}
        return self._reader.restore(path, args=ocp.args.Composite(**arguments))

    def _value(self, scores: Mapping[str, float]) -> float:
        return scores[self._metric]


def _only_to_train(state: TrainState) -> dict[str, Any]:
    """What going on takes beside the weights that are exported: where these are an average, also the parameters."""
    others = {} if state.average is None else {"params": state.params}
    others |= {} if state.loss_scale is None else {"loss_scale": state.loss_scale}
    return {"opt_state": state.opt_state, **others}


def _free_name(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3``, ... that is not taken: a step may be damaged again."""
    names = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return path if not os.path.lexists(path) else next(name for name in names if not os.path.lexists(name))


def _target(like: Any) -> jax.ShapeDtypeStruct:
    """Where to restore an array to: where its like is, or to the first device."""
    here = like.sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=here)


def _whole_like(tree: Any) -> Sharding | None:
    """The sharding of an array that is whole on each device that the tree lies on."""
    sharding = jax.tree.leaves(tree)[0].sharding
    return NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else sharding


def check_same_config(found: Mapping[str, Any], expected: Mapping[str, Any], where: Path) -> None:
    """Raises :class:`UserError`, which names the keys that differ, where two configs (as dicts) are not the same.

    The mesh may differ: where the arrays lie is no part of what is trained. So may the end of the training: it may come
    later than it did, and after more or fewer evaluations without a better score. Files may have moved: whether they
    hold the same examples is seen in the record of the data.
    """
    found, expected = _flatten(found), _flatten(expected)
    different = [
        f"{key} is {found.get(key)!r} there and {expected.get(key)!r} here"
        for key in sorted(found.keys() | expected.keys())
        if found.get(key) != expected.get(key) and not _may_change(key, found.get(key), expected.get(key))
    ]
    if different:
        raise UserError(f"{where}: expected a checkpoint of this config, but " + ", ".join(different))


def _may_change(key: str, old: Any, new: Any) -> bool:
    return key.startswith("mesh.") or key in _MOVED or key == "patience" or (key == "epochs" and old < new)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
