"""Cluttered digits on a black canvas, made endlessly, on any device, without a loop over images.

The protocol is that of `mnist-cluttered` (Mnih et al., 2014), which this line of work shares:
pieces of other digits are added at random places and clipped, then the digits are added at random
places and clipped. Pieces and digits come from one split, so no test digit can reach a training
image. The paper's three tasks are `digit`, `pair` (55 unordered pairs) and `sum` (19 values).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ramlib._checks import require
from ramlib.data import mnist

DIGIT_SIDE = 28
FRAGMENT_SIDE = 8
# Two digits are a heap if they share so much of a box; see `boxes_overlap`.
HEAP = 0.5


class CanvasBatch(NamedTuple):
    """A batch of canvases and what is known of them.

    `corners` are the top-left pixels of the digits' 28x28 boxes, x before y.
    """

    images: Float[Tensor, "B 1 S S"]
    labels: Int64[Tensor, " B"]
    digits: Int64[Tensor, "B D"]
    corners: Int64[Tensor, "B D 2"]


def pair_label(first: Int64[Tensor, " B"], second: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
    """Number the 55 unordered pairs of digits 0..54: (0,0), (0,1), (1,1), (0,2), ..., (9,9)."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return high * (high + 1) // 2 + low


def _windows(
    corners: Int64[Tensor, "B P 2"], side: int, stride: int
) -> Int64[Tensor, "B P {side*side}"]:
    """Flat indices of the `side` x `side` windows at `corners` in an image `stride` pixels wide."""
    steps = torch.arange(side, device=corners.device)
    cell = steps[:, None] * stride + steps
    return (corners[..., 1] * stride + corners[..., 0])[..., None] + cell.flatten()


@dataclass(frozen=True)
class ClutteredDigits:
    """One of the paper's digit tasks.

    Args:
        target: what the label says: the `digit`, the unordered `pair`, or the `sum` of two.
        distractors: number of 8x8 pieces of other digits; 8 for the 100x100 canvas.
        size: side of the canvas in pixels, at least 28.
        heaped: share of the *training* canvases on which the second digit is thrown onto the first,
            at most half its side away along each axis. Heaps are rare and hard, so a training may
            want more of them; validation and test canvases are as chance makes them.

    Raises:
        ValueError: if an argument is out of its range.

    Section IV-A, Semeniuta & Barth (2016).
    """

    target: Literal["digit", "pair", "sum"] = "digit"
    distractors: int = 8
    size: int = 100
    heaped: float = 0.0

    def __post_init__(self) -> None:
        targets = ("digit", "pair", "sum")
        require(
            self.target in targets,
            f"ClutteredDigits: target must be one of {', '.join(targets)}, got {self.target!r}",
        )
        require(
            self.distractors >= 0,
            f"ClutteredDigits: distractors must be at least 0, got {self.distractors}",
        )
        require(
            self.size >= DIGIT_SIDE,
            f"ClutteredDigits: size must be at least {DIGIT_SIDE}, got {self.size}",
        )
        require(
            0 <= self.heaped <= 1 and (self.heaped == 0 or self.digits == 2),
            f"ClutteredDigits: heaped must be in [0, 1], and 0 for a single digit, "
            f"got {self.heaped} for target {self.target!r}",
        )

    @property
    def digits(self) -> int:
        """How many digits stand on a canvas."""
        return 1 if self.target == "digit" else 2

    @property
    def classes(self) -> int:
        """How many labels there are (10, 55 or 19)."""
        return {"digit": 10, "pair": 55, "sum": 19}[self.target]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one canvas."""
        return (1, self.size, self.size)

    def describe(self) -> str:
        """What the images are, for a record."""
        counts = [f"{len(mnist.load(s).labels)} {s}" for s in ("train", "validation", "test")]
        return f"cluttered canvases of real MNIST digits ({', '.join(counts)}), made fresh"

    def sample(
        self, count: int, *, split: mnist.Split = "train", generator: torch.Generator
    ) -> CanvasBatch:
        """Make `count` canvases on the generator's device; the same seed gives the same batch.

        Pixels are in [0, 1].

        Raises:
            ValueError: if `count` is below 1, or `split` is unknown.
        """
        require(count >= 1, f"ClutteredDigits.sample: count must be at least 1, got {count}")
        device = generator.device
        source = mnist.load(split, device)
        total = len(source.labels)

        def draw(high: int, *shape: int) -> Int64[Tensor, "..."]:
            return torch.randint(high, shape, generator=generator, device=device)

        canvas = torch.zeros(count, self.size * self.size, dtype=torch.float32, device=device)
        pixels = source.images.view(total, -1)

        def stamp(which: Tensor, at: Tensor, side: int, window: Tensor | None) -> None:
            """Add piece `window` of digit `which` to each canvas at `at`, then clip."""
            piece = pixels[which] if window is None else pixels[which[..., None], window]
            canvas.scatter_add_(
                1, _windows(at, side, self.size).flatten(1), piece.flatten(1).float().div_(255)
            )
            # All pieces are non-negative, so one clip equals a clip after each of them.
            canvas.clamp_(max=1)

        if self.distractors:
            which = draw(total, count, self.distractors)
            taken = draw(DIGIT_SIDE - FRAGMENT_SIDE + 1, count, self.distractors, 2)
            placed = draw(self.size - FRAGMENT_SIDE + 1, count, self.distractors, 2)
            stamp(which, placed, FRAGMENT_SIDE, _windows(taken, FRAGMENT_SIDE, DIGIT_SIDE))
        which = draw(total, count, self.digits)
        corners = draw(self.size - DIGIT_SIDE + 1, count, self.digits, 2)
        if self.heaped and split == "train":
            half, last = DIGIT_SIDE // 2, self.size - DIGIT_SIDE
            near = (corners[:, 0] + draw(2 * half + 1, count, 2) - half).clamp(0, last)
            chosen = torch.rand(count, 1, generator=generator, device=device) < self.heaped
            corners[:, 1] = torch.where(chosen, near, corners[:, 1])
        stamp(which, corners, DIGIT_SIDE, None)

        digits = source.labels[which]
        if self.target == "digit":
            labels = digits[:, 0]
        elif self.target == "pair":
            labels = pair_label(digits[:, 0], digits[:, 1])
        else:
            labels = digits.sum(1)
        return CanvasBatch(canvas.view(count, 1, self.size, self.size), labels, digits, corners)


def boxes_overlap(corners: Int64[Tensor, "B 2 2"]) -> Float[Tensor, " B"]:
    """Shared area of a canvas's two digit boxes, as a fraction of one box."""
    apart = (corners[:, 0] - corners[:, 1]).abs()
    shared = (DIGIT_SIDE - apart).clamp(min=0).prod(-1)
    return shared / DIGIT_SIDE**2
