"""``flax-transformer predict``: a line of JSON for each text."""

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import tyro
from tyro.conf import Positional

from flax_transformer.cli.common import PROGRAM, RunFlags, load_constraint, load_run, require_absent
from flax_transformer.config import BatchConfig
from flax_transformer.errors import UserError


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


def predict(arguments: Sequence[str]) -> int:
    """Predict with the best checkpoint of a run, or with an export: a line of JSON for each text."""
    run, flags = load_run(PredictFlags, "predict", predict.__doc__, arguments)
    if flags.resume and flags.output is None:
        raise UserError("--resume: expected --output FILE to go on with, got none")
    if not flags.resume:
        require_absent(flags.output, "go on with --resume, or ")
    if flags.texts and flags.file:
        raise UserError(f"expected texts or --file, got both: {flags.texts[0]!r} and {flags.file}")

    from flax_transformer.cli.predictions import read_standard_input, read_texts, write_predictions
    from flax_transformer.decoding.predictor import Predictor
    from flax_transformer.runtime import set_up_jax

    batch = BatchConfig(flags.batch_size, run.prediction_config.max_source_length)
    if flags.file:
        texts = read_texts(flags.file, flags.column or run.prediction_config.text_column)
    else:
        texts = list(flags.texts) or read_standard_input()
    constraint = load_constraint(run, flags)
    set_up_jax()
    predictor = Predictor(run.best_model(), run.tokenizer, batch, flags.generation, constraint)
    try:
        with plain_interrupts():
            write_predictions(predictor, texts, run, batch, flags.output, flags.resume)
    except KeyboardInterrupt:
        if flags.output is None:
            raise
        go_on = [*arguments, *([] if flags.resume else ["--resume"])]
        print(f"stopped; go on with: {PROGRAM} predict {shlex.join(go_on)}", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


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
