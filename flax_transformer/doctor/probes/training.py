"""Can it learn? Gradients, the first loss, dropout, and the layers that an optimizer would see."""

import re

import numpy as np

import flax_transformer.doctor.limits as limits
from flax_transformer.doctor.examination import Examination
from flax_transformer.doctor.result import Result, Verdict, healthy, not_applicable
from flax_transformer.doctor.subject import Gradient


def probe_structure(exam: Examination) -> list[Result]:
    structure = exam.subject.structure()
    found: list[tuple[str, Verdict, list[str]]] = [
        ("unregistered", "ill", list(structure.unregistered)),
        ("shared-layers", "warning", list(structure.shared)),
        ("identical-layers", "warning", list(structure.identical) if exam.facts.fresh else []),
        ("frozen", "warning", list(structure.frozen)),
    ]
    results = [
        Result("structure", verdict, float(len(names)), 0.0, cause, ", ".join(names[:3]))
        for cause, verdict, names in found
        if names
    ]
    if structure.norm_first is False and structure.depth >= 6 and exam.facts.fresh:
        results.append(Result("structure", "advice", float(structure.depth), 6.0, "post-ln"))
    return results or [healthy("structure", 0.0, 0.0)]


def probe_gradients(exam: Examination) -> list[Result]:
    """The gradient of the loss reaches every parameter, and the first layer as well as the last."""
    gradients = exam.gradients
    if not gradients:
        return [not_applicable("gradients", "the model has no parameters, or they are not known")]
    weights = [g for g in gradients if g.is_weight]
    if weights and not any(g.norm for g in weights):
        detail = "no weight gets any: the forward pass runs under no_grad or inference_mode, or its logits are detached"
        return [Result("gradients", "warning", float(len(weights)), 0.0, "no-gradient", detail=detail)]
    trace = exam.trace
    used, elsewhere = trace.parameters_of(trace.outputs[:1]), trace.parameters_of(trace.outputs[1:])
    dead = [g.name for g in weights if not g.norm and g.name in used]
    idle = trace.parameters_of(trace.outputs, through_empty=True) - used - elsewhere
    unused = [g.name for g in weights if not g.norm and g.name not in used | elsewhere | idle]
    without_tokens = [g.name for g in weights if not g.norm and g.name in idle]
    results = []
    if dead:
        results.append(Result("gradients", "ill", float(len(dead)), 0.0, "no-gradient", _shortened(dead)))
    elif unused:
        results.append(Result("gradients", "warning", float(len(unused)), 0.0, "unused-parameter", _shortened(unused)))
    if without_tokens and not results:
        figure, detail = float(len(without_tokens)), "no token got there in a few small batches, as with experts"
        place = _shortened(without_tokens)
        results.append(Result("gradients", "advice", figure, 0.0, "unused-parameter", place, detail))
    return [*results, *_gradient_depth(gradients, exam)] or [healthy("gradients", 0.0, 0.0)]


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _gradient_depth(gradients: list[Gradient], exam: Examination) -> list[Result]:
    """Mean gradient of the first layer's weights over the last one's, in each stack of layers."""
    if not exam.facts.fresh:
        return []
    stacks: dict[str, dict[int, list[float]]] = {}
    for gradient in gradients:
        match = re.match(r"^(.*?[._]?)(\d+)[._/]", gradient.name)
        if match and gradient.is_weight and gradient.norm:
            stacks.setdefault(match[1], {}).setdefault(int(match[2]), []).append(gradient.norm)
    results = []
    for stack, layers in stacks.items():
        first, last = layers[min(layers)], layers[max(layers)]
        if len(layers) < 2 or len(first) != len(last):
            continue
        ratio = float(np.linalg.norm(first) / np.linalg.norm(last))
        if ratio < limits.GRADIENT_WARN:
            verdict: Verdict = "ill" if ratio < limits.GRADIENT_ILL else "warning"
            limit = limits.GRADIENT_ILL if verdict == "ill" else limits.GRADIENT_WARN
            results.append(Result("gradient depth", verdict, ratio, limit, "gradient-depth", stack.rstrip("._/")))
        else:
            results.append(healthy("gradient depth", ratio, limits.GRADIENT_WARN))
    return results


def probe_initial_loss(exam: Examination) -> list[Result]:
    """Cross entropy against random labels, above ln V."""
    logits = exam.base_logits
    if not exam.facts.fresh:
        return [not_applicable("initial loss", "the model is trained")]
    if logits.shape[-1] < 2:
        return [not_applicable("initial loss", "the model returns one number")]
    logits = _without_own_token(exam, logits)
    highest = np.nanmax(logits, axis=-1, keepdims=True)
    partition = np.log(np.nansum(np.exp(logits - highest), axis=-1)) + highest[..., 0]
    figure = float(np.mean(partition - np.nanmean(logits, axis=-1)) - np.log(logits.shape[-1]))
    if figure > limits.INITIAL_LOSS_ILL:
        return [Result("initial loss", "ill", figure, limits.INITIAL_LOSS_ILL, "initial-loss")]
    if figure > limits.INITIAL_LOSS_WARN:
        return [Result("initial loss", "warning", figure, limits.INITIAL_LOSS_WARN, "initial-loss")]
    return [healthy("initial loss", figure, limits.INITIAL_LOSS_WARN)]


def _without_own_token(exam: Examination, logits: np.ndarray) -> np.ndarray:
    """Tied and scaled embeddings predict the input token at first, as those of the paper do; it is left out (NaN)."""
    ids = exam.base.target if exam.is_causal else exam.base.source
    if logits.ndim != 3 or ids is None:
        return logits
    logits = logits.copy()
    np.put_along_axis(logits, np.minimum(ids, logits.shape[-1] - 1)[..., None], np.nan, axis=-1)
    return logits


def probe_dropout(exam: Examination) -> list[Result]:
    is_random = exam.subject.is_random_in_training(exam.base)
    if is_random is None:
        return [not_applicable("dropout", "training mode needs random keys, which forward= does not take")]
    if not is_random:
        return [Result("dropout", "advice", 0.0, 0.0, "no-dropout")]
    return [healthy("dropout")]
