"""Find the logits in what a model returns: an array, a tuple, a dict or a dataclass, flattened or not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flax_transformer.doctor.subject import Batch, ExaminationError

_NAMES = ("logits", "lm_logits", "prediction_logits", "prediction_scores", "output", "outputs", "last_hidden_state")


@dataclass(frozen=True)
class Outputs:
    """What a model returned, as arrays of its framework.

    Args:
        logits: (rows, length, vocab), or (rows, classes).
        chosen: the same, as it was returned.
        others: whatever else it returned that holds floats.
        note: for the reader, where several outputs might be meant.
    """

    logits: Any
    chosen: Any
    others: Sequence[Any]
    note: str


def find_logits(output: Any, batch: Batch, sequence_first: bool) -> Outputs:
    """The first output that has the shape of logits.

    Raises:
        ExaminationError: none has.
    """
    arrays = list(_arrays(output))
    usable = [(array, shaped) for array in arrays if (shaped := _as_logits(array, batch, sequence_first)) is not None]
    if usable:
        chosen, logits = usable[0]
        rivals = [shaped for _, shaped in usable[1:]]
        return Outputs(logits, chosen, [array for array in arrays if array is not chosen], _note(logits, rivals))
    shapes = ", ".join(str(tuple(array.shape)) for array in arrays) or type(output).__name__
    rows, length = batch.rows, _length(batch)
    hint = ""
    if arrays and all(array.ndim == 0 for array in arrays):
        hint = "; it returns its loss, so name the part of it that returns logits"
    wanted = f"({rows} rows, {length} tokens, vocab) or ({rows} rows, classes)"
    raise ExaminationError(f"expected logits {wanted}, got {shapes}{hint}: pass forward=")


def one_number(loss: Any) -> float:
    """What a loss function returned, as a number.

    Raises:
        ExaminationError: it is none.
    """
    shape = getattr(loss, "shape", ())
    if len(shape) and tuple(shape) != (1,):
        raise ExaminationError(f"expected loss() to return one number, got an array of shape {tuple(shape)}")
    if loss is None or isinstance(loss, str):
        raise ExaminationError(f"expected loss() to return one number, got {loss!r}")
    return float(loss)


def _note(logits: Any, rivals: Sequence[Any]) -> str:
    def words(array: Any) -> str:
        return f"(rows, length, {array.shape[2]})" if array.ndim == 3 else f"(rows, {array.shape[1]})"

    if not rivals:
        return ""
    return f"taken for the logits: {words(logits)}, and not {', '.join(map(words, rivals))}; pass forward= for another"


def _length(batch: Batch) -> int:
    ids = batch.target if batch.target is not None else batch.source
    return 0 if ids is None else ids.shape[1]


def _arrays(output: Any) -> Iterator[Any]:
    """Arrays of floats, the most promising first."""
    if hasattr(output, "shape") and hasattr(output, "dtype"):
        if "float" in str(output.dtype):
            yield output
    elif isinstance(output, Mapping):
        named = [output[name] for name in _NAMES if name in output]
        rest = [value for key, value in output.items() if key not in _NAMES]
        for value in [*named, *rest]:
            yield from _arrays(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _arrays(value)
    else:
        for name in _NAMES:
            if getattr(output, name, None) is not None:
                yield from _arrays(getattr(output, name))


def _as_logits(array: Any, batch: Batch, sequence_first: bool) -> Any | None:
    rows, length = batch.rows, _length(batch)
    shape = tuple(array.shape)
    if sequence_first and len(shape) == 3 and shape[:2] == (length, rows):
        return array.swapaxes(0, 1)
    if len(shape) == 3 and shape[:2] == (rows, length):
        return array
    if len(shape) == 3 and shape[0] == rows and shape[2] == length and batch.target is not None:
        return array.swapaxes(1, 2)  # (rows, vocab, length), as torch's cross entropy takes it
    if len(shape) == 2 and shape[0] == rows * length and rows * length != rows:
        return array.reshape(rows, length, shape[1])
    if len(shape) == 2 and shape[0] == rows and batch.target is None:
        return array
    if len(shape) == 1 and shape[0] == rows and batch.target is None:
        return array[:, None]
    return None
