"""What ``flax-transformer predict`` writes: a line of JSON for each text, as soon as its prediction is made."""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flax_transformer.cli.texts import Text
from flax_transformer.decoding.predictor import Prediction
from flax_transformer.errors import UserError
from flax_transformer.outputs import write_whole

_ESCAPED = re.compile("[\u0085\u2028\u2029\ud800-\udfff]")


@dataclass
class Output:
    """A file of predictions, and beside it a note of what they follow from.

    Only where that is the same can a stopped command be gone on with: otherwise the file would hold the predictions of
    two models, or of one model with two settings.

    Args:
        path: None for standard output.
        made_by: plain JSON values of all that decides what is written.
    """

    path: Path | None
    made_by: Mapping[str, Any]

    @property
    def note(self) -> Path:
        assert self.path is not None
        return self.path.with_name(f"{self.path.name}.meta.json")

    def begin(self) -> None:
        """Write down what the predictions follow from.

        Raises:
            UserError: a file of that name is there, and is something else.
        """
        if self.path is not None:
            if self.note.exists() and "weights" not in self._read_note():
                raise UserError(
                    f"{self.note}: expected a name for a note on {self.path}, but it is taken; name another output"
                )
            write_whole(self.note, json.dumps(self.made_by, ensure_ascii=False, indent=1) + "\n")

    def count_written(self, texts: Sequence[Text]) -> int:
        """How many texts have their lines already; what a stopped command left of a line is cut off.

        Raises:
            UserError: the file is not the output of this command for these texts; nothing in it is changed.
        """
        if self.path is None or not self.path.exists():
            return 0
        content = self.path.read_bytes()
        if content:
            self._check_note()
        end = content.rfind(b"\n") + 1
        lines = content[:end].split(b"\n")[:-1]
        for number, line in enumerate(lines):
            if number >= len(texts) or not line.startswith(_beginning(number, texts[number])):
                raise self._other_text(number)
        rest = content[end:]
        if rest:
            expected = _beginning(len(lines), texts[len(lines)]) if len(lines) < len(texts) else b""
            if not expected or not (expected.startswith(rest) or rest.startswith(expected)):
                raise self._other_text(len(lines))
            with self.path.open("r+b") as file:
                file.truncate(end)
        return len(lines)

    def _read_note(self) -> dict[str, Any]:
        """Empty where there is none that can be read."""
        try:
            return dict(json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return {}

    def _check_note(self) -> None:
        found = self._read_note()
        if not found:
            raise UserError(
                f"{self.path}: expected {self.note.name} beside it, which says what made it, but there is none to be "
                "read; name another output"
            )
        made_by = json.loads(json.dumps(self.made_by))
        different = sorted(name for name in found.keys() | made_by.keys() if found.get(name) != made_by.get(name))
        if different:
            raise UserError(
                f"{self.path}: expected the output of the same command, but another {', '.join(different)} made it; "
                "name another output"
            )

    def _other_text(self, number: int) -> UserError:
        return UserError(
            f"{self.path}, line {number + 1}: expected the prediction for text {number + 1} of the same input; "
            "name another output"
        )


def write_predictions(
    predictions: Iterator[Prediction],
    texts: Sequence[Text],
    output: Output,
    done: int,
    progress: Progress,
    review: Callable[[str, str, Sequence[tuple[bytes, float]]], Mapping[str, Any]] | None = None,
) -> None:
    """A line for each text from number ``done`` on, in order, to the output or standard output.

    Args:
        review: adds to a line what is to be trusted of the values that were predicted.
    """
    path = output.path
    with progress, nullcontext(sys.stdout) if path is None else path.open("a", encoding="utf-8") as file:
        for number, prediction in enumerate(predictions, start=done):
            reviewed: dict[str, Any] = {}
            text = texts[number].text
            if review is not None and isinstance(prediction.value, str) and isinstance(text, str):
                reviewed["fields"] = review(text, prediction.value, prediction.pieces)
            _write_line(file, number, texts[number], prediction, reviewed)


def progress_bar(to_terminal: bool) -> Progress:
    """On stderr, where it can be seen."""
    console = Console(stderr=True)
    # Lines that scroll through the same terminal would tear the bar to pieces.
    hidden = not console.is_terminal or (to_terminal and sys.stdout.isatty())
    return Progress(
        TextColumn("texts"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), console=console, disable=hidden
    )


def summary(problems: Sequence[str], cut: Sequence[bool], longest: int) -> str:
    """How many texts have no prediction, and why, and how many were cut; empty if there is nothing to say."""
    parts = []
    reasons = Counter(_kind(problem) for problem in problems if problem)
    if reasons:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        parts.append(f"{reasons.total():,} of {len(problems):,} texts have no prediction ({listed})")
    if any(cut):
        parts.append(f"{sum(cut):,} of {len(problems):,} texts were cut to {longest} tokens")
    return "; ".join(parts)


def _kind(problem: str) -> str:
    """A problem without the figures of its text."""
    return "too long" if " tokens, " in problem else problem.removeprefix("the text ").removeprefix("is ")


def _write_line(file: TextIO, number: int, text: Text, prediction: Prediction, reviewed: Mapping[str, Any]) -> None:
    kept = {name: _plain(value) for name, value in text.kept.items()}
    file.write(_to_json({"row": number + 1, "text": text.text, **kept, **_to_dict(prediction), **reviewed}) + "\n")
    file.flush()


def _beginning(number: int, text: Text) -> bytes:
    """What the line of a text begins with."""
    return _to_json({"row": number + 1, "text": text.text})[:-1].encode()


def _to_json(values: Any) -> str:
    line = json.dumps(values, ensure_ascii=False, default=str)
    # Characters that some readers end a line at, and halves of surrogate pairs, which UTF-8 cannot spell.
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _plain(value: Any) -> Any:
    """A value of a column as JSON can have it: NaN is null, and bytes are text."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case list() | tuple():
            return [_plain(entry) for entry in value]
        case dict():
            return {name: _plain(entry) for name, entry in value.items()}
    return value


def _to_dict(prediction: Prediction) -> dict[str, Any]:
    """Plain JSON values, without what goes without saying."""
    if prediction.error:
        return {"prediction": None, "error": prediction.error}
    if prediction.embedding:
        cut = {"cut": True} if prediction.cut else {}
        return {"embedding": [round(value, 8) for value in prediction.embedding], **cut}
    values: dict[str, Any] = {"prediction": prediction.value, "score": round(prediction.score, 4)}
    if isinstance(prediction.value, tuple):
        values["scores"] = [round(score, 4) for score in prediction.label_scores]
    if not prediction.complete:
        values["complete"] = False
    if prediction.cut:
        values["cut"] = True
    if prediction.alternatives:
        values["alternatives"] = [_to_dict(other) for other in prediction.alternatives]
    return values
