"""The examination: prepare the subject, run every probe, hand back a report."""

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flax_transformer.doctor.examination import Examination, Facts
from flax_transformer.doctor.pictures import heat_maps
from flax_transformer.doctor.preparation import Preparable, prepare
from flax_transformer.doctor.probes import PROBES
from flax_transformer.doctor.report import Report
from flax_transformer.doctor.result import Result, not_applicable
from flax_transformer.doctor.subject import SMALLEST_VOCAB, ExaminationError, Kind
from flax_transformer.errors import UserError

Progress = Callable[[str, int, int], None]
_FATAL = ("finite", "constant")  # after these nothing else can be measured


def examine(
    model: Any,
    forward: Callable[..., Any] | None = None,
    *,
    kind: Kind | None = None,
    variables: Any = None,
    vocab_size: int | tuple[int, int] | None = None,
    pad_id: int | None = None,
    bos_id: int | None = None,
    eos_id: int | None = None,
    loss: Callable[..., Any] | None = None,
    generate: Callable[..., Any] | None = None,
    max_length: int | None = None,
    fresh: bool = True,
    name: str = "",
    progress: Progress | None = None,
) -> Report:
    """Measure what a Transformer does, rather than read what its source says.

    Only a way from token ids to logits is needed. Every further piece unlocks probes; those that lack theirs are
    reported as "not applicable", with what was missing. The model is given back as it was: parameters, buffers, mode
    and the states of random generators.

    Args:
        model: a ``torch.nn.Module``, a Flax NNX module, a Linen module (with ``variables``), or a callable on JAX
            arrays.
        forward: ``forward(model, source, target)`` for seq2seq, ``forward(model, ids)`` otherwise; ids have shape
            (rows, length). None to call the model itself, whose parameters are told by their names.
        kind: what it is; None to find out.
        variables: of a Linen module.
        vocab_size: ids lie below it; (source, target) where they differ. None to find out.
        pad_id, bos_id, eos_id: special tokens. None to find out, from the model's config or attributes.
        loss: ``loss(model, source, target)`` or ``loss(model, ids)``: called with a stand-in for the model that knows
            the answer. ``target`` holds the begin and the end token.
        generate: ``generate(model, source, steps)`` or ``generate(model, prompt, steps)``: ids, chosen greedily.
        max_length: what the model is said to take.
        fresh: the weights are as initialized, so that their distribution is judged too.
        name: of the subject, for the report.
        progress: called with (probe, number, count) before each.

    Returns:
        The report: measurements, a ranked diagnosis, influence matrices.

    Raises:
        UserError: an argument is wrong.
        ExaminationError: the model cannot be run as it must be.
    """
    started = time.perf_counter()
    _check_arguments(kind, vocab_size, max_length)
    for name_of_id, token in (("pad_id", pad_id), ("bos_id", bos_id), ("eos_id", eos_id)):
        if token is not None and (not isinstance(token, int) or token < 0):
            raise UserError(f"{name_of_id}: expected a token id, a whole number from 0, got {token!r}")
    subjects = _subjects(model, forward, variables)
    given = {
        "pad_id": pad_id, "bos_id": bos_id, "eos_id": eos_id, "loss": loss, "generate": generate,
        "max_length": max_length, "fresh": fresh,
    }  # fmt: skip
    for number, subject in enumerate(subjects):
        with subject.ready():
            try:
                exam, notes = prepare(subject, forward is not None, kind, vocab_size, given)
                notes += [subject.output_note, _told_of_zeros(subject.zeros)]
            except ExaminationError:
                if number + 1 < len(subjects):
                    continue  # some models cannot compute in float64
                raise
            results = _run_probes(exam, progress)
            return Report(
                subject=name or type(model).__name__,
                framework=subject.framework,
                kind=exam.facts.kind,
                called_as=str(subject.call) if subject.call is not None else "forward",
                precision=_precision(exam),
                results=tuple(results),
                heat_maps=() if _is_fatal(results) else tuple(heat_maps(exam)),
                notes=tuple(filter(None, (*notes, *exam.notes))),
                seconds=time.perf_counter() - started,
                facts=_told(exam.facts),
            )
    raise AssertionError("the last subject either is examined or raises")


def assert_healthy(model: Any, *arguments: Any, strict: bool = False, **keywords: Any) -> None:
    """For a test suite: fails with the diagnosis where :func:`examine` calls the model ill.

    Args:
        strict: fail on warnings too.

    Raises:
        AssertionError: it is ill. The message is the report.
    """
    report = examine(model, *arguments, **keywords)
    if report.exit_code(strict):
        raise AssertionError(str(report))


def _told_of_zeros(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"examined with small random numbers in the place of weights that are all zero: {shown}"


def _check_arguments(kind: str | None, vocab_size: int | tuple[int, int] | None, max_length: int | None) -> None:
    if kind not in (None, "seq2seq", "decoder", "encoder"):
        raise UserError(f"kind: expected seq2seq, decoder or encoder, got {kind!r}")
    sizes = vocab_size if isinstance(vocab_size, tuple) else (vocab_size,)
    for size in sizes:
        if size is not None and (not isinstance(size, int) or size < SMALLEST_VOCAB):
            raise UserError(f"vocab_size: expected a number from {SMALLEST_VOCAB}, got {size!r}")
    if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
        raise UserError(f"max_length: expected a number from 1, got {max_length!r}")


def _subjects(model: Any, forward: Any, variables: Any) -> Sequence[Preparable]:
    """Ways to run the model, the most precise first. Only the framework that the model is of gets loaded."""
    if sys.modules.get("torch") is not None:
        import torch

        if isinstance(model, torch.nn.Module):
            from flax_transformer.doctor.torch_subject import TorchSubject

            if variables is not None:
                raise UserError(f"variables: expected none with a torch.nn.Module, got {type(variables).__name__}")
            return [TorchSubject(model, forward, dtype) for dtype in (torch.float64, torch.float32)]
    if isinstance(model, type):
        raise UserError(f"expected a model, got the class {model.__name__}; make one of it: {model.__name__}()")
    if not callable(model) and variables is None:
        raise UserError(f"expected a torch.nn.Module, a Flax module or a callable, got {type(model).__name__}")
    if importlib.util.find_spec("jax") is None:
        raise UserError(f"a {type(model).__name__} is no torch.nn.Module, and JAX is not installed")
    from flax_transformer.doctor.jax_subject import JaxSubject

    return [JaxSubject(model, forward, variables, x64) for x64 in (True, False)]


def _run_probes(exam: Examination, progress: Progress | None) -> list[Result]:
    results: list[Result] = []
    with np.errstate(all="ignore"):
        for number, (name, probe) in enumerate(PROBES.items()):
            if progress is not None:
                progress(name, number, len(PROBES))
            if _is_fatal(results):
                break
            try:
                results += probe(exam)
            except ExaminationError as error:
                results.append(not_applicable(name, str(error)))
            except Exception as error:
                if name == "outputs":
                    raise ExaminationError(f"the model failed: {type(error).__name__}: {error}") from error
                results.append(not_applicable(name, f"could not be measured: {type(error).__name__}: {error}"))
    return results


def _is_fatal(results: Sequence[Result]) -> bool:
    return any(result.probe in _FATAL and result.verdict == "ill" for result in results)


def _precision(exam: Examination) -> str:
    epsilon = max(exam.subject.epsilon, exam.inner_epsilon)
    if epsilon < 1e-12:
        return "float64"
    words = "float32" if epsilon < 1e-5 else "half precision"
    return f"{words} inside: effects below {exam.limit(same_shape=False):.0e} go unseen"


def _told(facts: Facts) -> dict[str, Any]:
    return {
        "source_vocab": facts.source_vocab, "target_vocab": facts.target_vocab, "pad_id": facts.pad_id,
        "bos_id": facts.bos_id, "eos_id": facts.eos_id, "max_length": facts.max_length, "fresh": facts.fresh,
        "loss": facts.loss is not None, "generate": facts.generate is not None,
    }  # fmt: skip
