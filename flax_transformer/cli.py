"""The ``flax-transformer`` command. What is heavy is imported where it is needed: ``--help`` answers at once."""

import argparse
import importlib.util
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import Positional

from flax_transformer.config import BatchConfig, GenerationConfig, TrainConfig, load_config
from flax_transformer.errors import UserError
from flax_transformer.flags import CONFIG_FLAGS
from flax_transformer.presets import PRESETS

if TYPE_CHECKING:
    from flax_transformer.data.generation import Constraint
    from flax_transformer.training.loop import Result
    from flax_transformer.training.run import Run

PROGRAM = "flax-transformer"
_SAMPLES = 3  # predictions shown after training
_SAMPLE_WIDTH = 400  # characters of each
AnyRunFlags = TypeVar("AnyRunFlags", bound="RunFlags")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. Where the user can mend what is wrong, that is 2 after one line on stderr."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = _run(name, rest)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped at once; what was saved before is kept", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # who reads the output, head say, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def _run(name: str, rest: Sequence[str]) -> int:
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in COMMANDS:
        raise UserError(f"expected a command, one of {', '.join(COMMANDS)}, got {name!r}")
    command = COMMANDS[name]
    # What these can be told depends on the task or the run, or needs an extra: they read their arguments themselves.
    if command in (train, evaluate, predict, verify, bench, plan):
        return command(rest)
    return tyro.cli(command, prog=f"{PROGRAM} {name}", args=rest)


def train(arguments: Sequence[str]) -> int:
    """Train a model on a task and score it on the test split."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_task_overview())
        return 0
    task, *flags = arguments
    if task not in PRESETS:
        raise UserError(f"expected a task, one of {', '.join(PRESETS)}, got {task!r}")
    config, folder, resume, processes = _parse_train_flags(task, flags)

    from flax_transformer.training import loop
    from flax_transformer.training.sharding import is_first_process, join_processes

    if processes.coordinator:
        join_processes(processes.coordinator, processes.count, processes.index)
    _set_up_jax()
    try:
        result = loop.train(config, folder, resume=resume)
    except loop.Stopped as stopped:
        go_on = f"{PROGRAM} train {task} --run {folder} --resume"
        print(f"{stopped} after step {stopped.step}, which is saved; go on with: {go_on}", file=sys.stderr)
        return 128 + stopped.number
    if is_first_process():
        _print_result(result)
    return 0


@dataclass(frozen=True)
class Processes:
    """Where several processes train together: each host of a slice starts one, with the same command."""

    coordinator: str | None = None
    """HOST:PORT of the first one; or auto, on TPU pods, Slurm, Open MPI and Kubernetes, which needs no more"""
    count: int | None = None
    """how many there are"""
    index: int | None = None
    """which of them this one is, from 0"""


def _parse_train_flags(task: str, flags: Sequence[str]) -> tuple[TrainConfig, Path, bool, Processes]:
    # The preset, or the run to go on with, gives the defaults of all other flags, so it is looked up first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    first.add_argument("--run", type=Path)
    first.add_argument("--resume", nargs="?", const="yes", default="no", choices=["no", "yes", "auto"])
    known, _ = first.parse_known_args(_with_resume_spelled_out(flags))
    presets = PRESETS[task]
    if known.preset not in presets:
        raise UserError(f"--preset: expected one of {', '.join(presets)}, got {known.preset!r}")
    folder = known.run or Path("runs", f"{task}-{known.preset}")
    is_run = (folder / "config.json").is_file()
    if known.resume == "yes" and not is_run:
        raise UserError(f"{folder}: expected a run to go on with, but there is none; start it without --resume")
    resume = is_run and known.resume != "no"
    base = load_config(TrainConfig, folder / "config.json") if resume else presets[known.preset]
    if base.data.task != task:
        raise UserError(f"{folder}: expected a run of the task {task!r}, got one of {base.data.task!r}")

    @dataclass(frozen=True)
    class TrainFlags:
        preset: Annotated[str, tyro.conf.arg(help=f"one of {', '.join(presets)}; the other flags change it")]
        run: Annotated[Path, tyro.conf.arg(help="folder of the run")]
        resume: Annotated[
            Literal["no", "yes", "auto"],
            tyro.conf.arg(help="go on with the run in its folder; alone it means yes; auto starts one where none is"),
        ]
        processes: Processes
        config: Annotated[TrainConfig, tyro.conf.arg(name="")]

    parsed: Any = tyro.cli(
        TrainFlags,
        default=TrainFlags(known.preset, folder, "no", Processes(), base),
        prog=f"{PROGRAM} train {task}",
        description=type(base.data).__doc__,
        args=_with_resume_spelled_out(flags),
        registry=CONFIG_FLAGS,
    )
    return parsed.config.build(), folder, resume, parsed.processes


def _with_resume_spelled_out(flags: Sequence[str]) -> list[str]:
    """``--resume`` alone as ``--resume yes``."""
    spelled = []
    for flag, following in zip(flags, [*flags[1:], ""], strict=True):
        spelled += ["--resume", "yes"] if flag == "--resume" and following not in ("no", "yes", "auto") else [flag]
    return spelled


def _print_result(result: "Result") -> None:
    from flax_transformer.data.tasks import primary_metric
    from flax_transformer.training.report import format_score, format_scores

    for i in range(min(_SAMPLES, len(result.predictions))):
        print()
        example = {
            "input": result.examples.sources[i],
            "expected": _readable(result.examples.targets[i], result.run.classes),
            "predicted": _readable(result.predictions[i], result.run.classes),
        }
        for label, text in example.items():
            line = " ".join(text.split())
            print(f"{label + ':':<11}{line[:_SAMPLE_WIDTH]}{' ...' if len(line) > _SAMPLE_WIDTH else ''}")
    metric = primary_metric(result.run.config.data)
    print(f"\ntest: {format_scores(result.scores)}\nrun folder: {result.run.folder}")
    print(format_score(metric, result.scores[metric]))


def _readable(value: str | int, classes: Sequence[str]) -> str:
    """A text, or the name of a class."""
    return classes[value] if isinstance(value, int) else value


@dataclass(frozen=True)
class RunFlags:
    """What evaluate and predict have in common."""

    run: Positional[Path]
    """folder of the run"""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """hold outputs to the JSON schema of the run's task, so that every one of them parses"""
    schema: Path | None = None
    """a file with a JSON schema to hold outputs to"""
    batch_size: int = BatchConfig.size
    """texts at a time"""
    generation: Annotated[GenerationConfig, tyro.conf.arg(name="")] = field(default_factory=GenerationConfig)


@dataclass(frozen=True)
class EvaluateFlags(RunFlags):
    split: Literal["validation", "test"] = "test"
    """examples to score the run on"""


@dataclass(frozen=True)
class PredictFlags(RunFlags):
    texts: Positional[tuple[str, ...]] = ()
    """what to predict for; without any and without a file, the lines of standard input"""
    file: Path | None = None
    """.csv, .tsv, .jsonl or .parquet, or plain text with one text a line (text formats also as .gz)"""
    column: str | None = None
    """of the file; the run's own if not given"""
    output: Path | None = None
    """file to write instead of standard output, line by line"""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """go on with the output of the same command, which was stopped"""


def evaluate(arguments: Sequence[str]) -> int:
    """Score the best checkpoint of a run."""
    run, flags = _load_run(EvaluateFlags, "evaluate", arguments)

    from flax_transformer.data.tasks import load_splits
    from flax_transformer.training.evaluate import Evaluator
    from flax_transformer.training.report import format_score
    from flax_transformer.training.run import Exported

    if isinstance(run, Exported):
        raise UserError(f"{flags.run}: expected a run, got an export, which does not know what it is to be scored on")
    constraint = _constraint(run, flags)
    _set_up_jax()
    config = replace(run.config, batch=replace(run.config.batch, size=flags.batch_size))
    splits = load_splits(config.data, config.seed)
    evaluator = Evaluator(getattr(splits, flags.split), run.tokenizer, config, flags.generation, constraint)
    _, scores = evaluator.evaluate(run.best_model())
    for name, value in scores.items():
        print(format_score(name, value))
    return 0


def predict(arguments: Sequence[str]) -> int:
    """Predict with the best checkpoint of a run, or with an export: a line of JSON for each text."""
    run, flags = _load_run(PredictFlags, "predict", arguments)
    if flags.resume and flags.output is None:
        raise UserError("--resume: expected --output FILE to go on with, got none")
    if not flags.resume:
        _require_absent(flags.output, "go on with --resume, or ")
    if flags.texts and flags.file:
        raise UserError(f"expected texts or --file, got both: {flags.texts[0]!r} and {flags.file}")

    from flax_transformer.predict import Predictor
    from flax_transformer.predict_command import read_standard_input, read_texts, write_predictions

    batch = replace(run.config.batch, size=flags.batch_size)
    if flags.file:
        texts = read_texts(flags.file, flags.column or _text_column(run.config))
    else:
        texts = list(flags.texts) or read_standard_input()
    constraint = _constraint(run, flags)
    _set_up_jax()
    predictor = Predictor(run.best_model(), run.tokenizer, batch, flags.generation, constraint)
    try:
        with _plain_interrupts():
            write_predictions(predictor, texts, run, flags.output, flags.resume)
    except KeyboardInterrupt:
        if flags.output is None:
            raise
        go_on = [*arguments, *([] if flags.resume else ["--resume"])]
        print(f"stopped; go on with: {PROGRAM} predict {shlex.join(go_on)}", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _load_run(kind: type[AnyRunFlags], name: str, arguments: Sequence[str]) -> tuple["Run", AnyRunFlags]:
    """The run comes first and is looked up first, since it gives the defaults of other flags."""
    folder = next(iter(arguments), "--help")
    run, defaults = None, {"run": tyro.MISSING}
    if folder not in ("-h", "--help"):
        from flax_transformer.training.run import load_trained

        if folder.startswith("-"):
            raise UserError(f"expected the folder of a run before all flags, got {folder}")
        run = load_trained(Path(folder))
        batch = run.config.batch
        defaults = {"batch_size": batch.size, "generation": GenerationConfig(batch.max_new_tokens), **defaults}
    parsed: Any = tyro.cli(
        kind,
        default=kind(**defaults),
        prog=f"{PROGRAM} {name}",
        description=_first_line(COMMANDS[name]),
        args=arguments or ["--help"],
        registry=CONFIG_FLAGS,
    )
    assert run is not None, "--help has ended the program"
    flags = replace(parsed, generation=parsed.generation.build())
    is_changed = flags.json or flags.schema or flags.generation != defaults["generation"]
    if is_changed and run.config.model.architecture == "classifier":
        raise UserError(f"{folder}: expected no flags of generation, since it is a classifier")
    return run, flags


def _constraint(run: "Run", flags: RunFlags) -> "Constraint | None":
    from flax_transformer.data.constraint import json_constraint, read_schema
    from flax_transformer.data.tasks import json_schema

    if not (flags.json or flags.schema):
        return None
    schema = read_schema(flags.schema) if flags.schema else json_schema(run.config.data)
    if schema is None:
        raise UserError(f"--json: {flags.run} does not know the JSON of its outputs; give it with --schema FILE")
    return json_constraint(schema, run.tokenizer)


def _text_column(config: TrainConfig) -> str:
    """Where the task has no column of its own, its texts are called "text"."""
    return getattr(config.data, "text_column", None) or getattr(config.data, "source_column", "text")


def export(run: Positional[Path], directory: Positional[Path]) -> int:
    """Write a run's best checkpoint in PyTorch's names and layouts, with config, tokenizer and the names of classes.

    Args:
        run: folder of the run.
        directory: where to; must not exist, or be empty.
    """
    from flax_transformer.training.run import Run, save_classes
    from flax_transformer.weights import TOKENIZER_FILE, save_export

    if not directory.is_dir() or any(directory.iterdir()):
        _require_absent(directory)
    loaded = Run.load(run)
    _set_up_jax()
    save_export(directory, loaded.best_model())
    loaded.tokenizer.save(directory / TOKENIZER_FILE)
    if loaded.classes:
        save_classes(directory, loaded.classes)
    print(f"wrote {', '.join(sorted(path.name for path in directory.iterdir()))} to {directory}")
    return 0


def verify(arguments: Sequence[str]) -> int:
    """Prove the PyTorch model of a run, an export or a preset equal to its JAX twin."""
    if importlib.util.find_spec("torch") is None:
        raise UserError("verify needs PyTorch, which is an extra: pip install 'flax-transformer[torch]'")
    from parity.verify import verify as command

    _set_up_jax()
    return tyro.cli(command, prog=f"{PROGRAM} verify", args=list(arguments))


def bench(arguments: Sequence[str]) -> int:
    """Time training, generation, attention and input, against PyTorch where it is installed."""
    from benchmarks.__main__ import main as command

    return command(arguments or ["--help"], f"{PROGRAM} bench")


def plan(arguments: Sequence[str]) -> int:
    """Compile a training step for a TPU slice, without a TPU: the memory it takes, and how fast it can be at best."""
    from flax_transformer.plan_command import plan as command

    return command(arguments, f"{PROGRAM} plan")


@contextmanager
def _plain_interrupts() -> Iterator[None]:
    """Let Ctrl-C end as KeyboardInterrupt also where it comes within jaxlib, which makes an error of its own of it."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:  # ignored, or somebody else's
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception:
        if came:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


def _require_absent(path: Path | None, instead: str = "") -> None:
    if path is not None and path.exists():
        raise UserError(f"{path}: expected a name that is not taken, but it exists; {instead}name another")


def _set_up_jax() -> None:
    """Keep compiled programs in the user's cache folder, freed memory in the process, and orbax's notes to itself."""
    import jax

    from flax_transformer.allocator import keep_freed_memory

    keep_freed_memory()
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / PROGRAM / "jax"))
    logging.getLogger("absl").setLevel(logging.ERROR)


# The commands by name. Each returns its exit code.
COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "verify": verify,
    "bench": bench,
    "plan": plan,
}


def _overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "commands (each explains itself with --help):"]
    return "\n".join(lines + _table((name, _first_line(command)) for name, command in COMMANDS.items()))


def _task_overview() -> str:
    lines = [f"usage: {PROGRAM} train TASK [--preset NAME] [--run DIR] [--resume] [FLAGS]", "", train.__doc__ or "", ""]
    tasks = _table(
        (task, f"{_first_line(type(presets['default'].data))} Presets: {', '.join(presets)}.")
        for task, presets in PRESETS.items()
    )
    return "\n".join([*lines, "tasks (TASK --help explains every flag):", *tasks])


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<16}{text}" for name, text in rows]


if __name__ == "__main__":
    sys.exit(main())
