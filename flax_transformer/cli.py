"""The ``flax-transformer`` command. What is heavy is imported where it is needed: ``--help`` answers at once."""

import argparse
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from flax_transformer.config import TrainConfig, load_config
from flax_transformer.errors import UserError
from flax_transformer.flags import CONFIG_FLAGS
from flax_transformer.presets import PRESETS

if TYPE_CHECKING:
    from flax_transformer.training.loop import Result

PROGRAM = "flax-transformer"
_SAMPLES = 3  # predictions shown after training
_SAMPLE_WIDTH = 400  # characters of each


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
    # What train can be told depends on the task, and verify needs an extra: they read their arguments themselves.
    if command in (train, verify, bench):
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
    config, folder, resume = _parse_train_flags(task, flags)

    from flax_transformer.training import loop

    _set_up_jax()
    try:
        result = loop.train(config, folder, resume=resume)
    except loop.Stopped as stopped:
        go_on = f"{PROGRAM} train {task} --run {folder} --resume"
        print(f"{stopped} after step {stopped.step}, which is saved; go on with: {go_on}", file=sys.stderr)
        return 128 + stopped.number
    _print_result(result)
    return 0


def _parse_train_flags(task: str, flags: Sequence[str]) -> tuple[TrainConfig, Path, bool]:
    # The preset, or the run to go on with, gives the defaults of all other flags, so it is looked up first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    first.add_argument("--run", type=Path)
    first.add_argument("--resume", action="store_true")
    known, _ = first.parse_known_args(flags)
    presets = PRESETS[task]
    if known.preset not in presets:
        raise UserError(f"--preset: expected one of {', '.join(presets)}, got {known.preset!r}")
    folder = known.run or Path("runs", f"{task}-{known.preset}")
    if known.resume and not (folder / "config.json").is_file():
        raise UserError(f"{folder}: expected a run to go on with, but there is none; start it without --resume")
    base = load_config(TrainConfig, folder / "config.json") if known.resume else presets[known.preset]
    if base.data.task != task:
        raise UserError(f"{folder}: expected a run of the task {task!r}, got one of {base.data.task!r}")

    @dataclass(frozen=True)
    class TrainFlags:
        preset: Annotated[str, tyro.conf.arg(help=f"one of {', '.join(presets)}; the other flags change it")]
        run: Annotated[Path, tyro.conf.arg(help="folder of the run")]
        resume: Annotated[bool, tyro.conf.arg(help="go on with the run in its folder"), tyro.conf.FlagCreatePairsOff]
        config: Annotated[TrainConfig, tyro.conf.arg(name="")]

    parsed: Any = tyro.cli(
        TrainFlags,
        default=TrainFlags(known.preset, folder, False, base),
        prog=f"{PROGRAM} train {task}",
        description=type(base.data).__doc__,
        args=flags,
        registry=CONFIG_FLAGS,
    )
    return parsed.config.build(), folder, known.resume


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


def evaluate(run: Positional[Path], split: Literal["validation", "test"] = "test") -> int:
    """Score the best checkpoint of a run.

    Args:
        run: folder of the run.
        split: examples to score it on.
    """
    from flax_transformer.data.tasks import load_splits
    from flax_transformer.training.evaluate import Evaluator
    from flax_transformer.training.report import format_score
    from flax_transformer.training.run import Run

    loaded = Run.load(run)
    _set_up_jax()
    splits = load_splits(loaded.config.data, loaded.config.seed)
    evaluator = Evaluator(getattr(splits, split), loaded.tokenizer, loaded.config)
    _, scores = evaluator.evaluate(loaded.best_model())
    for name, value in scores.items():
        print(format_score(name, value))
    return 0


def predict(
    run: Positional[Path],
    texts: Positional[tuple[str, ...]] = (),
    file: Path | None = None,
    column: str | None = None,
    output: Path | None = None,
) -> int:
    """Predict with the best checkpoint of a run: a JSON object {"text", "prediction"} for each text, one a line.

    Args:
        run: folder of the run.
        texts: what to predict for; without any and without a file, the lines of standard input.
        file: .csv, .tsv, .jsonl or .parquet, or plain text with one text a line (text formats also as .gz).
        column: of the file; the run's own if not given.
        output: file to write instead of standard output; must not exist.
    """
    from flax_transformer.data.batches import encode_examples
    from flax_transformer.data.examples import Examples
    from flax_transformer.training import evaluate as evaluation
    from flax_transformer.training.run import Run

    _require_absent(output)
    loaded = Run.load(run)
    config = loaded.config
    sources = list(texts) or (_read_texts(file, column or _text_column(config)) if file else _read_standard_input())
    encoded = encode_examples(
        Examples.unanswered(sources, config.model.architecture), loaded.tokenizer, config.batch, training=False
    )
    _set_up_jax()
    predictions, _ = evaluation.predict(loaded.best_model(), encoded, loaded.tokenizer, config.batch)
    lines = [
        json.dumps({"text": text, "prediction": _readable(prediction, loaded.classes)}, ensure_ascii=False)
        for text, prediction in zip(sources, predictions, strict=True)
    ]
    if output is None:
        print("\n".join(lines))
    else:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _text_column(config: TrainConfig) -> str:
    """Where the task has no column of its own, its texts are called "text"."""
    return getattr(config.data, "text_column", None) or getattr(config.data, "source_column", "text")


def _read_texts(file: Path, column: str) -> list[str]:
    from flax_transformer.data.files import read_lines, read_rows

    if file.name.removesuffix(".gz").endswith((".csv", ".tsv", ".jsonl", ".parquet")):
        return [row.text(0) for row in read_rows(file, [column])]
    return _require_texts(read_lines(file), str(file))


def _read_standard_input() -> list[str]:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: expected UTF-8, got something else at byte {error.start}") from error
    return _require_texts(text.splitlines(), "standard input")


def _require_texts(lines: list[str], where: str) -> list[str]:
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise UserError(f"{where}: expected at least one line of text, got none")
    return texts


def export(run: Positional[Path], directory: Positional[Path]) -> int:
    """Write config.json, model.safetensors (PyTorch names and layouts) and tokenizer.json of a run's best checkpoint.

    Args:
        run: folder of the run.
        directory: where to; must not exist, or be empty.
    """
    from flax_transformer.training.run import Run
    from flax_transformer.weights import TOKENIZER_FILE, save_export

    if not directory.is_dir() or any(directory.iterdir()):
        _require_absent(directory)
    loaded = Run.load(run)
    _set_up_jax()
    save_export(directory, loaded.best_model())
    loaded.tokenizer.save(directory / TOKENIZER_FILE)
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


def _require_absent(path: Path | None) -> None:
    if path is not None and path.exists():
        raise UserError(f"{path}: expected a name that is not taken, but it exists; name another")


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
