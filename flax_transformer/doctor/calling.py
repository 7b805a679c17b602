"""How to call a model that nobody described: which parameter is which, and what its masks mean.

Names say most of it. What they leave open (is True a real token or a pad?) is settled by trying: of the ways to call
the model that run, the one is taken under which it is healthiest, and the report says which that was.
"""

import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flax_transformer.doctor.subject import Batch, ExaminationError, Kind

Side = Literal["source", "target", "memory"]
_LABELS = ("targets", "labels")
_MAX_CALLS = 48  # ways to call a model that are tried
# What has the shape of the ids, and is transposed with them.
_BY_TOKEN = ("source", "target", "segments, all 1", "segments, all 0", "positions")

# Words that names of token ids are made of: src_token_ids_batch, dec_X, prev_output_tokens.
_SOURCE_WORDS = {"src", "source", "sources", "enc", "encoder"}
_TARGET_WORDS = {"tgt", "trg", "target", "targets", "dec", "decoder", "y", "out", "output", "outputs", "prev"}
_ID_WORDS = {
    "input", "inputs", "x", "in", "idx", "id", "ids", "token", "tokens", "text", "texts", "sequence", "sequences",
    "seq", "sentence", "sentences", "words", "batch", "data", "last",
}  # fmt: skip
_FLAGS = {"train": False, "training": False, "is_training": False, "deterministic": True, "teacher_forcing_ratio": 1.0}


@dataclass(frozen=True)
class Convention:
    """One way to say in numbers which tokens may be attended to."""

    words: str
    make: Callable[[Batch], np.ndarray]


@dataclass(frozen=True, eq=False)
class Call:
    """A way to call the model: for each parameter, what it is given."""

    arguments: Mapping[str, Convention]
    positional: Sequence[str]
    sequence_first: bool = False
    integer_masks: bool = False  # for code that computes 1 - mask

    def build(self, batch: Batch) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        values = {name: convention.make(batch) for name, convention in self.arguments.items()}
        if self.integer_masks:
            values = {name: value + 0 if _is_boolean(value) else value for name, value in values.items()}
        if self.sequence_first:
            values = {
                name: value.T if self.arguments[name].words in _BY_TOKEN else value for name, value in values.items()
            }
        return [values.pop(name) for name in self.positional], values

    @property
    def tells_padding(self) -> bool:
        """Whether some argument says which tokens are real."""
        words = [convention.words for convention in self.arguments.values()]
        return any("real" in w or "padding" in w or "rows, " in w or w == "lengths" for w in words)

    @property
    def has_masks(self) -> bool:
        """Whether some argument is made of booleans."""
        return any("True" in convention.words or "False" in convention.words for convention in self.arguments.values())

    def __str__(self) -> str:
        parts = [f"{name}={convention.words}" for name, convention in self.arguments.items()]
        layout = ", ids as (length, rows)" if self.sequence_first else ""
        numbers = ", masks as 1 and 0" if self.integer_masks else ""
        return f"model({', '.join(parts)}){layout}{numbers}"


def _is_boolean(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == bool


def guess_kind(function: Callable[..., Any]) -> Kind | None:
    """seq2seq where two sequences of ids are taken; otherwise only the outputs can tell."""
    source, target = _id_parameters(_parameters(function))
    return "seq2seq" if source and target else None


def possible_calls(function: Callable[..., Any], kind: Kind) -> Iterator[Call]:
    """Ways to call ``function``, the most likely first.

    Raises:
        ExaminationError: it needs a parameter that the doctor cannot make up.
    """
    parameters = _parameters(function)
    source, target = _id_parameters(parameters)
    ids: dict[str, Convention] = {}
    if kind == "seq2seq":
        names = [name for name, p in parameters.items() if _is_positional(p)]
        source = source or (names[0] if names else None)
        if target is None:
            rest = [name for name in names if name != source]
            target = rest[0] if rest else None
        if source is None or target is None:
            raise ExaminationError("the model takes one sequence: --kind decoder or encoder, or pass forward=")
        ids = {source: Convention("source", _source_ids), target: Convention("target", _target_ids)}
    else:
        only = source or target or next(iter(parameters), None)
        if only is None:
            raise ExaminationError("the model takes no arguments: pass forward=")
        make = _target_ids if kind == "decoder" else _source_ids
        ids = {only: Convention("target" if kind == "decoder" else "source", make)}
    choices: dict[str, list[Convention | None]] = {}
    padding_apart = any("pad" in name.lower() and "mask" in name.lower() for name in parameters)
    for name, parameter in parameters.items():
        if name in ids or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        conventions = _conventions(name, kind, padding_apart)
        if conventions:
            optional: list[Convention | None] = [] if required else [None]
            # Labels are wanted only by models that otherwise return the last logits alone.
            choices[name] = [*optional, *conventions] if name in _LABELS else [*conventions, *optional]
        elif name in _FLAGS:
            choices[name] = [Convention(str(_FLAGS[name]), _constant(_FLAGS[name]))]
        elif required and (made_up := _made_up(name.lower(), kind)):
            choices[name] = list(made_up)
        elif required:
            raise ExaminationError(f"the model needs {name!r}, which the doctor cannot make up: pass forward=")
    for combination in _nearest_first(list(choices.values())):
        given = {**ids, **{n: c for n, c in zip(choices, combination, strict=True) if c is not None}}
        ordered = {name: given[name] for name in parameters if name in given}
        yield Call(ordered, _positional_part(parameters, ordered))


def _nearest_first(choices: list[list[Convention | None]]) -> Iterator[tuple[Convention | None, ...]]:
    """Combinations of one choice each, those of the likeliest choices first."""
    indices = sorted(itertools.product(*(range(len(choice)) for choice in choices)), key=sum)
    bare = tuple(choice.index(None) if None in choice else 0 for choice in choices)  # only what is required
    for combination in dict.fromkeys([indices[0], bare, *indices[:_MAX_CALLS]]):
        yield tuple(choice[index] for choice, index in zip(choices, combination, strict=True))


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError) as error:
        raise ExaminationError(f"the model's parameters cannot be read ({error}): pass forward=") from error


def passes_on(function: Callable[..., Any]) -> bool:
    """Whether it takes ``*args, **kwargs`` and nothing by name."""
    try:
        kinds = {parameter.kind for parameter in _parameters(function).values()}
    except ExaminationError:
        return False
    return kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _is_positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) and (
        parameter.default is parameter.empty
    )


def _id_parameters(parameters: Mapping[str, inspect.Parameter]) -> tuple[str | None, str | None]:
    """The names of the source's and the target's ids; None where there is no such parameter."""
    named = {name: set(name.lower().strip("_").split("_")) for name in parameters}
    ids = [name for name, words in named.items() if words <= _SOURCE_WORDS | _TARGET_WORDS | _ID_WORDS]
    needed = [name for name in ids if parameters[name].default is inspect.Parameter.empty]
    # Hugging Face models give everything a default; elsewhere an optional "targets" is for the loss.
    usable = needed or [name for name in ids if name.endswith("_ids")]
    target = next((name for name in usable if named[name] & _TARGET_WORDS), None)
    others = [name for name in usable if not named[name] & _TARGET_WORDS]
    source = others[0] if others else None
    if target is None and len(others) > 1 and named[others[0]] & _SOURCE_WORDS:  # forward(sources, inputs)
        target = next((name for name in others[1:] if not named[name] & _SOURCE_WORDS), None)
    return source, target


def _positional_part(parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Convention]) -> list[str]:
    """Leading parameters by position, so that names do not matter; from the first gap on, by name."""
    leading = []
    for name, parameter in parameters.items():
        if name not in given or parameter.kind is parameter.KEYWORD_ONLY:
            break
        leading.append(name)
    return leading


def _conventions(name: str, kind: Kind, padding_apart: bool) -> list[Convention]:
    """What a parameter of this name may want to be told; nothing where it is no mask and no length.

    Args:
        padding_apart: other parameters tell the padding, so that this one is (length, length), as in torch.nn.
    """
    lowered = name.lower()
    side = _side(lowered, kind)
    if re.search(r"(^|_)(len|lens|length|lengths|valid_lens?)$", lowered):
        return [Convention("lengths", lambda batch: _lengths(batch, side))]
    if lowered in _LABELS and kind == "decoder":
        return [Convention("the ids, so that all logits come back", _target_ids)]
    if "mask" not in lowered or re.search("head_mask|pos|perm|global", lowered):  # these are told other things
        return []
    if kind != "seq2seq" and re.search("encoder_|mem|cross|context", lowered):  # a cross-attention that is not there
        return []
    if "pad" in lowered:
        return [_pads(side), _real(side), _real_broadcast(side, 4)]
    square, dense = _causal_conventions()
    if "attention_mask" in lowered or lowered in ("input_mask", "valid_mask"):
        return [_real(side), _real_broadcast(side, 4), *(dense[:2] if kind == "decoder" else [])]
    if side == "target":
        return [*square, *dense] if padding_apart else [*dense, *square]
    if padding_apart:
        return [_open_square(side)]
    return [_real_broadcast(side, 3), _real_broadcast(side, 4), _real(side), _pads(side), _open_square(side)]


def _made_up(name: str, kind: Kind) -> list[Convention]:
    """Segments, positions and an empty cache, for a model that wants to be given them; else nothing."""
    side = _side(name, kind)
    if re.match("(segment|token_type)", name):
        return [  # 0 is a pad in some of these tables
            Convention("segments, all 1", lambda batch: np.ones_like(_ids(batch, side))),
            Convention("segments, all 0", lambda batch: np.zeros_like(_ids(batch, side))),
        ]
    if re.fullmatch("(input_)?(pos|positions?)(_ids)?", name):
        return [
            Convention("positions", lambda batch: _positions(batch, side)),
            Convention("positions, (length)", lambda batch: _positions(batch, side)[0]),
        ]
    if re.fullmatch("start_pos(ition)?|offset|past_length", name):
        return [Convention("0", _constant(0))]
    if re.fullmatch("(kv_|key_value_)?(caches?|state|mems?|past(_key_values)?)", name):
        return [Convention("None", _constant(None))]
    return []


def _positions(batch: Batch, side: Side) -> np.ndarray:
    ids = _ids(batch, side)
    return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)


def _side(name: str, kind: Kind) -> Side:
    if "mem" in name or "cross" in name:
        return "memory"
    if kind == "decoder" or re.match(r"(tgt|trg|target|dec|d_|look)", name):
        return "target"
    return "source"


def _source_ids(batch: Batch) -> np.ndarray:
    assert batch.source is not None, "only a decoder has no source"
    return batch.source


def _target_ids(batch: Batch) -> np.ndarray:
    return batch.require_target()


def _constant(value: Any) -> Callable[[Batch], Any]:
    return lambda batch: value


def _ids(batch: Batch, side: Side) -> np.ndarray:
    return _target_ids(batch) if side == "target" else _source_ids(batch)


def _lengths(batch: Batch, side: Side) -> np.ndarray:
    lengths = batch.target_lengths if side == "target" else batch.source_lengths
    ids = _ids(batch, side)
    return np.full(len(ids), ids.shape[1]) if lengths is None else lengths


def _is_real(batch: Batch, side: Side) -> np.ndarray:
    return np.arange(_ids(batch, side).shape[1])[None] < _lengths(batch, side)[:, None]


def _is_causal(batch: Batch) -> np.ndarray:
    length = batch.require_target().shape[1]
    return np.tril(np.ones((length, length), bool))


def _pads(side: Side) -> Convention:
    return Convention("(rows, length), True = padding", lambda batch: ~_is_real(batch, side))


def _real(side: Side) -> Convention:
    return Convention("(rows, length), True = real", lambda batch: _is_real(batch, side))


def _real_broadcast(side: Side, dims: int) -> Convention:
    words = "(rows, 1, length), True = real" if dims == 3 else "(rows, 1, 1, length), True = real"
    shape = (slice(None), *[None] * (dims - 2))
    return Convention(words, lambda batch: _is_real(batch, side)[shape])


def _open_square(side: Side) -> Convention:
    def zeros(batch: Batch) -> np.ndarray:
        keys = _ids(batch, side).shape[1]
        queries = batch.require_target().shape[1] if side == "memory" else keys
        return np.zeros((queries, keys), bool)

    return Convention("(length, length), all False", zeros)


def _causal_conventions() -> tuple[list[Convention], list[Convention]]:
    """Causal masks of shape (length, length), and those that tell the padding too."""

    def causal_and_real(batch: Batch) -> np.ndarray:
        return _is_causal(batch)[None] & _is_real(batch, "target")[:, None]

    square = [
        Convention("(length, length), -inf = blocked", lambda batch: np.where(_is_causal(batch), 0.0, -np.inf)),
        Convention("(length, length), True = blocked", lambda batch: ~_is_causal(batch)),
        Convention("(length, length), True = may attend", _is_causal),
    ]
    dense = [
        Convention("(rows, length, length), True = may attend", causal_and_real),
        Convention("(rows, 1, length, length), True = may attend", lambda batch: causal_and_real(batch)[:, None]),
        _real_broadcast("target", 3),
        _real_broadcast("target", 4),
        _real("target"),
    ]
    return square, dense
