"""A closer look: after a read, once more at the same place, through more filters.

Digits that lie on each other are one object: no hole that is cut into the canvas parts them. And
two digits are too much for the grid of an ordinary look. The closer look's grid is wider and finer,
and what it sees may be put in more words: the ten digits, and the 55 pairs that may make a heap.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramlib._checks import require
from ramlib.glimpse import GlimpseGrid, read_glimpse, support_of
from ramlib.model import EYES, Look
from ramlib.networks import ClassificationNetwork, ConvGlimpseNetwork


class CloserLook(nn.Module):
    """Looks once more where a read ended, and scores words by what it sees and what is remembered.

    Args:
        image_shape: `(C, H, W)`.
        size: N, side of the closer look; at least 2.
        hidden: size of the read's memory `h1`.
        words: how many there are to score.
        side: of its window, as a fraction of the image's longer side. At 0.4 it holds a heap of two
            digits of 28 pixels on a canvas of 100.

    Raises:
        ValueError: if `size` is below 2 or `side` is not above 0.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        size: int,
        hidden: int,
        words: int,
        *,
        side: float = 0.4,
    ) -> None:
        super().__init__()
        require(size >= 2, f"CloserLook: size must be at least 2, got {size}")
        require(side > 0, f"CloserLook: side must be above 0, got {side}")
        channels, *image_size = image_shape
        self.size = size
        self.delta = side * (max(image_size) - 1) / (size - 1)
        # Neighbouring filters overlap without gaps.
        self.sigma = self.delta / 2
        self.f_glimpse = ConvGlimpseNetwork(channels, size, hidden, EYES["conv-3"])
        self.f_class = ClassificationNetwork(2 * hidden, words)

    def grid(self, last: GlimpseGrid) -> GlimpseGrid:
        """The closer look's grid: the centre of the last look, and a window of fixed size."""
        delta, sigma, gamma = (
            torch.full_like(last.c_x, value) for value in (self.delta, self.sigma, 1.0)
        )
        return GlimpseGrid(last.c_x, last.c_y, delta, delta, sigma, gamma)

    def forward(self, images: Float[Tensor, "B C H W"], last: Look) -> Float[Tensor, "B words"]:
        """Scores of the words.

        Args:
            images: what the read saw, preprocessed.
            last: the read's last look.
        """
        support = support_of(self.size, self.delta, self.sigma)
        seen = read_glimpse(images, self.grid(last.grid), self.size, support=support)
        features = self.f_glimpse(seen)
        return self.f_class(torch.cat([last.state.h1.to(features.dtype), features], -1))
