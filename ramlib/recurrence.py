"""The recurrent core: who remembers, who looks, and in which order they are computed.

`h1` gathers what was seen and feeds the classifier; `h2` only decides where to look. The paper
computes `h2` first (top-down), so that the context, which enters at `h2`, can move the very first
glimpse. The other two orders here are the ones the paper argues against, kept for the ablation.

Each recurrence has three moves: `begin` from the context, `look` before a glimpse, `see` after it.
A hidden state of zeros is written None, so that nothing is multiplied by it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require


class GatedRecurrentUnit(nn.Module):
    """A GRU cell whose input is projected apart, so that a constant input is projected once.

    Args:
        inputs: size of the input.
        hidden: size of the state.
        dropout: probability with which an entry of the candidate state is dropped. Only what is
            new is dropped, never the memory.

    Cho et al. (2014); dropout from Semeniuta, Severyn & Barth (2016).
    """

    def __init__(self, inputs: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        require(0 <= dropout < 1, f"GatedRecurrentUnit: dropout must be in [0, 1), got {dropout}")
        self.hidden, self.dropout = hidden, dropout
        self.from_input = nn.Linear(inputs, 3 * hidden)
        self.from_state = nn.Linear(hidden, 3 * hidden)
        nn.init.orthogonal_(self.from_state.weight)

    def forward(
        self, projected: Float[Tensor, "B gates"], state: Float[Tensor, "B H"] | None
    ) -> Float[Tensor, "B H"]:
        """The next state.

        Args:
            projected: `from_input(x)`, or a sum of such projections; gates = 3 H.
            state: the last state; None for zeros.
        """
        recalled = self.from_state.bias if state is None else self.from_state(state)
        reset_in, update_in, new_in = projected.chunk(3, -1)
        reset_h, update_h, new_h = recalled.chunk(3, -1)
        reset = torch.sigmoid(reset_in + reset_h)
        keep = torch.sigmoid(update_in + update_h)
        candidate = torch.tanh(new_in + reset * new_h)
        candidate = F.dropout(candidate, self.dropout, self.training)
        # (1 - keep) * candidate + keep * state
        if state is None:
            return candidate - keep * candidate
        return candidate + keep * (state - candidate)


@dataclass(frozen=True)
class State:
    """What the recurrence carries: both layers, and the context's share of `h2`'s gates."""

    h1: Float[Tensor, "B H"] | None
    h2: Float[Tensor, "B H"] | None
    clue: Float[Tensor, "B gates"]

    def first(self, n: int) -> State:
        """The state of the first `n` images."""
        layers = (None if layer is None else layer[:n] for layer in (self.h1, self.h2))
        return State(*layers, self.clue[:n])


class TopDownRecurrence(nn.Module):
    """Two layers, `h2` before `h1`.

    Args:
        features: size of the glimpse features.
        context: size of the context features; 0 for a model without context.
        hidden: size of each state.
        dropout: recurrent dropout, on both layers.

    Eqs. 1 and 3, Semeniuta & Barth (2016).
    """

    def __init__(self, features: int, context: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer1 = GatedRecurrentUnit(features, hidden, dropout)
        self.layer2 = GatedRecurrentUnit(hidden, hidden, dropout)
        self.from_context = nn.Linear(context, 3 * hidden, bias=False) if context else None

    def begin(self, context: Float[Tensor, "B X"] | None, batch: int) -> State:
        """The state before the first look: zeros, and the context projected once for all looks."""
        if self.from_context is None:
            gates = self.layer2.from_input.bias
            return State(None, None, gates.new_zeros(batch, gates.numel()))
        return State(None, None, self.from_context(context))

    def look(self, state: State) -> State:
        """Eq. 1: move `h2`, which decides the next glimpse."""
        seen = self.layer2.from_input
        projected = seen.bias if state.h1 is None else seen(state.h1)
        return replace(state, h2=self.layer2(projected + state.clue, state.h2))

    def see(self, state: State, features: Float[Tensor, "B F"]) -> State:
        """Eq. 3: move `h1` by what the glimpse showed."""
        return replace(state, h1=self.layer1(self.layer1.from_input(features), state.h1))


class BottomUpRecurrence(TopDownRecurrence):
    """Two layers, `h1` before `h2`: the usual order, whose first glimpse knows nothing."""

    def look(self, state: State) -> State:
        """Look where the last step left `h2`; the first time, at zeros."""
        if state.h2 is not None:
            return state
        return replace(state, h2=state.clue.new_zeros(state.clue.shape[0], self.layer2.hidden))

    def see(self, state: State, features: Float[Tensor, "B F"]) -> State:
        """Move `h1`, then let `h2` follow it."""
        return TopDownRecurrence.look(self, super().see(state, features))


class OneLayerRecurrence(nn.Module):
    """One state for memory and attention; the paper met exploding gradients with it.

    The context enters beside the glimpse features. `h1` and `h2` are the same tensor.
    """

    def __init__(self, features: int, context: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = GatedRecurrentUnit(features, hidden, dropout)
        self.from_context = nn.Linear(context, 3 * hidden, bias=False) if context else None

    def begin(self, context: Float[Tensor, "B X"] | None, batch: int) -> State:
        """A state of zeros; the context's share of the gates is projected once."""
        bias = self.layer.from_input.bias
        clue = (
            bias.new_zeros(batch, bias.numel())
            if self.from_context is None
            else self.from_context(context)
        )
        zeros = bias.new_zeros(batch, self.layer.hidden)
        return State(zeros, zeros, clue)

    def look(self, state: State) -> State:
        """Look where the one state says."""
        return state

    def see(self, state: State, features: Float[Tensor, "B F"]) -> State:
        """Move the one state by what the glimpse showed."""
        moved = self.layer(self.layer.from_input(features) + state.clue, state.h1)
        return replace(state, h1=moved, h2=moved)


RECURRENCES = {
    "top-down": TopDownRecurrence,
    "bottom-up": BottomUpRecurrence,
    "one-layer": OneLayerRecurrence,
}
