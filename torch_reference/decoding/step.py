"""One step of generation: how probable each next token is, which ones are allowed, and how one is drawn by chance."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flax_transformer.config import GenerationConfig
from flax_transformer.data.copying import Copying
from flax_transformer.data.generation import Constraint
from torch_reference.decoding.copying import CopyState, copy_on, copy_tables, copyable_tokens, start_copying
from torch_reference.nn.layers import Cache
from torch_reference.nn.models import Seq2Seq


class Outputs(NamedTuple):
    """Outputs under way. Each tensor begins with the rows, so that a beam takes over another's state by indexing."""

    # behind the begin token, padding where nothing is generated yet
    sequences: Int[Tensor, "rows positions"]
    constraint_states: Int[Tensor, " rows"] | None
    copy_state: CopyState | None
    cache: list[Cache]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Outputs":
        """The same function of each tensor."""
        states = None if self.constraint_states is None else function(self.constraint_states)
        copy_state = None if self.copy_state is None else self.copy_state.map(function)
        cache = [type(entry)(*map(function, entry)) for entry in self.cache]
        return Outputs(function(self.sequences), states, copy_state, cache)


class NextToken:
    """What every step reads and none changes: the model, its memory of the sources, and what is asked for.

    Args:
        beams: outputs that are pursued for each source, in adjacent rows.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Int[Tensor, "batch source"],
        source_lengths: Int[Tensor, " batch"],
        config: GenerationConfig,
        constraint: Constraint | None,
        copying: Copying | None,
        beams: int = 1,
    ) -> None:
        self.model, self.config = model, config
        self.vocab_size = model.config.target_vocab_size
        self.device = source.device
        memory = model.decoder.project_memory(model.encode(source, source_lengths), source_lengths)
        self.memory = [type(layer)(*(leaf.repeat_interleave(beams, dim=0) for leaf in layer)) for layer in memory]
        self.source_lengths = source_lengths.repeat_interleave(beams)
        self.constraint = (
            None if constraint is None else [torch.as_tensor(table, device=self.device).long() for table in constraint]
        )
        self.copy_tables = None if copying is None else copy_tables(copying, beams, self.device)

    def start(self) -> Outputs:
        """Rows that hold the begin token alone."""
        rows, limit = len(self.source_lengths), self.config.max_new_tokens
        sequences = torch.full((rows, 1 + limit), self.model.config.pad_id, device=self.device)
        sequences[:, 0] = self.model.config.bos_id
        states = None if self.constraint is None else torch.zeros(rows, dtype=torch.long, device=self.device)
        copy_state = None if self.copy_tables is None else start_copying(self.copy_tables)
        return Outputs(sequences, states, copy_state, self.model.empty_cache(rows, limit))

    def score(self, outputs: Outputs, step: int) -> tuple[Float[Tensor, "rows vocab"], Outputs]:
        """Log-probabilities of the token number ``step``, -inf for those that are not allowed, in at least float32.

        Returns:
            The log-probabilities, and the outputs with their newest token in the cache, which is written in place.
        """
        newest = outputs.sequences[:, step : step + 1]
        logits, cache = self.model.decode(newest, self.memory, self.source_lengths, offset=step, cache=outputs.cache)
        logits = logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32))
        if self.config.repetition_penalty != 1:
            logits = penalize_repetition(logits, outputs.sequences[:, 1:], step, self.config.repetition_penalty)
        log_probabilities = torch.log_softmax(logits, dim=-1)
        allowed = self._allowed(outputs, step)
        if allowed is not None:
            log_probabilities = torch.where(allowed, log_probabilities, -torch.inf)
        return log_probabilities, outputs._replace(cache=cache)

    def append(self, outputs: Outputs, tokens: Int[Tensor, " rows"], step: int) -> Outputs:
        """The outputs with ``tokens`` as their token number ``step``, written in place."""
        outputs.sequences[:, step + 1] = tokens
        states, copy_state = outputs.constraint_states, outputs.copy_state
        if self.constraint is not None:
            transitions, _ = self.constraint
            states = transitions[states, tokens]
        if copy_state is not None and self.copy_tables is not None:
            copy_state = copy_on(self.copy_tables, copy_state, tokens)
        return Outputs(outputs.sequences, states, copy_state, outputs.cache)

    def _allowed(self, outputs: Outputs, step: int) -> Bool[Tensor, "#rows vocab"] | None:
        """The tokens that may come next; None for all."""
        config, ids, allowed = self.config, torch.arange(self.vocab_size, device=self.device), None
        if step < config.min_new_tokens:
            allowed = (ids != self.model.config.eos_id)[None]
        if step < len(config.prefix):
            allowed = _both(allowed, (ids == config.prefix[step])[None])
        if config.num_tokens is not None:
            allowed = _both(allowed, (ids < config.num_tokens)[None])
        if self.constraint is not None:
            transitions, distances = self.constraint
            following = transitions[outputs.constraint_states]  # (rows, vocab)
            left = config.max_new_tokens - 1 - step
            ends_in_time = distances[following] <= left
            allowed = _both(allowed, (following >= 0) & ends_in_time)
        if outputs.copy_state is not None and self.copy_tables is not None:
            copyable = copyable_tokens(self.copy_tables, outputs.copy_state)
            both = _both(allowed, copyable)
            # Where nothing satisfies both, as behind the last token that there is room for, the others go before.
            allowed = both if allowed is None else torch.where(both.any(dim=1, keepdim=True), both, allowed)
        return allowed


def _both(one: Bool[Tensor, "..."] | None, other: Bool[Tensor, "..."]) -> Bool[Tensor, "..."]:
    return other if one is None else one & other


def penalize_repetition(
    logits: Float[Tensor, "rows vocab"], tokens: Int[Tensor, "rows limit"], step: int, penalty: float
) -> Float[Tensor, "rows vocab"]:
    """Divide positive logits of the first ``step`` tokens by ``penalty`` and multiply negative ones with it.

    Keskar et al., 2019, section 4.1, divide all of them, which would favour a token whose logit is negative.
    """
    tokens = tokens[:, :step]
    logits_of_tokens = logits.gather(1, tokens)
    penalized = torch.where(logits_of_tokens > 0, logits_of_tokens / penalty, logits_of_tokens * penalty)
    return logits.scatter(1, tokens, penalized)


def most_probable_tokens(
    log_probabilities: Float[Tensor, "rows vocab"],
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The first of the most probable tokens of each row, and its log-probability."""
    tokens = log_probabilities.argmax(dim=-1)
    return tokens, log_probabilities.gather(1, tokens[:, None])[:, 0]


def draw_tokens(
    log_probabilities: Float[Tensor, "rows vocab"], draws: Float[Tensor, " rows"], config: GenerationConfig
) -> Int[Tensor, " rows"]:
    """The token of each row at which the running total of probabilities passes ``draw`` times the whole.

    Temperature first, then top-k, then top-p among what is left, each by probability; a draw in [0, 1) decides.
    """
    relative = log_probabilities - log_probabilities.amax(dim=-1, keepdim=True)
    probabilities = torch.exp(relative / config.temperature)
    ids = None
    if config.top_k > 0 or config.top_p < 1:
        probabilities, ids = probabilities.topk(config.top_k or probabilities.shape[-1])
    if config.top_p < 1:
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = torch.where(before < config.top_p, probabilities, 0)
    # A sum may step down by a rounding, so a token without probability is left out by name.
    totals = torch.where(probabilities > 0, probabilities.cumsum(dim=-1), 0)
    passed = totals > draws[:, None] * totals.amax(dim=-1, keepdim=True)
    places = passed.int().argmax(dim=-1)
    if ids is None:
        return places
    return ids.gather(1, places[:, None])[:, 0]
