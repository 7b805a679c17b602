"""Which tokens reach which outputs, found by changing them: for mixers that have no attention weights to look at."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from flax_transformer.data.batches import PaddedBatch, Seq2SeqBatch
from flax_transformer.parity import flax_side, torch_side
from flax_transformer.parity.cases import Case
from flax_transformer.parity.measure import Arrays

# Output -> True at the tokens that a change reaches.
Reached = dict[str, Bool[np.ndarray, "rows length"]]
SIDES = {"flax": flax_side, "torch": torch_side}


def influence(case: Case) -> dict[str, float]:
    """Outputs of real tokens that follow a token which they must not see, and those that ignore one which they must.

    A token that cannot be seen must leave every bit as it is. One that can must show, in float64, where nothing
    underflows.

    Returns:
        The number of such tokens for each change and each side.
    """
    counts = {}
    for side, module in SIDES.items():
        before = module.run(case.config, case.weights, case.batch).intermediates
        for name, changed, reached in _changes(case):
            after = module.run(case.config, case.weights, changed).intermediates
            counts[f"{name}, {side}"] = _wrong(case, before, after, reached)
    return counts


def _wrong(case: Case, before: Arrays, after: Arrays, reached: Reached) -> float:
    wrong = 0
    for output, expected in reached.items():
        differs = (before[output] != after[output]).any(axis=-1)
        real = _real(case.batch, output)
        leaks, misses = differs & ~expected, ~differs & expected & (case.dtype == "float64")
        wrong += int(((leaks | misses) & real).sum())
    return float(wrong)


def _real(batch: PaddedBatch, output: str) -> Bool[np.ndarray, "rows length"]:
    """The real tokens of the source, or of the decoder's input."""
    if output == "memory":
        return np.arange(batch.source.shape[1]) < batch.source_lengths[:, None]
    assert isinstance(batch, Seq2SeqBatch)
    return np.arange(batch.target.shape[1] - 1) < batch.target_lengths[:, None] - 1


def _changes(case: Case) -> Iterator[tuple[str, PaddedBatch, Reached]]:
    """A name, a changed batch, and which tokens of each output must notice the change."""
    batch, width = case.batch, case.batch.source.shape[1]
    ids, places = _another(batch.source, case.model.source_vocab_size), np.arange(width)
    lengths = batch.source_lengths[:, None]
    for name, changed, is_seen in (
        ("padding of the source", places >= lengths, False),
        ("first source token", places == 0, True),
        ("last source token", places == lengths - 1, True),
    ):
        reached = {"memory": np.full((len(lengths), width), is_seen)}
        if isinstance(batch, Seq2SeqBatch):
            reached["logits"] = np.full((len(lengths), batch.target.shape[1] - 1), is_seen)
        yield name, batch._replace(source=np.where(changed, ids, batch.source)), reached
    if isinstance(batch, Seq2SeqBatch):
        yield from _changes_of_target(case, batch)


def _changes_of_target(case: Case, batch: Seq2SeqBatch) -> Iterator[tuple[str, PaddedBatch, Reached]]:
    """Of the decoder's input, which is all of the target but its last token."""
    ids, places = _another(batch.target, case.model.target_vocab_size), np.arange(batch.target.shape[1])
    for place in (1, batch.target.shape[1] // 2):
        changed = batch._replace(target=np.where(places == place, ids, batch.target))
        yield f"target token {place}", changed, {"logits": np.tile(places[:-1] >= place, (len(ids), 1))}


def _another(ids: Int[np.ndarray, "rows length"], vocabulary: int) -> Int[np.ndarray, "rows length"]:
    """Another id in the place of each, none of them a special token."""
    return (3 + (ids - 3 + 1) % (vocabulary - 3)).astype(ids.dtype)
