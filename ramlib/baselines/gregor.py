"""DRAW as a classifier: one recurrent layer looks and remembers (Gregor et al., 2015).

It is what Semeniuta & Barth set out from, and so it is their model less what they added: no
context, no second layer, one distance for both axes of the grid, no limits on the window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramlib.attention import Window
from ramlib.model import RAMConfig, RecurrentAttentionModel


@dataclass(frozen=True)
class GregorConfig(RAMConfig):
    """A `RAMConfig` whose defaults are DRAW's, with 4 or 8 glimpses."""

    context: bool = False
    window: Window = field(default_factory=Window)
    recurrence: Literal["top-down", "bottom-up", "one-layer"] = "one-layer"
    supervision: Literal["last", "after-first", "all"] = "all"

    def build(self, image_shape: tuple[int, int, int], classes: int) -> GregorModel:
        """The model with fresh weights."""
        return GregorModel(self, image_shape, classes)


class SquareGrid(nn.Linear):
    """A linear map to DRAW's five numbers; the one for the distance serves both axes.

    Eq. 21, Gregor et al. (2015).
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, 5)

    def forward(self, h: Float[Tensor, "B F"]) -> Float[Tensor, "B 6"]:
        """`x`, `y`, the distance twice, `sigma` and `gamma`, before they are brought to scale."""
        x, y, delta, sigma, gamma = super().forward(h).unbind(-1)
        return torch.stack([x, y, delta, delta, sigma, gamma], -1)


class GregorModel(RecurrentAttentionModel):
    """Looks T times through a square grid, then names the class.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.

    Section 4.1, Gregor et al. (2015). Theirs has an LSTM, which sees the glimpse itself, in place
    of a GRU behind a glimpse network, and the class is asked for after the last look only.
    """

    def __init__(
        self, config: GregorConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(config, image_shape, classes)
        square = SquareGrid(config.hidden)
        # The same small weights: every image begins with the same central window.
        with torch.no_grad():
            square.weight.copy_(self.f_ext.linear.weight[:5])
            square.bias.zero_()
        self.f_ext.linear = square
