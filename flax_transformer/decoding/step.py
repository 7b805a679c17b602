"""One step of generation: how probable each next token is, which ones are allowed, and how one is drawn by chance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from flax_transformer.config import GenerationConfig
from flax_transformer.data.copying import Copying
from flax_transformer.data.generation import Constraint
from flax_transformer.decoding.copying import CopyState, copy_on, copy_tables, copyable_tokens, start_copying
from flax_transformer.nn.layers import Cache
from flax_transformer.nn.models import Seq2Seq


class Outputs(NamedTuple):
    """Outputs under way. Each leaf begins with the rows, so that a beam takes over another's state by indexing."""

    # behind the begin token, padding where nothing is generated yet
    sequences: Int[Array, "rows positions"]
    constraint_states: Int[Array, " rows"] | None
    copy_state: CopyState | None
    cache: list[Cache]


class NextToken:
    """What every step reads and none changes: the model, its memory of the sources, and what is asked for.

    Args:
        beams: outputs that are pursued for each source, in adjacent rows.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Int[Array, "batch source"],
        source_lengths: Int[Array, " batch"],
        config: GenerationConfig,
        constraint: Constraint | None,
        copying: Copying | None,
        beams: int = 1,
    ) -> None:
        self.model, self.config, self.constraint = model, config, constraint
        self.vocab_size = model.config.target_vocab_size
        memory = model.decoder.project_memory(model.encode(source, source_lengths), source_lengths)
        memory = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), memory)
        # Without the barrier XLA moves a transposition of the keys into the loop and repeats it for every token.
        self.memory = jax.lax.optimization_barrier(memory)
        self.source_lengths = jnp.repeat(source_lengths, beams)
        self.copy_tables = None if copying is None else copy_tables(copying, beams)

    def start(self) -> Outputs:
        """Rows that hold the begin token alone."""
        rows, limit = len(self.source_lengths), self.config.max_new_tokens
        sequences = jnp.full((rows, 1 + limit), self.model.config.pad_id, jnp.int32)
        return Outputs(
            sequences.at[:, 0].set(self.model.config.bos_id),
            None if self.constraint is None else jnp.zeros(rows, jnp.int32),
            None if self.copy_tables is None else start_copying(self.copy_tables),
            self.model.empty_cache(rows, limit),
        )

    def score(self, outputs: Outputs, step: Int[Array, ""]) -> tuple[Float[Array, "rows vocab"], Outputs]:
        """Log-probabilities of the token number ``step``, -inf for those that are not allowed, in at least float32.

        Returns:
            The log-probabilities, and the outputs with their newest token in the cache.
        """
        newest = jax.lax.dynamic_slice_in_dim(outputs.sequences, step, 1, axis=1)
        logits, cache = self.model.decode(newest, self.memory, self.source_lengths, offset=step, cache=outputs.cache)
        logits = logits[:, 0].astype(jnp.promote_types(logits.dtype, jnp.float32))
        if self.config.repetition_penalty != 1:
            logits = penalize_repetition(logits, outputs.sequences[:, 1:], step, self.config.repetition_penalty)
        log_probabilities = jax.nn.log_softmax(logits)
        allowed = self._allowed(outputs, step)
        if allowed is not None:
            log_probabilities = jnp.where(allowed, log_probabilities, -jnp.inf)
        return log_probabilities, outputs._replace(cache=cache)

    def append(self, outputs: Outputs, tokens: Int[Array, " rows"], step: Int[Array, ""]) -> Outputs:
        """The outputs with ``tokens`` as their token number ``step``."""
        sequences = jax.lax.dynamic_update_slice_in_dim(outputs.sequences, tokens[:, None], step + 1, axis=1)
        states, copy_state = outputs.constraint_states, outputs.copy_state
        if self.constraint is not None:
            states = jnp.asarray(self.constraint.transitions)[states, tokens]
        if copy_state is not None and self.copy_tables is not None:
            copy_state = copy_on(self.copy_tables, copy_state, tokens)
        return Outputs(sequences, states, copy_state, outputs.cache)

    def _allowed(self, outputs: Outputs, step: Int[Array, ""]) -> Bool[Array, "#rows vocab"] | None:
        """The tokens that may come next; None for all."""
        config, ids, allowed = self.config, jnp.arange(self.vocab_size), None
        if config.min_new_tokens > 0:
            allowed = ((ids != self.model.config.eos_id) | (step >= config.min_new_tokens))[None]
        if config.prefix:
            forced = jnp.asarray(config.prefix)[jnp.minimum(step, len(config.prefix) - 1)]
            allowed = _both(allowed, ((ids == forced) | (step >= len(config.prefix)))[None])
        if config.num_tokens is not None:
            allowed = _both(allowed, (ids < config.num_tokens)[None])
        if self.constraint is not None:
            following = jnp.asarray(self.constraint.transitions)[outputs.constraint_states]  # (rows, vocab)
            left = config.max_new_tokens - 1 - step
            ends_in_time = jnp.asarray(self.constraint.distances)[following] <= left
            allowed = _both(allowed, (following >= 0) & ends_in_time)
        if outputs.copy_state is not None and self.copy_tables is not None:
            copyable = copyable_tokens(self.copy_tables, outputs.copy_state)
            both = _both(allowed, copyable)
            # Where nothing satisfies both, as behind the last token that there is room for, the others go before.
            allowed = both if allowed is None else jnp.where(both.any(axis=1, keepdims=True), both, allowed)
        return allowed


def _both(one: Bool[Array, "..."] | None, other: Bool[Array, "..."]) -> Bool[Array, "..."]:
    return other if one is None else one & other


def penalize_repetition(
    logits: Float[Array, "rows vocab"], tokens: Int[Array, "rows limit"], step: Int[Array, ""], penalty: float
) -> Float[Array, "rows vocab"]:
    """Divide positive logits of the first ``step`` tokens by ``penalty`` and multiply negative ones with it.

    Keskar et al., 2019, section 4.1, divide all of them, which would favour a token whose logit is negative.
    """
    logits_of_tokens = jnp.take_along_axis(logits, tokens, axis=1)
    penalized = jnp.where(logits_of_tokens > 0, logits_of_tokens / penalty, logits_of_tokens * penalty)
    # What is not generated yet goes to an id that does not exist, and is dropped.
    places = jnp.where(jnp.arange(tokens.shape[1])[None] < step, tokens, logits.shape[1])
    return logits.at[jnp.arange(len(logits))[:, None], places].set(penalized, mode="drop")


def most_probable_tokens(
    log_probabilities: Float[Array, "rows vocab"],
) -> tuple[Int[Array, " rows"], Float[Array, " rows"]]:
    """The first of the most probable tokens of each row, and its log-probability.

    ``jnp.argmax`` in two reductions that XLA vectorises on CPU, where its own takes as long as a decoder layer. A row
    with a NaN gets an id that does not exist, and NaN.
    """
    vocab_size = log_probabilities.shape[1]
    highest = log_probabilities.max(axis=1)
    ids = jnp.where(log_probabilities == highest[:, None], jnp.arange(vocab_size, dtype=jnp.int32)[None], vocab_size)
    return ids.min(axis=1), highest


def draw_tokens(
    log_probabilities: Float[Array, "rows vocab"], draws: Float[Array, " rows"], config: GenerationConfig
) -> Int[Array, " rows"]:
    """The token of each row at which the running total of probabilities passes ``draw`` times the whole.

    Temperature first, then top-k, then top-p among what is left, each by probability; a draw in [0, 1) decides.
    """
    relative = log_probabilities - log_probabilities.max(axis=-1, keepdims=True)
    probabilities = jnp.exp(relative / config.temperature)
    ids = None
    if config.top_k > 0 or config.top_p < 1:
        probabilities, ids = jax.lax.top_k(probabilities, config.top_k or probabilities.shape[-1])
    if config.top_p < 1:
        probabilities = probabilities / probabilities.sum(axis=-1, keepdims=True)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        probabilities = jnp.where(before < config.top_p, probabilities, 0)
    # A parallel sum may step down by a rounding, so a token without probability is left out by name.
    totals = jnp.where(probabilities > 0, jnp.cumsum(probabilities, axis=-1), 0)
    places = jnp.argmax(totals > draws[:, None] * totals.max(axis=-1, keepdims=True), axis=-1)
    if ids is None:
        return places.astype(jnp.int32)
    return jnp.take_along_axis(ids, places[:, None], axis=1)[:, 0].astype(jnp.int32)
