"""Cluttered digits on a black canvas, made endlessly, on any device, without a loop over images.

The protocol is that of `mnist-cluttered` (Mnih et al., 2014), which this line of work shares:
pieces of other digits are added at random places and clipped, then the digits are added at random
places and clipped. Pieces and digits come from one split, so no test digit can reach a training
image. The paper's three tasks are `digit`, `pair` (55 unordered pairs) and `sum` (19 values).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ramlib._checks import require
from ramlib.data import mnist
from ramlib.data.augment import distort
from ramlib.interface import Rollout
from ramlib.labels import pair_label
from ramlib.tasks import Judgement, Task, wrong

DIGIT_SIDE = 28
FRAGMENT_SIDE = 8
# Two digits count as overlapping if they share so much of a box; see `boxes_overlap`.
OVERLAPPING = 0.5
# What is measured is made from this seed, which no training uses.
TEST_SEED = 2016


class CanvasBatch(NamedTuple):
    """A batch of canvases and what is known of them.

    `corners` are the top-left pixels of the digits' 28x28 boxes, x before y.
    """

    images: Float[Tensor, "B 1 S S"]
    labels: Int64[Tensor, " B"]
    digits: Int64[Tensor, "B D"]
    corners: Int64[Tensor, "B D 2"]


def _windows(
    corners: Int64[Tensor, "B P 2"], side: int, stride: int
) -> Int64[Tensor, "B P {side*side}"]:
    """Flat indices of the `side` x `side` windows at `corners` in an image `stride` pixels wide."""
    steps = torch.arange(side, device=corners.device)
    cell = steps[:, None] * stride + steps
    return (corners[..., 1] * stride + corners[..., 0])[..., None] + cell.flatten()


@dataclass(frozen=True)
class ClutteredDigits(Task):
    """One of the paper's digit tasks.

    Args:
        target: what the label says: the `digit`, the unordered `pair`, or the `sum` of two.
        distractors: number of 8x8 pieces of other digits; 8 for the 100x100 canvas.
        size: side of the canvas in pixels, at least 28.
        overlapping: share of the *training* canvases on which the second digit is put onto the
            first, at most half its side away along each axis. Overlapping digits are rare and
            hard, so a training may want more of them; validation and test canvases are as chance
            makes them.
        centred: put the single digit in the middle, as if somebody knew where it was: a control.
        augment: how strongly the *training* digits are changed before they are added, each by
            itself and anew on every canvas: 1 for the changes that `ramlib.data.augment` names, 0
            for none. Pieces of digits, and validation and test digits, are as they were written.

    Raises:
        ValueError: if an argument is out of its range.

    Section IV-A, Semeniuta & Barth (2016).
    """

    target: Literal["digit", "pair", "sum"] = "digit"
    distractors: int = 8
    size: int = 100
    overlapping: float = 0.0
    centred: bool = False
    augment: float = 0.0

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
            0 <= self.overlapping <= 1 and (self.overlapping == 0 or self.digits == 2),
            f"ClutteredDigits: overlapping must be in [0, 1], and 0 for a single digit, "
            f"got {self.overlapping} for target {self.target!r}",
        )
        require(
            not self.centred or self.digits == 1,
            f"ClutteredDigits: only a single digit can be centred, got target {self.target!r}",
        )
        require(
            self.augment >= 0, f"ClutteredDigits: augment must be at least 0, got {self.augment}"
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
        """What the images are, and what they are measured from, for a record."""
        counts = [f"{len(mnist.load(s).labels)} {s}" for s in ("train", "validation", "test")]
        made = f"made fresh; measured on those of seed {TEST_SEED}"
        return f"cluttered canvases of real MNIST digits ({', '.join(counts)}), {made}"

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

        def stamp(pieces: Float[Tensor, "B P pixels"], at: Tensor, side: int) -> None:
            """Add grey `pieces` to each canvas at `at`, then clip."""
            canvas.scatter_add_(
                1, _windows(at, side, self.size).flatten(1), pieces.flatten(1).div(255)
            )
            # All pieces are non-negative, so one clip equals a clip after each of them.
            canvas.clamp_(max=1)

        if self.distractors:
            which = draw(total, count, self.distractors)
            taken = draw(DIGIT_SIDE - FRAGMENT_SIDE + 1, count, self.distractors, 2)
            placed = draw(self.size - FRAGMENT_SIDE + 1, count, self.distractors, 2)
            window = _windows(taken, FRAGMENT_SIDE, DIGIT_SIDE)
            stamp(pixels[which[..., None], window].float(), placed, FRAGMENT_SIDE)
        which = draw(total, count, self.digits)
        corners = draw(self.size - DIGIT_SIDE + 1, count, self.digits, 2)
        if self.overlapping and split == "train":
            half, last = DIGIT_SIDE // 2, self.size - DIGIT_SIDE
            near = (corners[:, 0] + draw(2 * half + 1, count, 2) - half).clamp(0, last)
            chosen = torch.rand(count, 1, generator=generator, device=device) < self.overlapping
            corners[:, 1] = torch.where(chosen, near, corners[:, 1])
        if self.centred:
            corners.fill_((self.size - DIGIT_SIDE) // 2)
        whole = source.images[which].float()
        if self.augment and split == "train":
            whole = distort(whole.flatten(0, 1)[:, None], generator, strength=self.augment)
        stamp(whole.view(count, self.digits, -1), corners, DIGIT_SIDE)

        digits = source.labels[which]
        if self.target == "digit":
            labels = digits[:, 0]
        elif self.target == "pair":
            labels = pair_label(digits[:, 0], digits[:, 1])
        else:
            labels = digits.sum(1)
        return CanvasBatch(canvas.view(count, 1, self.size, self.size), labels, digits, corners)

    def batches(
        self,
        split: mnist.Split,
        count: int | None = None,
        *,
        batch: int = 500,
        device: torch.device | str = "cpu",
    ) -> Iterator[CanvasBatch]:
        """`count` canvases (20,000 when left out), the same ones every time and on every device.

        Raises:
            ValueError: if `count` is below 1, or `split` is unknown.
        """
        count = 20_000 if count is None else count
        require(count >= 1, f"ClutteredDigits.batches: count must be at least 1, got {count}")
        # Made on the CPU, since another device's generator would make other canvases.
        generator = torch.Generator().manual_seed(TEST_SEED)
        for start in range(0, count, batch):
            made = self.sample(min(batch, count - start), split=split, generator=generator)
            yield CanvasBatch(*(part.to(device) for part in made))

    def judge(self, rollout: Rollout, batch: CanvasBatch) -> Judgement:
        """The error; where the digits are; and, of a model that looks, where the windows were.

        Of one digit: `missed`, the canvases whose digit the last look was not on (see `hits`), and
        `error_where_missed`, the share of the errors that were made on those: the errors due to
        mislocalisation. Of two: `error_apart`, among canvases whose digits' boxes do not touch;
        `error_overlapping`, among those where at least half of one box lies under the other;
        `visited_both` and `spanned_both`, the share of the former on which the looks were on both
        digits at one time or another, and at once (see `spans`).
        """
        is_wrong, every = wrong(rollout.labels, batch.labels)
        found = {"error": (is_wrong, every)}
        if self.digits == 1:
            if rollout.windows is not None:
                missed = ~hits(rollout.windows, batch.corners)[:, -1, 0]
                found |= {"missed": (missed, every), "error_where_missed": (missed, is_wrong)}
            return found
        overlap = boxes_overlap(batch.corners)
        apart = overlap == 0
        found["error_apart"] = (is_wrong, apart)
        found["error_overlapping"] = (is_wrong, overlap >= OVERLAPPING)
        if rollout.windows is not None:
            at = rollout.windows, batch.corners
            found["visited_both"] = (hits(*at).any(1).all(-1), apart)
            found["spanned_both"] = (spans(*at).any(1), apart)
        return found


def hits(windows: Float[Tensor, "B T 4"], corners: Int64[Tensor, "B D 2"]) -> Bool[Tensor, "B T D"]:
    """Whether each look is on each digit.

    It is if the window's centre lies within the digit's 28x28 box and neither of the window's
    sides is over twice the box's. A window on the whole canvas is on nothing.

    Args:
        windows: xyxy in pixels.
        corners: top-left pixels of the digits' boxes, x before y.
    """
    low, high = windows[..., :2], windows[..., 2:]
    centre = ((low + high) / 2)[:, :, None]
    first = corners[:, None].to(centre.dtype)
    inside = ((centre >= first) & (centre <= first + DIGIT_SIDE)).all(-1)
    small = (high - low).amax(-1) <= 2 * DIGIT_SIDE
    return inside & small[..., None]


def spans(windows: Float[Tensor, "B T 4"], corners: Int64[Tensor, "B D 2"]) -> Bool[Tensor, "B T"]:
    """Whether each look's window holds the centres of all digits at once.

    Args:
        windows: xyxy in pixels.
        corners: top-left pixels of the digits' boxes, x before y.
    """
    windows = windows[:, :, None]
    middle = corners[:, None].to(windows.dtype) + DIGIT_SIDE / 2
    return ((windows[..., :2] <= middle) & (middle <= windows[..., 2:])).flatten(2).all(-1)


def boxes_overlap(corners: Int64[Tensor, "B 2 2"]) -> Float[Tensor, " B"]:
    """Shared area of a canvas's two digit boxes, as a fraction of one box."""
    apart = (corners[:, 0] - corners[:, 1]).abs()
    shared = (DIGIT_SIDE - apart).clamp(min=0).prod(-1)
    return shared / DIGIT_SIDE**2
