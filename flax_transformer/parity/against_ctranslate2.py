"""CTranslate2 against the twins: the tokens that it generates from an export for it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flax_transformer.interop.ctranslate2_export import save_ctranslate2, token_names
from flax_transformer.parity.against import Rows, beam_config, beam_tokens, greedy_tokens, new_tokens, with_source
from flax_transformer.parity.checks import Result
from flax_transformer.parity.pair import Pair
from flax_transformer.parity.targets import Target


def checks(target: Target, dtype: str) -> dict[str, Callable[[], list[Result]]]:
    """
    Raises:
        UserError: CTranslate2 has no such model.
    """
    pair = Pair(target.case(dtype))
    served = {kind: Served(target, kind) for kind in ("float32", "int8")}
    search = beam_config(pair, early_stopping=True)
    return {
        "greedy tokens": lambda: greedy_tokens(pair, served["float32"].greedy(pair)),
        "beam tokens": lambda: beam_tokens(pair, served["float32"].beam(pair, search.beam_width), search),
        "int8": lambda: [_int8(pair, served)],
    }


class Served:
    """A model as CTranslate2 holds it.

    Args:
        compute_type: of its matrix products.
    """

    def __init__(self, target: Target, compute_type: str) -> None:
        import ctranslate2

        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "served")
            save_ctranslate2(folder, target.model, dict(target.weights), target.tokenizer)
            self.translator = ctranslate2.Translator(str(folder), device="cpu", compute_type=compute_type)
        self.source_names = token_names(target.model.source_vocab_size, target.tokenizer)
        self.target_ids = {
            name: row for row, name in enumerate(token_names(target.model.target_vocab_size, target.tokenizer))
        }

    def greedy(self, pair: Pair) -> Rows:
        return self._translate(pair, beam_size=1)

    def beam(self, pair: Pair, width: int) -> Rows:
        return self._translate(pair, beam_size=width, length_penalty=1.0)

    def _translate(self, pair: Pair, **settings: Any) -> Rows:
        """The tokens of each row that has a source, with the end token where there is one."""
        batch, limit = pair.case.batch, new_tokens(pair)
        sources = [
            [self.source_names[token] for token in row[:length]]
            for row, length in zip(batch.source, batch.source_lengths, strict=True)
            if length
        ]
        found = self.translator.translate_batch(
            sources,
            max_decoding_length=limit,
            min_decoding_length=0,
            max_input_length=0,  # no limit
            return_end_token=True,
            **settings,
        )
        return [[self.target_ids[name] for name in result.hypotheses[0]] for result in found]


def _int8(pair: Pair, served: dict[str, Served]) -> Result:
    """How many outputs change when weights and products are rounded to 8 bits."""
    exact, rounded = served["float32"].greedy(pair), served["int8"].greedy(pair)
    differing = np.mean([row != other for row, other in zip(exact, rounded, strict=True)])
    note = f"reported, not judged: {1 - differing:.0%} of {with_source(pair).sum()} outputs are those of float32"
    return Result("int8", "cumulative", float(differing), float("inf"), "share of outputs", note=note)
