"""The policy half of f_ext: a hidden state in, a `GlimpseGrid` out, by one linear map.

What the map may say decides whether the model learns to look at all: where its window starts and
what sizes it may take are parameters here (`Window`), and the book measures them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramlib._checks import require
from ramlib.glimpse import GlimpseGrid, support_of


@dataclass(frozen=True)
class Window:
    """How large the window starts and may become, as fractions of the image's longer side.

    Args:
        start: side of the first window, before anything is learnt.
        smallest: lower limit; None for none.
        largest: upper limit; None for none. Limits come in pairs: both or neither.

    Raises:
        ValueError: unless 0 < smallest < start < largest.

    The upper limit is the paper's remedy for windows that span two digits (Section IV-A). Without
    a lower one, windows may collapse to a point.
    """

    start: float = 0.35
    smallest: float | None = None
    largest: float | None = None

    def __post_init__(self) -> None:
        require(self.start > 0, f"Window: start must be above 0, got {self.start}")
        require(
            (self.smallest is None) == (self.largest is None),
            f"Window: give both limits or neither, got smallest={self.smallest}, "
            f"largest={self.largest}",
        )
        if self.bounded:
            require(
                0 < self.smallest < self.start < self.largest,
                f"Window: 0 < smallest < start < largest must hold, got "
                f"{self.smallest}, {self.start}, {self.largest}",
            )

    @property
    def bounded(self) -> bool:
        """Whether the window's size has limits."""
        return self.largest is not None


def between(
    raw: Tensor, low: float | None, start: float, high: float | None
) -> Float[Tensor, "..."]:
    """A positive quantity that is `start` at `raw` = 0 and stays between `low` and `high`.

    On a logarithmic scale it is a sigmoid of `raw`, or `raw` itself where there are no limits.
    """
    if low is None or high is None:
        return start * raw.exp()
    share = math.log(start / low) / math.log(high / low)
    return low * (high / low) ** torch.sigmoid(raw + math.log(share / (1 - share)))


# sigma as a multiple of the mean delta: 1/2 makes neighbouring filters overlap without gaps.
SHARPNESS = (0.25, 0.5, 1.0)
# sigma never falls below this many pixels, so that a filter sees more than one of them.
SIGMA_FLOOR = 0.3
GAMMA = (1 / 4, 1.0, 4.0)


class AttentionPolicy(nn.Module):
    """Linear map from `h2` to the six parameters of the grid.

    Args:
        features: size of `h2`.
        size: N, filters along an axis.
        image_size: `(H, W)` of what is looked at.
        window: start and limits of the window.
        relative: regress shifts that are added to the previous centre, instead of centres.
        alpha: half-width of the uniform noise on the grid's centre and distances; 0 for none.
        gradient_limit: largest norm of the gradient that one look of one image may send back to
            the six numbers; None for any. A narrow window in a wrong place has a steep loss: in
            training on pairs, one look in a hundred holds most of the gradient's energy. The limit
            leaves the gradient's direction and bounds its magnitude.

    Section III (grid), IV-A (relative shifts, limit) and IV-B (noise), Semeniuta & Barth (2016).
    Eqs. 21 and 24, Gregor et al. (2015), with a distance for each axis.
    """

    def __init__(
        self,
        features: int,
        size: int,
        image_size: tuple[int, int],
        window: Window = Window(),
        *,
        relative: bool = False,
        alpha: float = 0.0,
        gradient_limit: float | None = None,
    ) -> None:
        super().__init__()
        require(size >= 2, f"AttentionPolicy: size must be at least 2, got {size}")
        require(alpha >= 0, f"AttentionPolicy: alpha must be at least 0, got {alpha}")
        require(
            gradient_limit is None or gradient_limit > 0,
            f"AttentionPolicy: gradient_limit must be above 0 or None, got {gradient_limit}",
        )
        self.size, self.image_size, self.window = size, image_size, window
        self.relative, self.alpha, self.gradient_limit = relative, alpha, gradient_limit
        # DRAW: a window as wide as the image has delta = (max(A, B) - 1) / (N - 1).
        self.full_delta = (max(image_size) - 1) / (size - 1)
        self.linear = nn.Linear(features, 6)
        # Small weights and no bias: every image begins with the same central window.
        nn.init.normal_(self.linear.weight, std=0.1 / math.sqrt(features))
        nn.init.zeros_(self.linear.bias)

    @property
    def support(self) -> int | None:
        """Pixels along a side that the largest window's filters can reach; None without limits."""
        if not self.window.bounded:
            return None
        delta = self.window.largest * self.full_delta * (1 + self.alpha)
        return support_of(self.size, delta, SHARPNESS[2] * delta + SIGMA_FLOOR)

    def forward(
        self, h2: Float[Tensor, "B F"], previous: GlimpseGrid | None = None, *, noisy: bool = False
    ) -> tuple[GlimpseGrid, Float[Tensor, "B 2"]]:
        """The next grid, and by how much its centre moved.

        Args:
            h2: hidden state of the second recurrent layer.
            previous: the last grid; None at the first step, which shifts from the middle.
            noisy: corrupt the grid with noise of half-width `alpha`.

        Returns:
            The grid, of shape `(B,)`, and the shift `(delta c_x, delta c_y)` from the last centre.
        """
        # In mixed precision too: eight bits of mantissa would place a grid to a tenth of a pixel.
        with torch.autocast(h2.device.type, enabled=False):
            raw = self.linear(h2.to(self.linear.weight.dtype))
        if self.gradient_limit is not None and raw.requires_grad:
            raw.register_hook(self._limited)
        raw_x, raw_y, raw_dx, raw_dy, raw_sigma, raw_gamma = raw.unbind(-1)
        origin = torch.zeros_like(raw_x)
        last_x, last_y = (origin, origin) if previous is None else (previous.c_x, previous.c_y)
        if self.relative:
            # The shift may cross the image, and the centre stays on it.
            c_x = (last_x + 2 * torch.tanh(raw_x)).clamp(-1, 1)
            c_y = (last_y + 2 * torch.tanh(raw_y)).clamp(-1, 1)
        else:
            c_x, c_y = torch.tanh(raw_x), torch.tanh(raw_y)
        w = self.window
        delta_x = self.full_delta * between(raw_dx, w.smallest, w.start, w.largest)
        delta_y = self.full_delta * between(raw_dy, w.smallest, w.start, w.largest)
        shift = torch.stack([c_x - last_x, c_y - last_y], -1)
        if noisy and self.alpha > 0:
            n = torch.empty(4, *c_x.shape, device=c_x.device, dtype=c_x.dtype)
            n = n.uniform_(-self.alpha, self.alpha)
            c_x, c_y = (c_x + n[0]).clamp(-1, 1), (c_y + n[1]).clamp(-1, 1)
            delta_x, delta_y = delta_x * (1 + n[2]), delta_y * (1 + n[3])
        sigma = between(raw_sigma, *SHARPNESS) * (delta_x * delta_y).sqrt() + SIGMA_FLOOR
        gamma = between(raw_gamma, *GAMMA)
        return GlimpseGrid(c_x, c_y, delta_x, delta_y, sigma, gamma), shift

    def _limited(self, gradient: Float[Tensor, "B 6"]) -> Float[Tensor, "B 6"]:
        """A batch's mean loss sends each image its gradient divided by the size of the batch."""
        largest = self.gradient_limit / len(gradient)
        norm = gradient.norm(dim=-1, keepdim=True)
        return gradient * (largest / norm.clamp(min=largest))


def shift_penalty(
    shift: Float[Tensor, "B 2"], a: float = 0.1, b: float = 0.1
) -> Float[Tensor, " B"]:
    """`a exp(-(dc_x^2 + dc_y^2) / b)`: high where the centre stays, low where it moves away.

    Args:
        shift: how far the centre moved, in units of half the image.
        a: height of the penalty.
        b: its squared width.

    Eq. 5, Semeniuta & Barth (2016), who set a = b = 0.1.
    """
    return a * torch.exp(-shift.square().sum(-1) / b)
