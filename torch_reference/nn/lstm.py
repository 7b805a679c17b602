"""A recurrent layer in the place of self-attention: long short-term memory (Hochreiter and Schmidhuber, 1997).

The gates are those of torch.nn.LSTM. Tokens are read one after the other, so that time is linear in the length, and a
further token costs the same at any place.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from flax_transformer.config import ModelConfig
from flax_transformer.intermediates import record
from torch_reference.dtypes import compute_dtype
from torch_reference.nn.linear import Linear
from torch_reference.nn.masks import AttentionMask, padding_mask


class LSTMState(NamedTuple):
    """What is kept of all tokens read so far, in at least float32."""

    hidden: Float[Tensor, "batch width"]
    cell: Float[Tensor, "batch width"]


def lstm_cell(gates: Float[Tensor, "batch gates"], cell: Float[Tensor, "batch width"]) -> LSTMState:
    """``c' = sigmoid(f) c + sigmoid(i) tanh(g)`` and ``h' = sigmoid(o) tanh(c')``, as torch.nn.LSTM has it.

    Args:
        gates: i, f, g and o before their activations, one behind the other, (batch, 4 width).
        cell: c, (batch, width).
    """
    enter, forget, candidate, leave = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
    return LSTMState(torch.sigmoid(leave) * torch.tanh(cell), cell)


class LSTMDirection(nn.Module):
    """``gates = W_x x + W_h h + b``: one reading of a sequence.

    torch.nn.LSTM has two biases, of which only the sum matters; ``b`` is that sum. Weights are drawn as those of any
    linear map.

    Args:
        config: gives d_model, dtypes, bias and initialization.
        width: of the hidden state.
        reverse: read from the last real token of each row to the first, as torch.nn.LSTM reads packed sequences.
    """

    def __init__(self, config: ModelConfig, width: int, *, reverse: bool) -> None:
        super().__init__()
        self.config, self.width, self.reverse = config, width, reverse
        self.input_proj = Linear(config.d_model, 4 * width, config)
        self.recurrent_proj = Linear(width, 4 * width, replace(config, bias=False))

    def forward(
        self,
        x: Float[Tensor, "batch length d_model"],
        lengths: Int[Tensor, " batch"] | None = None,
        state: LSTMState | None = None,
    ) -> tuple[Float[Tensor, "batch length width"], LSTMState]:
        """
        Args:
            x: a sequence, or its next tokens, (batch, length, d_model).
            lengths: real tokens of each row, (batch,); None if all are real.
            state: behind the tokens that were read before; zeros if not given.

        Returns:
            The hidden state at each real token, zeros at the others, (batch, length, width) in at least float32; and
            the state behind the last real token.

        Example:
            >>> direction = LSTMDirection(ModelConfig(d_model=8), 4, reverse=False)
            >>> direction(torch.ones(2, 5, 8))[0].shape
            torch.Size([2, 5, 4])
        """
        state = self.empty_state(x.shape[0]) if state is None else state
        gates = self.input_proj(x).to(state.hidden.dtype)
        real = None if lengths is None else padding_mask(lengths, x.shape[1])
        places = range(x.shape[1])
        hidden = [state.hidden] * len(places)
        for place in reversed(places) if self.reverse else places:
            recurrent = self.recurrent_proj(state.hidden).to(gates.dtype)
            new = lstm_cell(gates[:, place] + recurrent, state.cell)
            state = _unless_padding(None if real is None else real[:, place], new, state)
            hidden[place] = state.hidden
        outputs = torch.stack(hidden, dim=1)
        return (outputs if real is None else torch.where(real[:, :, None], outputs, 0)), state

    def empty_state(self, batch: int) -> LSTMState:
        """Zeros, in at least float32."""
        dtype = torch.promote_types(compute_dtype(self.config), torch.float32)
        zeros = torch.zeros(batch, self.width, dtype=dtype, device=self.input_proj.weight.device)
        return LSTMState(zeros, zeros)


def _unless_padding(is_real: Bool[Tensor, " batch"] | None, new: LSTMState, old: LSTMState) -> LSTMState:
    if is_real is None:
        return new
    return LSTMState(*(torch.where(is_real[:, None], *pair) for pair in zip(new, old, strict=True)))


class LSTM(nn.Module):
    """One reading from left to right; in an encoder a second one from right to left, each of half the width.

    Args:
        config: of the model.
        two_sided: read both ways.
    """

    def __init__(self, config: ModelConfig, *, two_sided: bool) -> None:
        super().__init__()
        self.config = config
        width = config.d_model // 2 if two_sided else config.d_model
        self.left_to_right = LSTMDirection(config, width, reverse=False)
        self.right_to_left = LSTMDirection(config, width, reverse=True) if two_sided else None

    def mix(
        self, x: Float[Tensor, "batch length d_model"], mask: AttentionMask, cache: LSTMState | None = None
    ) -> tuple[Float[Tensor, "batch length d_model"], LSTMState]:
        """
        Args:
            x: a sequence, or its next tokens, (batch, length, d_model).
            mask: key lengths; causality follows from the direction.
            cache: the state behind the tokens before ``x``.

        Returns:
            The hidden states, (batch, length, d_model), and the state behind the last token.

        Example:
            >>> lstm = LSTM(ModelConfig(d_model=8, mixer="lstm"), two_sided=True)
            >>> lstm.mix(torch.ones(2, 5, 8), AttentionMask())[0].shape
            torch.Size([2, 5, 8])
        """
        states, end = self.left_to_right(x, mask.key_lengths, cache)
        if self.right_to_left is not None:
            states = torch.cat([states, self.right_to_left(x, mask.key_lengths)[0]], dim=-1)
        return record(self, "states", states.to(compute_dtype(self.config))), end

    def empty_cache(self, batch: int, length: int) -> LSTMState:
        """The state before the first token; ``length``, for which other caches need room, is no matter."""
        return self.left_to_right.empty_state(batch)
