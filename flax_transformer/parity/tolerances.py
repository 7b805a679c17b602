"""What two honest implementations may differ by: derived on the spot from a noise floor, under a measured ceiling.

The floor of a quantity is the largest of what one implementation differs by from itself: from its own float64 run (its
rounding error), with the rows of the batch in another order, and compiled from uncompiled. In scaled ULP the rounding
error hardly depends on the dtype, so float64, which has nothing above it to be measured against, takes that of
float32.

By the triangle, ``|T - J| <= |T - exact| + |J - exact|``. The floor is the first term; the second was measured at up
to 2.8 times the first (matrix products of XLA's CPU backend against MKL's), and is taken to be three times as large.
That makes four floors in all, but no more than the ceiling, which was measured once on each size of model. Only a
tensor whose own four floors lie above the ceiling, because its sums cancel, is held to those: no one can ask more of
two implementations than of one.

bfloat16 and float16 round at the same places on both sides. There two ULP are the ceiling, and two floors where that is
more.
"""

from dataclasses import dataclass

from flax_transformer.config import ModelConfig
from flax_transformer.parity.measure import HALF


@dataclass(frozen=True)
class Ceiling:
    """In scaled ULP, for models up to 2+2 layers of width 128, and for larger ones up to 6+6 of width 512."""

    small: float
    large: float

    def of(self, model: ModelConfig) -> float:
        decoder_layers = model.num_decoder_layers if model.architecture == "seq2seq" else 0
        is_small = model.num_encoder_layers + decoder_layers <= 4 and model.d_model <= 128 and model.d_ff <= 512
        return self.small if is_small else self.large


OPERATION = Ceiling(8, 8)
STACK = Ceiling(8, 16)
LOSS = Ceiling(4, 4)
GRADIENT = {"float32": Ceiling(16, 32), "float64": Ceiling(24, 32)}
DROPOUT_GRADIENT = Ceiling(16, 32)
HALF_PRECISION = 2.0
# Absolute difference of 99.9% of the parameters after training on their own in float32, with a smooth activation. For
# more steps there is no ceiling: the trajectory is chaotic. In float64 the sum of the steps' bounds is the tolerance.
FREE_STEPS, LONGEST_FREE_RUN = 2e-7, 100


def tolerance(floor: float, ceiling: float, own_floor: float, dtype: str) -> float:
    """Four floors (of at least one ULP each), but at most the ceiling or, if that is more, four of the tensor's own.

    Args:
        floor: the largest among the tensors of a check.
        own_floor: of the tensor that is judged.
    """
    highest = lifted(ceiling, own_floor, dtype)
    return highest if dtype in HALF else min(4 * max(floor, 1.0), highest)


def lifted(ceiling: float, own_floor: float, dtype: str) -> float:
    """The ceiling, or four floors where that is more; in half precision its own ceiling, or two floors."""
    return max(HALF_PRECISION, 2 * own_floor) if dtype in HALF else max(ceiling, 4 * own_floor)
