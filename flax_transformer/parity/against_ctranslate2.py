"""CTranslate2 against the twins: the probabilities that it gives to targets, and the tokens that it generates."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from flax_transformer.interop.ctranslate2_export import save_ctranslate2, token_names
from flax_transformer.parity import tolerances
from flax_transformer.parity.against import (
    Rows,
    beam_config,
    beam_tokens,
    greedy_tokens,
    new_tokens,
    twins,
    with_source,
)
from flax_transformer.parity.checks import Result, measured
from flax_transformer.parity.measure import scaled_ulp
from flax_transformer.parity.pair import Pair
from flax_transformer.parity.targets import Target
from flax_transformer.parity.torch_side import Outcome


def checks(target: Target, dtype: str) -> dict[str, Callable[[], list[Result]]]:
    """
    Raises:
        UserError: CTranslate2 has no such model.
    """
    return checks_of(Pair(target.case(dtype), backward=False), target)


def checks_of(pair: Pair, target: Target) -> dict[str, Callable[[], list[Result]]]:
    """The same of twins that may have been run before."""
    served = {kind: Served(target, kind) for kind in ("float32", "int8")}
    search = beam_config(pair, early_stopping=True)
    return {
        "log-probabilities": lambda: [_log_probabilities(pair, served["float32"])],
        "greedy tokens": lambda: greedy_tokens(pair, served["float32"].greedy(pair)),
        "beam tokens": lambda: beam_tokens(pair, served["float32"].beam(pair, search.beam_width), search),
        "int8": lambda: [_int8(pair, served)],
    }


class Served:
    """A model as CTranslate2 holds it, without a tokenizer: all rows of its tables are compared.

    Args:
        compute_type: of its matrix products.
    """

    def __init__(self, target: Target, compute_type: str) -> None:
        import ctranslate2

        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "served")
            save_ctranslate2(folder, target.model, dict(target.weights))
            self.translator = ctranslate2.Translator(str(folder), device="cpu", compute_type=compute_type)
        self.source_names = token_names(target.model.source_vocab_size)
        self.target_names = token_names(target.model.target_vocab_size)

    def greedy(self, pair: Pair) -> Rows:
        return self._translate(pair, beam_size=1)

    def beam(self, pair: Pair, width: int) -> Rows:
        return self._translate(pair, beam_size=width, length_penalty=1.0)

    def score(self, pair: Pair) -> Float[np.ndarray, " tokens"]:
        """The log-probability of each token of each target, up to its end token."""
        batch = pair.case.batch
        targets = [
            [self.target_names[token] for token in row[1 : length - 1]]
            for row, length in zip(batch.target, batch.target_lengths, strict=True)
            if length
        ]
        found = self.translator.score_batch(self._sources(pair), targets, max_input_length=0)
        return np.concatenate([np.array(result.log_probs, np.float32) for result in found])

    def _sources(self, pair: Pair) -> list[list[str]]:
        return [
            [self.source_names[token] for token in row[:length]]
            for row, length in zip(pair.case.batch.source, pair.case.batch.source_lengths, strict=True)
            if length
        ]

    def _translate(self, pair: Pair, **settings: Any) -> Rows:
        """The tokens of each row that has a source, with the end token where there is one."""
        found = self.translator.translate_batch(
            self._sources(pair),
            max_decoding_length=new_tokens(pair),
            min_decoding_length=0,
            max_input_length=0,  # no limit
            return_end_token=True,
            **settings,
        )
        ids = {name: row for row, name in enumerate(self.target_names)}
        return [[ids[name] for name in result.hypotheses[0]] for result in found]


def _log_probabilities(pair: Pair, served: Served) -> Result:
    """Of the tokens of each target, which shows mistakes that are too small to change what is generated."""
    theirs = served.score(pair)
    figures = {
        side: scaled_ulp(theirs, _of_targets(pair, outcome), pair.dtype) for side, outcome in twins(pair).items()
    }
    floor = scaled_ulp(_of_targets(pair, pair.rounded), _of_targets(pair, pair.exact), "float32")
    return measured("log-probabilities", "cumulative", figures, floor, tolerances.STACK, pair)


def _of_targets(pair: Pair, outcome: Outcome) -> Float[np.ndarray, " tokens"]:
    batch, logits = pair.case.batch, outcome.intermediates["logits"].astype(np.float64)
    relative = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities = relative - np.log(np.exp(relative).sum(axis=-1, keepdims=True))
    of_labels = np.take_along_axis(log_probabilities, batch.target[:, 1:, None], axis=-1)[..., 0]
    return of_labels[np.arange(of_labels.shape[1]) < batch.target_lengths[:, None] - 1]


def _int8(pair: Pair, served: dict[str, Served]) -> Result:
    """How many outputs change when weights and products are rounded to 8 bits."""
    exact, rounded = served["float32"].greedy(pair), served["int8"].greedy(pair)
    differing = np.mean([row != other for row, other in zip(exact, rounded, strict=True)])
    note = f"reported, not judged: {1 - differing:.0%} of {with_source(pair).sum()} outputs are those of float32"
    return Result("int8", "cumulative", float(differing), float("inf"), "share of outputs", note=note)
