"""Where healthy ends. Changes of logits are relative to their spread: what moves by 1 moves as much as another input.

Measured on about 100 planted bugs and as many good models: an effect that must not be there is below 4e-15 in float64
where it is not, and above 3e-4 where it is; so the limit need not be fine.
"""

EFFECT = 5e-8  # float64; inputs of one shape, so that rounding is the same too
EFFECT_FLOAT32 = 1e-6
RESHAPED_FLOAT32 = 5e-5  # other shapes are summed in another order
EFFECT_HALF = 2e-2
RESHAPED_HALF = 0.3

SCALE = (0.7, 1.4)  # times sqrt(head_dim)
SHARP_SCORES = 1.5  # standard deviation of scores beyond which a wrong scale saturates the softmax
ENTROPY = 0.6  # over ln(number of keys)
INITIAL_LOSS_WARN, INITIAL_LOSS_ILL = 1.0, 3.0  # above ln V
GRADIENT_WARN, GRADIENT_ILL = 0.1, 0.01  # of the first layer over the last
LOSS_CHANGE = 1e-4  # by padding
ORDER = 0.02  # effect of order over that of content
EMBEDDING_RATIO = (0.1, 40.0)  # tokens over positions, root mean square
BLOCKED = -20.0  # added to a score, this is a mask and no bias
WEAK_MASK = -2.5  # a constant above this is no attempt at a mask of minus infinity
FINITE_MASK = (-1e6, -BLOCKED * 5)


def effect(epsilon: float, same_shape: bool) -> float:
    """The largest relative change of logits that counts as none, in arithmetic of this machine epsilon."""
    if epsilon < 1e-12:
        return EFFECT
    if epsilon < 1e-5:
        return EFFECT_FLOAT32 if same_shape else RESHAPED_FLOAT32
    return EFFECT_HALF if same_shape else RESHAPED_HALF
