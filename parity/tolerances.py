"""What two honest implementations may differ by: derived on the spot from a noise floor, under a measured ceiling.

The floor of a quantity is the largest of what one implementation differs by from itself: in float32 from its own
float64 run (its rounding error), with the rows of the batch in another order, and compiled from uncompiled. In scaled
ULP it does not depend on the dtype, so the float64 tier, which has nothing above it to be measured against, takes the
float32 floor.

By the triangle, ``|T - J| <= |T - exact| + |J - exact|``; the other side's rounding error is taken to be like the one
measured, and both are allowed twice their size: four floors in all, but never more than the ceiling, which is what was
measured once on each size of model. Where a sum cancels, the floor of one side alone nears the ceiling. No one can ask
more of two implementations than of one, so there three floors are the ceiling: one side's rounding error and twice as
much of the other's (of gradients on tiny batches, JAX's error was seen at 12 to 16 where PyTorch's was 5 to 9).
"""

from dataclasses import dataclass

from flax_transformer.config import ModelConfig


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
# bfloat16 rounds at the same places on both sides, so here the ceiling alone decides.
BFLOAT16 = Ceiling(2, 2)
# Absolute difference of parameters after free-running training with a smooth activation: in float32 of 99.9% of them,
# in float64 of all. Beyond 100 steps in float32 there is no ceiling: the trajectory is chaotic.
FREE_STEPS = {("float32", 100): 2e-7, ("float64", 100): 1e-13, ("float64", 1000): 1e-11}


def tolerance(floor: float, ceiling: float) -> float:
    """Four floors (of at least one ULP each), but at most the ceiling or, if that is more, three floors."""
    return min(4 * max(floor, 1.0), lifted(ceiling, floor))


def lifted(ceiling: float, floor: float) -> float:
    """The ceiling, or three floors where that is more."""
    return max(ceiling, 3 * floor)
