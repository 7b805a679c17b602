"""Generation as plainly as it can be written: one source at a time, without padding or cache. The truth in tests.

Every step runs the model on the whole prefix again, so the work for an output of n tokens grows with n^2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flax_transformer.config import GenerationConfig
from flax_transformer.data.generation import Constraint, uniform_draws
from torch_reference.nn.models import Seq2Seq


@dataclass(frozen=True)
class Output:
    """Tokens without the begin token, and the sum of their log-probabilities (of beam search: the score)."""

    tokens: tuple[int, ...]
    score: float


@torch.inference_mode()
def generate_naively(
    model: Seq2Seq,
    source: Int[Tensor, " source"],
    config: GenerationConfig,
    constraint: Constraint | None = None,
    row_seed: int = 0,
) -> list[Output]:
    """The outputs of one source without padding, best first: ``n_best``, or fewer where there are not as many."""
    if config.strategy == "beam":
        return _search(model, source, config, constraint)
    draws = uniform_draws(config.seed, [row_seed], config.max_new_tokens)[0]
    output = Output((), 0.0)
    while not _is_complete(output.tokens, model, config):
        scores = _log_probabilities(model, source, output.tokens, config, constraint)
        if config.strategy == "greedy":
            token = int(scores.argmax())
        else:
            token = _draw(scores.exp().tolist(), float(draws[len(output.tokens)]), config)
        output = Output((*output.tokens, token), output.score + float(scores[token]))
    return [output]


def _is_complete(tokens: Sequence[int], model: Seq2Seq, config: GenerationConfig) -> bool:
    return len(tokens) == config.max_new_tokens or list(tokens[-1:]) == [model.config.eos_id]


def _log_probabilities(
    model: Seq2Seq,
    source: Int[Tensor, " source"],
    tokens: Sequence[int],
    config: GenerationConfig,
    constraint: Constraint | None,
) -> Float[Tensor, " vocab"]:
    """Of each token after ``tokens``, from a pass over all of them; -inf for those that may not come."""
    target = torch.tensor([[model.config.bos_id, *tokens]], device=source.device)
    lengths = (torch.tensor([ids.shape[-1]], device=source.device) for ids in (source, target))
    source_length, target_length = lengths
    logits = model(source[None], target, source_length, target_length)[0, -1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    for token in set(tokens):
        factor = 1 / config.repetition_penalty if logits[token] > 0 else config.repetition_penalty
        logits[token] *= factor
    scores = torch.log_softmax(logits, dim=-1)
    for token in range(len(scores)):
        if not _is_allowed(token, tokens, model.config.eos_id, config, constraint):
            scores[token] = -torch.inf
    return scores


def _is_allowed(
    token: int, tokens: Sequence[int], eos_id: int, config: GenerationConfig, constraint: Constraint | None
) -> bool:
    step = len(tokens)
    if token == eos_id and step < config.min_new_tokens:
        return False
    if config.num_tokens is not None and token >= config.num_tokens:
        return False
    if step < len(config.prefix) and token != config.prefix[step]:
        return False
    if constraint is None:
        return True
    state = 0
    for previous in tokens:
        state = constraint.transitions[state, previous]
    state = constraint.transitions[state, token]
    return bool(state >= 0 and step + 1 + constraint.distances[state] <= config.max_new_tokens)


def _draw(probabilities: Sequence[float], draw: float, config: GenerationConfig) -> int:
    """Keep the top k, of these the top p, and walk through what is left until the draw is reached."""
    weights = {token: p ** (1 / config.temperature) for token, p in enumerate(probabilities) if p > 0}
    if config.top_k > 0 or config.top_p < 1:
        ranked = sorted(weights, key=weights.__getitem__, reverse=True)[: config.top_k or None]
        total, kept = sum(weights[token] for token in ranked), 0.0
        nucleus = []
        for token in ranked:
            if kept >= config.top_p * total:
                break
            nucleus.append(token)
            kept += weights[token]
        weights = {token: weights[token] for token in nucleus}
    goal = draw * sum(weights.values())
    for token, weight in weights.items():
        goal -= weight
        if goal < 0:
            return token
    return token


def _search(
    model: Seq2Seq, source: Int[Tensor, " source"], config: GenerationConfig, constraint: Constraint | None
) -> list[Output]:
    """Beam search over sorted lists; :mod:`torch_reference.decoding.beam` explains what is kept and when it ends."""
    under_way, complete = [Output((), 0.0)], []
    for _ in range(config.max_new_tokens):
        candidates = sorted(
            (child for output in under_way for child in _children(model, source, output, config, constraint)),
            key=lambda output: output.score,
            reverse=True,
        )[: 2 * config.beam_width]
        ends = [output.tokens[-1] == model.config.eos_id for output in candidates]
        for output, end in list(zip(candidates, ends, strict=True))[: config.beam_width]:
            if end:
                complete.append(_penalized(output, config))
        complete = sorted(complete, key=lambda output: output.score, reverse=True)[: config.beam_width]
        under_way = [output for output, end in zip(candidates, ends, strict=True) if not end][: config.beam_width]
        if _is_done(complete, under_way, config):
            under_way = []
    complete += [_penalized(output, config) for output in under_way]
    return sorted(complete, key=lambda output: output.score, reverse=True)[: config.n_best]


def _children(
    model: Seq2Seq,
    source: Int[Tensor, " source"],
    output: Output,
    config: GenerationConfig,
    constraint: Constraint | None,
) -> Iterator[Output]:
    scores = _log_probabilities(model, source, output.tokens, config, constraint).tolist()
    for token, score in enumerate(scores):
        if score > -torch.inf:
            yield Output((*output.tokens, token), output.score + score)


def _penalized(output: Output, config: GenerationConfig) -> Output:
    return Output(output.tokens, output.score / _penalty(len(output.tokens), config))


def _penalty(length: int, config: GenerationConfig) -> float:
    return ((5 + length) / 6 if config.length_penalty == "gnmt" else length) ** config.length_alpha


def _is_done(complete: Sequence[Output], under_way: Sequence[Output], config: GenerationConfig) -> bool:
    if config.early_stopping:
        return len(complete) == config.beam_width
    if len(complete) < config.n_best or not under_way:
        return not under_way
    return complete[config.n_best - 1].score >= under_way[0].score / _penalty(config.max_new_tokens, config)
