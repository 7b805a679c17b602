"""``flax-transformer predict``: a line of JSON for each text."""

import hashlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import tyro
from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, RunFlags, TextColumns, load_rules, load_run
from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    GenerationConfig,
    Long,
    Pooling,
    PredictionConfig,
    to_dict,
)
from flax_transformer.errors import UserError
from flax_transformer.outputs import check_new_file

if TYPE_CHECKING:
    from flax_transformer.cli.texts import Text
    from flax_transformer.decoding.predictable import Predictable


@dataclass(frozen=True)
class PredictFlags(RunFlags):
    texts: Positional[tuple[str, ...]] = ()
    """what to predict for, two at a time where the run learned from pairs of texts; without any and without a file, the
    lines of standard input"""
    file: Path | None = None
    """.csv, .tsv, .json, .jsonl or .parquet, or plain text with one text a line (text formats also as .gz)"""
    column: TextColumns = ()
    """of the file, with the texts, or two with the texts of pairs; the run's own if not given"""
    keep: tuple[str, ...] = ()
    """columns of the file to carry over to the output"""
    delimiter: str | None = None
    """of a CSV, such as ; or tab; recognized if not given"""
    encoding: str | None = None
    """of a text file, such as cp1252; recognized if not given"""
    long: Long | None = None
    """what becomes of texts that are too long: cut, skip (the error is in their line) or error; the run's own if not
    given, which by default cuts them for classification and skips them for generation"""
    strict: tyro.conf.FlagCreatePairsOff[bool] = False
    """end at once where any text can have no prediction"""
    top: int = 1
    """of classification: classes to name, with their probabilities; of labels, those below their thresholds too"""
    threshold: float | None = None
    """of labels: the probability from which on a text has one; each label's own, chosen in validation, if not given"""
    embed: Pooling | None = None
    """write each text as a vector of length 1 in place of a prediction: what the encoder makes of its tokens, by their
    mean, or of the first one, or the maximum of each component"""
    review: tyro.conf.FlagCreatePairsOff[bool] = False
    """of manifests: each value with its confidence, its place in the text, and flags where it looks wrong"""
    output: Path | None = None
    """file to write instead of standard output, line by line"""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """go on with the output of the same command, which was stopped"""


def predict(arguments: Sequence[str]) -> int:
    """Predict with the best checkpoint of a run, or with an export: a line of JSON for each text."""
    run, flags = load_run(PredictFlags, "predict", predict.__doc__, arguments)
    _check(flags, run)

    from flax_transformer.cli.predictions import Output, progress_bar, summary, write_predictions
    from flax_transformer.data.tasks import TASKS
    from flax_transformer.decoding.predictor import Predictor
    from flax_transformer.runtime import set_up_jax

    limits = run.prediction_config
    texts = _read(flags, limits)
    sources = run.encode([text.text for text in texts], flags.long or limits.long)
    problems = [text.problem or problem for text, problem in zip(texts, sources.problems, strict=True)]
    if (flags.strict or flags.long == "error") and any(problems):
        _refuse(texts, problems)
    sources = replace(sources, problems=problems)
    constraint, copying = load_rules(run, flags)
    set_up_jax()
    model = run.best_model()
    batch = BatchConfig(flags.batch_size)
    predictor = Predictor(
        model,
        run.tokenizer,
        batch,
        flags.generation,
        constraint,
        copying,
        flags.top,
        flags.review,
        flags.embed,
        run.thresholds(flags.threshold),
    )
    output = Output(flags.output, run.fingerprint(model) | _settings(flags) if flags.output else {})
    done = output.count_written(texts) if flags.resume else 0
    if done == 0:
        output.begin()
    try:
        with plain_interrupts():
            progress = progress_bar(to_terminal=flags.output is None)
            left = sum(not problem for problem in problems[done:])
            total = len(sources.sequences.lengths)
            bar = progress.add_task("", total=total, completed=total - left)
            predictions = run.predictions(predictor, sources, done, lambda count: progress.advance(bar, count))
            write_predictions(
                predictions, texts, output, done, progress, TASKS[limits.task].review if flags.review else None
            )
    except KeyboardInterrupt:
        if flags.output is None:
            raise
        print(f"stopped; go on with: {PROGRAM} predict {shlex.join(_with_resume(arguments))}", file=sys.stderr)
        return 128 + signal.SIGINT
    if told := summary(problems, sources.cut, limits.max_source_length):
        print(told, file=sys.stderr)
    return 0


def _with_resume(arguments: Sequence[str]) -> list[str]:
    """The same command, going on; behind ``--`` there are only texts."""
    if "--resume" in arguments:
        return list(arguments)
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], "--resume", *arguments[end:]]


def _check(flags: PredictFlags, run: "Predictable") -> None:
    """Raises :class:`UserError` for flags that do not go together, and outputs that cannot be."""
    if flags.resume and flags.output is None:
        raise UserError("--resume: expected --output FILE to go on with, got none")
    if flags.output is not None and not (flags.resume and flags.output.is_file()):
        check_new_file(flags.output, "go on with --resume, or name another")
    if flags.texts and flags.file:
        raise UserError(f"expected texts or --file, got both: {flags.texts[0]!r} and {flags.file}")
    for name in ("column", "keep", "delimiter"):
        if getattr(flags, name) and not flags.file:
            raise UserError(f"--{name}: expected --file, of which it is said, got none")
    if flags.file and (flags.column or flags.delimiter):
        _require_table(flags.file)
    if flags.top < 1 or (flags.top > 1 and run.model_config.architecture != "classifier"):
        raise UserError(f"--top: expected at least 1, and more than 1 of a classifier alone, got {flags.top}")
    if flags.review:
        _require_review(run)
    if flags.embed and (flags.review or flags.top > 1):
        raise UserError("--embed: expected neither --top nor --review, since nothing is predicted")
    run.thresholds(flags.threshold)
    generates = flags.json or flags.schema or flags.generation != GenerationConfig(run.prediction_config.max_new_tokens)
    if flags.embed and (generates or flags.threshold is not None):
        raise UserError("--embed: expected no --threshold and no flags of generation, since nothing is predicted")
    if flags.batch_size < 1:
        raise UserError(f"--batch-size: expected a whole number of at least 1, got {flags.batch_size}")


def _require_table(file: Path) -> None:
    """Raises :class:`UserError` for plain text, of which flags for columns would have no effect."""
    from flax_transformer.data.files import TABLES, file_kind

    if file_kind(file) == "text":
        raise UserError(f"--column, --delimiter: expected a table with columns, a name in {TABLES}, got {file}")


def _require_review(run: "Predictable") -> None:
    from flax_transformer.data.tasks import TASKS

    task = run.prediction_config.task
    known = [name for name, entry in TASKS.items() if entry.review]
    if task not in known:
        raise UserError(f"--review: expected a model of {', '.join(known)}, got one of {task or 'an unknown task'}")


def _read(flags: PredictFlags, limits: PredictionConfig) -> list["Text"]:
    from flax_transformer.cli.texts import read_arguments, read_file, read_standard_input
    from flax_transformer.data.text_files import Reading

    columns = flags.column or limits.text_column
    if len(columns) > 2:
        raise UserError(f"--column: expected one column of texts, or two of pairs of texts, got {', '.join(columns)}")
    checked = ClassificationData(delimiter=flags.delimiter, encoding=flags.encoding)
    reading = Reading(checked.delimiter, checked.encoding, "--", "--column")
    if flags.file:
        return read_file(flags.file, columns, flags.keep, reading, limits.numbers_as_text)
    if not flags.texts and len(columns) == 2:
        names = " and ".join(columns)
        raise UserError(f"{flags.run}: expected pairs of texts, two arguments each or --file with {names}, got none")
    return read_arguments(flags.texts, columns) if flags.texts else read_standard_input(columns, reading)


def _refuse(texts: Sequence["Text"], problems: Sequence[str]) -> None:
    from flax_transformer.data.examples import texts_of

    found = [(text, problem) for text, problem in zip(texts, problems, strict=True) if problem]
    text, problem = found[0]
    parts = [part for part in texts_of(text.text or "") if part.strip()]
    shown = f" ({parts[0][:40]!r})" if parts else ""
    raise UserError(
        f"{text.where}{shown}: expected a text to predict for, but {problem}; {len(found) - 1:,} more like it; "
        "mend them, or leave out --strict and --long error"
    )


def _settings(flags: PredictFlags) -> dict[str, Any]:
    """Of a call, all that decides what is written."""
    names = (
        "batch_size",
        "column",
        "keep",
        "delimiter",
        "encoding",
        "long",
        "top",
        "threshold",
        "json",
        "copying",
        "review",
        "embed",
    )
    schema = flags.schema and hashlib.sha256(flags.schema.read_bytes()).hexdigest()
    return {**{name: getattr(flags, name) for name in names}, "generation": to_dict(flags.generation), "schema": schema}


@contextmanager
def plain_interrupts() -> Iterator[None]:
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
