"""What a mutant is: one line of one twin is changed, and it names the check that is to notice it.

Those of the files ``mutants_*`` are the traps that people fall into when they port a Transformer between frameworks. A
suite that misses one of them would let it through in earnest.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from mutation import mutated

from flax_transformer.config import ModelConfig
from flax_transformer.parity.cases import Case, Sizes, make_case
from flax_transformer.parity.checks import Result, check_suite
from flax_transformer.parity.pair import Pair

TINY = ModelConfig(
    d_model=16,
    num_heads=2,
    d_ff=32,
    num_encoder_layers=1,
    num_decoder_layers=1,
    source_vocab_size=31,
    target_vocab_size=31,
    max_length=16,
)
# What a mutant needs beyond the tiny default model for its mistake to be able to show.
ROPE = {"positions": "rope"}
RELU = {"activation": "relu", "norm_first": False}
UNTIED = {"tie_embeddings": "none", "positions": "learned", "num_encoder_layers": 2}
CLASSIFIER = {"architecture": "classifier"}
MASKED = {"architecture": "masked"}


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Args:
        name: what is wrong, in a few words.
        file: the module it is planted in, which also says on which side.
        old: stands exactly once in that file.
        new: what takes its place.
        check: must notice it.
        model: fields of the tiny model that differ from its defaults.
        training: fields of the training config.
        dtype: the precision in which it is to be noticed.
    """

    name: str
    file: str
    old: str
    new: str
    check: str
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"

    @property
    def side(self) -> str:
        return "flax" if self.file.startswith("flax_transformer") else "torch"

    def case(self, seed: int = 0) -> Case:
        param_dtype = "float64" if self.dtype == "float64" else "float32"
        model = dataclasses.replace(TINY, **self.model, dtype=self.dtype, param_dtype=param_dtype)
        return make_case(model, seed, Sizes(rows=4, source=7, target=6), **self.training)


def measure(mutant: Mutant, clean: Pair) -> list[Result]:
    """What the mutant's check says of it. ``clean``, the unharmed pair of the mutant's case, gives the noise floors."""
    pair = clean.before_a_change_of(mutant.side)
    with mutated(mutant.file, mutant.old, mutant.new):
        return check_suite(pair)[mutant.check](pair)
