"""A recurrent layer in the place of self-attention: long short-term memory (Hochreiter and Schmidhuber, 1997).

The gates are those of torch.nn.LSTM. Tokens are read one after the other, so that time is linear in the length, and a
further token costs the same at any place.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flax_transformer.config import ModelConfig
from flax_transformer.distributed.mesh import constrain
from flax_transformer.intermediates import record
from flax_transformer.nn.kernels.matmul import matmul
from flax_transformer.nn.linear import Linear
from flax_transformer.nn.masks import AttentionMask, padding_mask


class LSTMState(NamedTuple):
    """What is kept of all tokens read so far, in at least float32."""

    hidden: Float[Array, "batch width"]
    cell: Float[Array, "batch width"]


def lstm_cell(gates: Float[Array, "batch gates"], cell: Float[Array, "batch width"]) -> LSTMState:
    """``c' = sigmoid(f) c + sigmoid(i) tanh(g)`` and ``h' = sigmoid(o) tanh(c')``, as torch.nn.LSTM has it.

    Args:
        gates: i, f, g and o before their activations, one behind the other, (batch, 4 width).
        cell: c, (batch, width).
    """
    enter, forget, candidate, leave = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
    return LSTMState(jax.nn.sigmoid(leave) * jnp.tanh(cell), cell)


class LSTMDirection(nnx.Module):
    """``gates = W_x x + W_h h + b``: one reading of a sequence.

    torch.nn.LSTM has two biases, of which only the sum matters; ``b`` is that sum. Weights are drawn as those of any
    linear map.

    Args:
        config: gives d_model, dtypes, bias and initialization.
        width: of the hidden state.
        reverse: read from the last real token of each row to the first, as torch.nn.LSTM reads packed sequences.
    """

    def __init__(self, config: ModelConfig, width: int, *, reverse: bool, rngs: nnx.Rngs) -> None:
        self.config, self.width, self.reverse = config, width, reverse
        self.input_proj = Linear(config.d_model, 4 * width, config, axes=("embed", None), rngs=rngs)
        self.recurrent_proj = Linear(width, 4 * width, replace(config, bias=False), axes=("embed", None), rngs=rngs)

    @jax.named_scope("lstm")
    def __call__(
        self,
        x: Float[Array, "batch length d_model"],
        lengths: Int[Array, " batch"] | None = None,
        state: LSTMState | None = None,
    ) -> tuple[Float[Array, "batch length width"], LSTMState]:
        """
        Args:
            x: a sequence, or its next tokens, (batch, length, d_model).
            lengths: real tokens of each row, (batch,); None if all are real.
            state: behind the tokens that were read before; zeros if not given.

        Returns:
            The hidden state at each real token, zeros at the others, (batch, length, width) in at least float32; and
            the state behind the last real token.

        Example:
            >>> direction = LSTMDirection(ModelConfig(d_model=8), 4, reverse=False, rngs=nnx.Rngs(0))
            >>> direction(jnp.ones((2, 5, 8)))[0].shape
            (2, 5, 4)
        """
        # Whole on each device before the loop, which would otherwise gather it for every token.
        kernel = constrain(self.recurrent_proj.kernel[...].astype(jnp.dtype(self.config.dtype)), None, None)
        start = self.empty_state(x.shape[0]) if state is None else state
        gates = self.input_proj(x).astype(start.hidden.dtype)
        real = None if lengths is None else padding_mask(lengths, x.shape[1])

        def read(state: LSTMState, token: tuple[Array, Array | None]) -> tuple[LSTMState, Array]:
            gates, is_real = token
            gates = gates + matmul(state.hidden.astype(kernel.dtype), kernel).astype(gates.dtype)
            state = _unless_padding(is_real, lstm_cell(gates, state.cell), state)
            return state, state.hidden

        by_token = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), (gates, real))
        end, hidden = jax.lax.scan(read, start, by_token, reverse=self.reverse)
        hidden = jnp.swapaxes(hidden, 0, 1)
        return (hidden if real is None else jnp.where(real[:, :, None], hidden, 0)), end

    def empty_state(self, batch: int) -> LSTMState:
        """Zeros, in at least float32."""
        zeros = jnp.zeros((batch, self.width), jnp.promote_types(self.config.dtype, jnp.float32))
        return LSTMState(zeros, zeros)


def _unless_padding(is_real: Bool[Array, " batch"] | None, new: LSTMState, old: LSTMState) -> LSTMState:
    if is_real is None:
        return new
    return LSTMState(*(jnp.where(is_real[:, None], *pair) for pair in zip(new, old, strict=True)))


class LSTM(nnx.Module):
    """One reading from left to right; in an encoder a second one from right to left, each of half the width.

    Args:
        config: of the model.
        two_sided: read both ways.
    """

    def __init__(self, config: ModelConfig, *, two_sided: bool, rngs: nnx.Rngs) -> None:
        self.config = config
        width = config.d_model // 2 if two_sided else config.d_model
        self.left_to_right = LSTMDirection(config, width, reverse=False, rngs=rngs)
        self.right_to_left = LSTMDirection(config, width, reverse=True, rngs=rngs) if two_sided else None

    def mix(
        self,
        x: Float[Array, "batch length d_model"],
        mask: AttentionMask,
        rngs: nnx.Rngs | None = None,
        cache: LSTMState | None = None,
    ) -> tuple[Float[Array, "batch length d_model"], LSTMState]:
        """
        Args:
            x: a sequence, or its next tokens, (batch, length, d_model).
            mask: key lengths; causality follows from the direction.
            rngs: not needed, since there are no weights to be dropped.
            cache: the state behind the tokens before ``x``.

        Returns:
            The hidden states, (batch, length, d_model), and the state behind the last token.

        Example:
            >>> lstm = LSTM(ModelConfig(d_model=8, mixer="lstm"), two_sided=True, rngs=nnx.Rngs(0))
            >>> lstm.mix(jnp.ones((2, 5, 8)), AttentionMask())[0].shape
            (2, 5, 8)
        """
        states, end = self.left_to_right(x, mask.key_lengths, cache)
        if self.right_to_left is not None:
            states = jnp.concatenate([states, self.right_to_left(x, mask.key_lengths)[0]], axis=-1)
        return record(self, "states", states.astype(jnp.dtype(self.config.dtype))), end

    def empty_cache(self, batch: int, length: int) -> LSTMState:
        """The state before the first token; ``length``, for which other caches need room, is no matter."""
        return self.left_to_right.empty_state(batch)
