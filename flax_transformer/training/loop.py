"""Training from start to end: data -> tokenizer -> steps, evaluations and checkpoints -> the score of the best one."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from flax_transformer.config import TrainConfig, to_dict
from flax_transformer.data.batches import TrainingBatches
from flax_transformer.data.encoding import check_pairs, encode_examples, tell_changed_targets
from flax_transformer.data.examples import Examples, texts_of
from flax_transformer.data.fingerprint import fingerprint, require_same_data, tell_seen
from flax_transformer.data.labels import loss_weights
from flax_transformer.data.packed_batches import training_batches
from flax_transformer.data.tasks import TASKS, load_splits
from flax_transformer.data.tokenizer import Tokenizer, train_tokenizer
from flax_transformer.distributed.memory import require_memory_to_train
from flax_transformer.distributed.processes import is_first_process, to_host, wait_for_all
from flax_transformer.distributed.sharding import (
    bytes_per_device,
    check_batch,
    create_mesh,
    local_rows,
    place_rows,
    undivided,
)
from flax_transformer.errors import UserError
from flax_transformer.nn.models import Model
from flax_transformer.outputs import check_new_folder, write_whole
from flax_transformer.runtime import require_precision
from flax_transformer.training.checkpoint import check_same_config, set_aside_unscored
from flax_transformer.training.evaluate import Evaluator, Predictions, Scores, counts_of, format_counts
from flax_transformer.training.input import prefetch
from flax_transformer.training.patience import Patience
from flax_transformer.training.pretrained import Start, require_model_of, start_from
from flax_transformer.training.report import Diverged, Report, earlier_scores
from flax_transformer.training.run import CHECKPOINTS, Run, load_trained
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import TrainStep


@dataclass(frozen=True)
class Result:
    """What a run has come to: the best checkpoint's scores on the test split, and its predictions there."""

    run: Run
    scores: dict[str, float | str]
    examples: Examples
    predictions: Predictions


class Stopped(Exception):  # noqa: N818, it is no error
    """A signal asked the run to stop. Everything up to ``step`` is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.step = number, 0


def train(config: TrainConfig, folder: str | Path, *, resume: bool = False) -> Result:
    """Train to the end, score the best checkpoint on the test split and write results.json.

    SIGINT and SIGTERM, where this is the main thread, finish the step and save. The same call with ``resume`` then goes
    on, and ends with the very parameters of an uninterrupted run. With more ``epochs`` a run goes on beyond its end,
    with the learning rates that the longer schedule has from there on.

    Args:
        config: vocabulary sizes, special ids and the number of classes of its model are taken from the data.
        folder: of the run, see :class:`flax_transformer.training.run.Run`.
        resume: go on with the run in ``folder`` from its newest checkpoint.

    Raises:
        UserError: bad input; or ``folder`` exists without ``resume``, holds a run of another config or other data, or
            one that another process trains.
        Stopped: a signal came.
    """
    require_precision(config.model)
    folder = Path(folder)
    saved = Run.load(folder) if resume else None
    if saved is None:
        check_new_folder(folder, "go on with --resume, or name another with --run")
    splits = load_splits(config.data, config.seed, saved.classes if saved is not None else ())
    record = fingerprint(splits)
    source = load_trained(config.pretrained) if config.pretrained and saved is None else None
    known = saved or source
    tokenizer = train_tokenizer(config.tokenizer, _texts(splits.train)) if known is None else known.tokenizer
    run = Run(folder, with_vocabulary(config, tokenizer, splits.classes), tokenizer, splits.classes)
    if isinstance(splits.train.sources[0], tuple):
        check_pairs(tokenizer, run.config.model)
    if source is not None:
        require_model_of(source, run.config.model)
        tell_seen(source.folder, splits)
    if saved is not None:
        check_same_config(to_dict(saved.config), to_dict(run.config), folder / "config.json")
        require_same_data(folder, record)
    # All splits are encoded before anything is written, so that bad input leaves nothing behind.
    encoded = encode_examples(splits.train, tokenizer, run.config.batch, training=True, seed=config.seed)
    tell_changed_targets(splits.train, tokenizer)
    validation, test = (
        Evaluator(split, tokenizer, run.config, copying=run.copy_rule, classes=run.classes)
        for split in (splits.validation, splits.test)
    )
    # What cannot run is refused, and every process has looked at the folder, before anything is written.
    mesh = create_mesh(run.config.mesh)
    check_batch(run.config, mesh)
    rows = local_rows(mesh, run.config.batch.size)
    batches = training_batches(encoded, run.config.batch, epochs=run.config.epochs, seed=run.config.seed, rows=rows)
    require_memory_to_train(run.config, len(batches))
    weights = loss_weights(encoded.labels, len(splits.classes)) if run.config.balance_classes else None
    train_step = TrainStep(run.config, len(batches), mesh, weights)
    _require_attention(train_step, batches)
    start = None if source is None else start_from(source, run.config, run.classes, train_step)
    wait_for_all("ready")
    if saved is None and is_first_process():
        run.save(record)
    counts = {"training": counts_of(encoded), "validation": validation.counts, "test": test.counts}
    with run.held() if is_first_process() else nullcontext():
        if saved is not None and saved.config != run.config and is_first_process():
            run.save_config()
        wait_for_all("saved")
        _fit(run, train_step, batches, validation, counts, start)
        return _score_best(run, test, mesh)


def _require_attention(train_step: TrainStep, batches: TrainingBatches) -> None:
    """Raises :class:`UserError` where the attention that was asked for cannot serve some shape of the batches."""
    if train_step.config.model.attention_backend in ("auto", "xla", "blockwise"):  # which serve any
        return
    for batch in batches.fillers():
        jax.eval_shape(train_step, train_step.abstract_state, batch)


def with_vocabulary(config: TrainConfig, tokenizer: Tokenizer, classes: tuple[str, ...]) -> TrainConfig:
    """The config with what its model must know of the tokenizer and the classes."""
    model = replace(
        config.model,
        source_vocab_size=tokenizer.vocab_size,
        target_vocab_size=tokenizer.vocab_size,
        pad_id=tokenizer.pad_id,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        num_classes=len(classes) or config.model.num_classes,
    )
    return replace(config, model=model)


def _texts(examples: Examples) -> list[str]:
    """Source and target share one vocabulary."""
    sources = (text for source in examples.sources for text in texts_of(source))
    return [*sources, *(target for target in examples.targets if isinstance(target, str))]


def _fit(
    run: Run,
    train_step: TrainStep,
    batches: TrainingBatches,
    validation: Evaluator,
    counts: dict[str, dict[str, int]],
    start: Start | None,
) -> None:
    """Take the steps that are left. Between evaluations only the reading of older metrics waits for the device.

    Args:
        start: of a new run, where it starts from trained weights.
    """
    config, mesh = run.config, train_step.mesh
    set_aside_unscored(run.folder / CHECKPOINTS, _warn)
    with run.checkpoints() as checkpoints:
        step, state = checkpoints.restore_newest(train_step.abstract_state, _warn)
        told = f"going on after step {step:,}" if step else ""
        if state is None and config.pretrained:
            # A run that was stopped before its first checkpoint begins anew.
            found = start or start_from(load_trained(config.pretrained), config, run.classes, train_step)
            state, new, left_out = found
            told = f"starting from the weights in {config.pretrained}; new: {', '.join(new) or 'nothing'}"
            told += f"; left out: {', '.join(left_out)}" if left_out else ""
        state = train_step.init() if state is None else state
        patience, metric = Patience(config.patience), TASKS[config.data.task].metric
        for score in earlier_scores(run.folder / "metrics.jsonl", metric, step):
            patience.note(score)
        feed = prefetch(batches, step, lambda rows: place_rows(rows, mesh, config.batch.size))
        report = Report(
            run.folder,
            step=step,
            total_steps=len(batches),
            steps_per_epoch=batches.steps_per_epoch,
            log_every=config.log_every,
            max_skipped=config.max_skipped,
            silent=not is_first_process(),
        )
        with report, _Signals() as signals:
            report.say("\n".join(filter(None, [_description(run, batches, state, mesh, counts), told])))
            try:
                while True:
                    due = _is_evaluation_step(step, batches.steps_per_epoch, config.evaluations_per_epoch)
                    if due and checkpoints.scores(step) is None:
                        report.read_pending()
                        model = train_step.model(state)
                        _, scores = _evaluate(validation, model, mesh, signals.check_between_batches)
                        report.evaluation("validation", scores)
                        patience.note(float(scores[metric]))
                        checkpoints.save(step, state, scores)
                    elif config.checkpoint_every and step and step % config.checkpoint_every == 0:
                        checkpoints.save(step, state)
                    if step == len(batches):
                        break
                    if due and patience.is_over:
                        report.say(f"no better score in {config.patience} evaluations: training ends here")
                        break
                    state, metrics = train_step(state, next(feed))
                    step += 1
                    report.train_step(metrics)
                    signals.check(step)
            except Diverged as diverged:
                raise _diverged(diverged, batches, run.folder) from diverged
            except Stopped as stopped:
                report.read_pending()
                checkpoints.save(step, state)
                stopped.step = step
                raise


def _evaluate(
    evaluator: Evaluator,
    model: Model,
    mesh: Mesh,
    check: Callable[[], None] = lambda: None,
    thresholds: Sequence[float] = (),
) -> tuple[Predictions, Scores]:
    """Evaluate on the mesh; or, where that spans processes, in each of them alike, on a whole copy of the model."""
    if jax.process_count() == 1:
        with jax.set_mesh(mesh):
            return evaluator.evaluate(model, check, thresholds)
    graph, params = nnx.split(model)
    whole = jax.device_put(to_host(params), jax.local_devices()[0])
    return evaluator.evaluate(nnx.merge(graph, whole), check, thresholds)


def _warn(text: str) -> None:
    if is_first_process():
        print(f"warning: {text}", file=sys.stderr)


def _diverged(diverged: Diverged, batches: TrainingBatches, folder: Path) -> UserError:
    """Writes down which examples the skipped batches were made of."""
    path = folder / "skipped.json"
    if is_first_process():
        skipped = [{"step": step, "examples": batches.indices(step).tolist()} for step in diverged.steps]
        path.write_text(json.dumps(skipped) + "\n", encoding="utf-8")
    return UserError(
        f"{diverged}; {path} has the indices of their training examples; "
        "try a lower optimizer.learning_rate, or optimizer.max_grad_norm=1"
    )


def _is_evaluation_step(step: int, steps_per_epoch: int, per_epoch: int) -> bool:
    """Whether another ``1 / per_epoch`` of an epoch ends with this step."""
    return step > 0 and step * per_epoch // steps_per_epoch > (step - 1) * per_epoch // steps_per_epoch


def _description(
    run: Run, batches: TrainingBatches, state: TrainState, mesh: Mesh, counts: dict[str, dict[str, int]]
) -> str:
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    device = mesh.devices.flat[0]
    sizes = f"{len(batches.encoded):,} training examples, {count:,} parameters, {len(batches):,} steps"
    lines = [f"{run.config.data.task}: {sizes} on {mesh.size} x {device.device_kind} ({device.platform})"]
    if mesh.size > 1:
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        held = max(bytes_per_device(state).values())
        sizes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
        lines.append(f"mesh: {sizes}; each device holds {held / 2**20:,.1f} of the state's {whole / 2**20:,.1f} MiB")
    if whole_weights := undivided(state.params, mesh):
        lines.append(f"not cut, since their sizes do not divide: {', '.join(whole_weights)}")
    if run.config.batch.packing:
        lines.append(f"packed rows: {batches.padding:.1%} padding")
    lines += [f"{split}: {format_counts(found, run.config)}" for split, found in counts.items() if found]
    return "\n".join(lines)


def _score_best(run: Run, test: Evaluator, mesh: Mesh) -> Result:
    with run.checkpoints() as checkpoints:
        step = checkpoints.best_step
        validation = None if step is None else checkpoints.scores(step)
    thresholds = run.prediction_config.thresholds
    predictions, scores = _evaluate(test, run.best_model(mesh), mesh, thresholds=thresholds)
    results = {
        "step": step,
        "validation": validation,
        "test": scores,
        **({"test_counts": test.counts} if test.counts else {}),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    text = json.dumps(results, indent=2) + "\n"
    if is_first_process():
        write_whole(run.folder / "results.json", text)
    return Result(run, scores, test.examples, predictions)


class _Signals:
    """Takes note of SIGINT and SIGTERM instead of obeying at once; a second one is obeyed.

    Several processes must stop after the same step. They agree on it by jax's coordination service, which takes note of
    SIGTERM itself; SIGINT ends them at once.
    """

    def __init__(self) -> None:
        self._agrees = jax.process_count() > 1
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and not self._agrees:  # no other thread may set handlers
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
        self.__exit__()

    def check(self, step: int) -> None:
        """Raises :class:`Stopped` where a signal came; to be called after every step, with the steps taken."""
        if self._agrees and multihost_utils.reached_preemption_sync_point(step):
            raise Stopped(signal.SIGTERM)
        self.check_between_batches()

    def check_between_batches(self) -> None:
        """As :meth:`check`, within an evaluation: several processes see it through."""
        if self._received is not None:
            raise Stopped(self._received)
