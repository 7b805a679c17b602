"""What ``flax-transformer predict`` reads and writes: texts, and a line of JSON for each as soon as it is made."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flax_transformer.config import BatchConfig
from flax_transformer.data.batches import encode_examples
from flax_transformer.data.examples import Examples
from flax_transformer.data.files import read_lines, read_rows
from flax_transformer.decoding.predictable import Predictable
from flax_transformer.decoding.predictor import Prediction, Predictor
from flax_transformer.errors import UserError


def read_texts(file: Path, column: str) -> list[str]:
    """One column of a table, or the lines of a plain text file that are not blank.

    Raises:
        UserError: it cannot be read, or holds no text, or a row without one.
    """
    if file.name.removesuffix(".gz").endswith((".csv", ".tsv", ".jsonl", ".parquet")):
        return [row.text(0) for row in read_rows(file, [column])]
    return _require_texts(read_lines(file), str(file))


def read_standard_input() -> list[str]:
    """Its lines that are not blank.

    Raises:
        UserError: there are none, or it is not UTF-8.
    """
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


def write_predictions(
    predictor: Predictor, texts: Sequence[str], run: Predictable, batch: BatchConfig, output: Path | None, resume: bool
) -> None:
    """A line for each text, in order, to ``output`` or standard output; a progress bar on stderr where one can be seen.

    Args:
        resume: go on behind the lines that ``output`` holds.

    Raises:
        UserError: a text is longer than the model can generate from; or ``output`` does not hold predictions for these
            texts. In both cases nothing is written.
    """
    examples = Examples.unanswered(texts, run.model_config.architecture)
    sources = encode_examples(examples, run.tokenizer, batch, training=False).sources
    done = _count_written(output, texts) if output is not None and resume and output.exists() else 0
    with _progress(to_terminal=output is None) as progress:
        bar = progress.add_task("", total=len(texts), completed=done)
        opened = nullcontext(sys.stdout) if output is None else output.open("a", encoding="utf-8")
        with opened as file:
            predictions = predictor.predict(sources, done, lambda count: progress.advance(bar, count))
            for text, prediction in zip(texts[done:], predictions, strict=True):
                _write_line(file, {"text": text, **_to_dict(prediction, run.classes)})


def _progress(to_terminal: bool) -> Progress:
    console = Console(stderr=True)
    # Lines that scroll through the same terminal would tear the bar to pieces.
    hidden = not console.is_terminal or (to_terminal and sys.stdout.isatty())
    return Progress(
        TextColumn("texts"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), console=console, disable=hidden
    )


def _write_line(file: TextIO, values: dict[str, Any]) -> None:
    file.write(json.dumps(values, ensure_ascii=False) + "\n")
    file.flush()


def _to_dict(prediction: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    """Plain JSON values, without what goes without saying."""
    value = prediction.value
    values: dict[str, Any] = {
        "prediction": classes[value] if isinstance(value, int) else value,
        "score": round(prediction.score, 4),
    }
    if not prediction.complete:
        values["complete"] = False
    if prediction.alternatives:
        values["alternatives"] = [_to_dict(other, classes) for other in prediction.alternatives]
    return values


def _count_written(path: Path, texts: Sequence[str]) -> int:
    """How many of the texts a stopped run has written predictions for; what it left of a line is cut off.

    Raises:
        UserError: the file holds something else than predictions for these texts, in their order.
    """
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    lines = content[:end].split(b"\n")[:-1]
    for number, line in enumerate(lines):
        try:
            is_next = number < len(texts) and json.loads(line)["text"] == texts[number]
        except (ValueError, TypeError, KeyError):
            is_next = False
        if not is_next:
            raise UserError(
                f"{path}, line {number + 1}: expected the prediction for text {number + 1} of the same input; "
                "name another output"
            )
    with path.open("r+b") as file:
        file.truncate(end)
    return len(lines)
