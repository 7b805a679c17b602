"""How tokens are generated, and what a model is held to when it predicts."""

import math
from dataclasses import dataclass
from typing import Literal

from flax_transformer.config.checks import check, check_choices, check_finite, check_whole, make_tuples

Strategy = Literal["greedy", "sample", "beam"]
LengthPenalty = Literal["gnmt", "mean"]
Long = Literal["auto", "cut", "skip", "error"]


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are chosen, one after the other.

    Example:
        >>> GenerationConfig(max_new_tokens=32, strategy="beam", beam_width=5).beam_width
        5
    """

    # most tokens to generate, the end token included
    max_new_tokens: int = 256
    # fewest tokens before the end token
    min_new_tokens: int = 0
    # greedy: the most probable token each time; sample: drawn by chance; beam: search for the most probable output
    strategy: Strategy = "greedy"
    # token ids that every output begins with; they count as generated
    prefix: tuple[int, ...] = ()
    # above 1, tokens that the output already holds are less probable (CTRL: Keskar et al., 2019, section 4.1)
    repetition_penalty: float = 1.0
    # of sample: below 1 more probable tokens are drawn more often, above 1 less
    temperature: float = 1.0
    # of sample: draw among this many of the most probable tokens (Fan et al., 2018); 0 for all
    top_k: int = 0
    # of sample: draw among the fewest tokens that have this much probability together (Holtzman et al., 2020)
    top_p: float = 1.0
    # of sample
    seed: int = 0
    # of beam: outputs that are pursued at a time
    beam_width: int = 4
    # of beam: what log-probabilities of outputs of n tokens are divided by, gnmt: ((5 + n) / 6)^alpha (Wu et al., 2016,
    # section 7); mean: n^alpha
    length_penalty: LengthPenalty = "gnmt"
    # of beam: alpha of the length penalty; 0 compares plain log-probabilities
    length_alpha: float = 0.6
    # of beam: True ends with beam_width complete outputs, False once no output under way can still come out ahead
    early_stopping: bool = True
    # of beam: outputs returned for each source, the best first
    n_best: int = 1
    # only ids below this one are generated: those that the tokenizer has a token for, where the model's table has more
    # rows; all if not given
    num_tokens: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        check_whole(
            self, "max_new_tokens", "beam_width", "n_best", *(() if self.num_tokens is None else ("num_tokens",))
        )
        check_whole(self, "min_new_tokens", "top_k", "seed", at_least=0)
        limit = f"max_new_tokens={self.max_new_tokens}"
        check(self, "min_new_tokens", f"at most {limit}", self.min_new_tokens <= self.max_new_tokens)
        fits = isinstance(self.prefix, tuple) and len(self.prefix) < self.max_new_tokens
        check(self, "prefix", f"a tuple of fewer token ids than {limit}", fits)
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            check(self, name, "a finite number above 0", math.isfinite(value) and value > 0)
        check(self, "top_p", "a number in (0, 1]", 0 < self.top_p <= 1)
        check_finite(self, "length_alpha")
        most = self.beam_width if self.strategy == "beam" else 1
        check(self, "n_best", f"at most {most} with strategy={self.strategy!r}", self.n_best <= most)


@dataclass(frozen=True)
class PredictionConfig:
    """What a model is held to when it predicts. A run and its export share it, so that they predict the same."""

    # longest source, in tokens
    max_source_length: int
    # most tokens to generate, the end token included
    max_new_tokens: int
    # texts at a time, which moves the last digits of scores
    batch_size: int = 64
    # what becomes of longer texts, see BatchConfig
    long: Long = "auto"
    # what the model was trained on, which may know the JSON schema of its outputs; empty if unknown
    task: str = ""
    # column of a table to read texts from, where the command names none; two where the model reads pairs of texts
    text_column: tuple[str, ...] = ("text",)
    # take numbers in these columns for texts, as they are written
    numbers_as_text: bool = False
    # of the tokenizer.json, the special_tokens.json and the classes.json that belong to the weights; empty if unknown,
    # or if there is none
    tokenizer_sha256: str = ""
    special_tokens_sha256: str = ""
    classes_sha256: str = ""
    # where a text may have several labels: the probability from which on it has one, for each in order; empty where a
    # text has one class
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        check_whole(self, "max_source_length", "max_new_tokens", "batch_size")
        make_tuples(self, "text_column")
        check(self, "thresholds", "probabilities, in [0, 1]", all(0 <= value <= 1 for value in self.thresholds))
