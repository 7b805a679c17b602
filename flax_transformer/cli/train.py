"""``flax-transformer train``: train a model on a task and score it on the test split."""

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from flax_transformer.cli.common import PROGRAM, first_line, parse, table
from flax_transformer.cli.flags import CONFIG_FLAGS
from flax_transformer.config import ModelConfig, TrainConfig, load_config
from flax_transformer.errors import UserError
from flax_transformer.presets import PRESETS

if TYPE_CHECKING:
    from flax_transformer.training.loop import Result

_SAMPLES = 3  # predictions shown after training
_SAMPLE_WIDTH = 400  # characters of each
# What a model of masked tokens does not decide for the classifier that starts from it.
_OF_CLASSIFIERS = ("architecture", "pooling", "head_hidden", "head_dropout", "dropout")


def train(arguments: Sequence[str]) -> int:
    """Train a model on a task and score it on the test split."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_task_overview())
        return 0
    task, *flags = arguments
    if task not in PRESETS:
        raise UserError(f"expected a task, one of {', '.join(PRESETS)}, got {task!r}")
    config, folder, resume, processes = parse_train_flags(task, flags)

    from flax_transformer.distributed.processes import is_first_process, join_processes
    from flax_transformer.runtime import set_up_jax
    from flax_transformer.training import loop

    if processes.coordinator_address:
        join_processes(processes.coordinator_address, processes.num_processes, processes.process_id)
    set_up_jax()
    try:
        result = loop.train(config, folder, resume=resume)
    except loop.Stopped as stopped:
        go_on = f"{PROGRAM} train {task} --run {shlex.quote(str(folder))} --resume"
        print(f"{stopped} after step {stopped.step}, which is saved; go on with: {go_on}", file=sys.stderr)
        return 128 + stopped.number
    if is_first_process():
        _print_result(result)
    return 0


@dataclass(frozen=True)
class Processes:
    """Where several processes train together: each host of a slice starts one, with the same command."""

    coordinator_address: str | None = None
    """HOST:PORT of the first one; or auto, on TPU pods, Slurm, Open MPI and Kubernetes, which needs no more"""
    num_processes: int | None = None
    """how many there are"""
    process_id: int | None = None
    """which of them this one is, from 0"""

    def check(self) -> None:
        """Raises :class:`UserError` where the flags do not go together: a process must not train alone by mistake."""
        address, count, number = self.coordinator_address, self.num_processes, self.process_id
        given = [name for name in ("num_processes", "process_id") if getattr(self, name) is not None]
        if address is None:
            if given:
                flag = f"--processes.{given[0].replace('_', '-')}"
                raise UserError(f"{flag}: expected --processes.coordinator-address too, HOST:PORT of the first process")
            return
        if address == "auto":
            if given:
                raise UserError(
                    f"--processes.coordinator-address auto finds {' and '.join(given)} itself; leave it out"
                )
            return
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port[:6]) < 2**16:
            raise UserError(f"--processes.coordinator-address: expected HOST:PORT, or auto, got {address!r}")
        if count is None or number is None or not 0 <= number < count:
            raise UserError(
                "expected --processes.num-processes N and --processes.process-id from 0 to N - 1, "
                f"got {count} and {number}"
            )


def parse_train_flags(task: str, flags: Sequence[str]) -> tuple[TrainConfig, Path, bool, Processes]:
    # The preset, or the run to go on with, gives the defaults of all other flags, so it is looked up first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--preset")
    first.add_argument("--config", type=Path)
    first.add_argument("--pretrained", type=Path)
    first.add_argument("--run", type=Path)
    first.add_argument("--resume", nargs="?", const="yes", default="no", choices=["no", "yes", "auto"])
    try:
        known, _ = first.parse_known_args(_with_resume_spelled_out(flags))
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    presets = PRESETS[task]
    preset = known.preset or ("finetune" if known.pretrained else "default")
    if preset not in presets:
        raise UserError(f"--preset: expected one of {', '.join(presets)}, got {preset!r}")
    folder = known.run or Path("runs", f"{task}-{preset}")
    is_run = (folder / "config.json").is_file()
    if known.resume == "yes" and not is_run:
        raise UserError(f"{folder}: expected a run to go on with, but there is none; start it without --resume")
    resume = is_run and known.resume != "no"
    if resume and known.config:
        raise UserError(f"--config: {folder} is resumed with its own config; expected --config or --resume, got both")
    file = folder / "config.json" if resume else known.config
    base = presets[preset] if file is None else load_config(TrainConfig, file)
    if base.data.task != task:
        raise UserError(f"{file}: expected a config of the task {task!r}, got one of {base.data.task!r}")
    if known.pretrained and not resume:
        base = _with_model_of(known.pretrained, base)
    elif preset == "finetune" and not base.pretrained and not resume:
        raise UserError("--preset finetune: expected --pretrained FOLDER too, of an import, an export or a run")

    @dataclass(frozen=True)
    class TrainFlags:
        preset: Annotated[str, tyro.conf.arg(help=f"one of {', '.join(presets)}; the other flags change it")]
        config_file: Annotated[
            Path | None,
            tyro.conf.arg(name="config", help="config.json of a run, to start a new one with it"),
        ]
        run: Annotated[Path, tyro.conf.arg(help="folder of the run")]
        resume: Annotated[
            Literal["no", "yes", "auto"],
            tyro.conf.arg(help="go on with the run in its folder; alone it means yes; auto starts one where none is"),
        ]
        processes: Processes
        config: Annotated[TrainConfig, tyro.conf.arg(name="")]

    parsed: Any = parse(
        TrainFlags,
        default=TrainFlags(preset, known.config, folder, "no", Processes(), base),
        prog=f"{PROGRAM} train {task}",
        description=type(base.data).__doc__,
        args=_with_resume_spelled_out(flags),
        registry=CONFIG_FLAGS,
    )
    parsed.processes.check()
    config = parsed.config.build()
    _check_effect(config, base)
    return config, folder, resume, parsed.processes


def _check_effect(config: TrainConfig, base: TrainConfig) -> None:
    """Raises :class:`UserError` for a flag that changes the default but nothing in the training."""
    if config.pretrained and config.tokenizer != base.tokenizer:
        raise UserError(f"--tokenizer: expected no flags of it, since {config.pretrained} brings its own tokenizer")
    path = config.tokenizer.path
    if path and config.tokenizer != replace(base.tokenizer, path=path):
        raise UserError(f"--tokenizer: expected no other flags of it, since {path} is used as it is")
    model = config.model
    rates = (model.dropout, model.attention_dropout, model.feed_forward_dropout, model.head_dropout)
    if config.r_drop and not any(rates):
        raise UserError("--r-drop: expected --model.dropout above 0 too, without which both readings are the same")
    if config.frozen_layers and not config.pretrained:
        raise UserError("--frozen-layers: expected --pretrained FOLDER too, since random weights are not worth keeping")


def _with_model_of(folder: Path, config: TrainConfig) -> TrainConfig:
    """The config with the model of a pre-trained one, held to the lengths that it knows."""
    path = folder / "config.json"
    is_run = (folder / "checkpoints").is_dir()
    model = load_config(TrainConfig, path).model if is_run else load_config(ModelConfig, path)
    names = ("remat", "scan_layers", "attention_backend")
    if (model.architecture, config.model.architecture) == ("masked", "classifier"):
        names += _OF_CLASSIFIERS
    chosen = {name: getattr(config.model, name) for name in names}
    longest = {
        name: min(getattr(config.batch, name), model.max_length) for name in ("max_source_length", "max_target_length")
    }
    if chosen.get("architecture", model.architecture) != config.model.architecture:
        raise UserError(
            f"--pretrained {folder}: the task {config.data.task!r} needs a {config.model.architecture}, "
            f"got a {model.architecture} model"
        )
    return replace(
        config, pretrained=str(folder), model=replace(model, **chosen), batch=replace(config.batch, **longest)
    )


def _with_resume_spelled_out(flags: Sequence[str]) -> list[str]:
    """``--resume`` alone as ``--resume yes``."""
    spelled = []
    for flag, following in itertools.zip_longest(flags, flags[1:], fillvalue=""):
        spelled += ["--resume", "yes"] if flag == "--resume" and following not in ("no", "yes", "auto") else [flag]
    return spelled


def _task_overview() -> str:
    lines = [
        f"usage: {PROGRAM} train TASK [--preset NAME | --config FILE] [--run DIR] [--resume] [FLAGS]",
        "",
        train.__doc__ or "",
        "",
    ]
    tasks = table(
        (task, f"{first_line(type(presets['default'].data))} Presets: {', '.join(presets)}.")
        for task, presets in PRESETS.items()
    )
    return "\n".join([*lines, "tasks (TASK --help explains every flag):", *tasks])


def _print_result(result: "Result") -> None:
    from flax_transformer.data.examples import texts_of
    from flax_transformer.data.tasks import TASKS
    from flax_transformer.training.report import format_score, format_scores, format_table

    for i in range(min(_SAMPLES, len(result.predictions))):
        print()
        example = {
            "input": " | ".join(texts_of(result.examples.sources[i])),
            "expected": _readable(result.examples.targets[i], result.run.classes),
            "predicted": _readable(result.predictions[i], result.run.classes),
        }
        for label, text in example.items():
            line = " ".join(text.split())
            print(f"{label + ':':<11}{line[:_SAMPLE_WIDTH]}{' ...' if len(line) > _SAMPLE_WIDTH else ''}")
    metric = TASKS[result.run.config.data.task].metric
    print(f"\ntest: {format_scores(result.scores)}\nrun folder: {result.run.folder}")
    if any(result.examples.groups):
        print("\n".join(format_table(result.scores, result.examples.groups)))
    print(format_score(metric, result.scores[metric]))


def _readable(value: str | int | tuple[bool, ...], classes: Sequence[str]) -> str:
    """A text, or the names of its classes."""
    from flax_transformer.data.labels import ids

    return value if isinstance(value, str) else ", ".join(classes[i] for i in ids(value)) or "(no label)"
