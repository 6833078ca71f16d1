"""Inhibition of return: read an object, dim what was read, and read again with the same weights.

The paper leaves two digits under one weak label as its open problem: attention reads one digit and
never switches. Here the switch needs no learning. A glimpse's own filters, mapped back to the
image, say which pixels it saw; those pixels are dimmed for every later look and for the context.
So the digit that was read no longer attracts attention, and the other one does.

The label stays weak. A pair's probability is the sum over both orders of reading; a sum's is the
convolution of the two reads. Neither says which digit was read first.

Digits that lie on each other cannot be read so, for dimming one dims the other. A read may end with
a closer look (`CloserLook`), which may name both at once. Which of the two ways explains
the label is for the label to say: their probabilities are added.

A closer look comes after a read, once more at the same place, through more filters. Digits that lie
on each other are one object: no hole that is cut into the canvas parts them. And two digits are too
much for the grid of an ordinary look. The closer look's grid is wider and finer, and what it sees
may be put in more words: the ten digits, and the 55 pairs that may overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require
from ramlib.glimpse import GlimpseGrid, gaussian_filterbank, read_glimpse, support_of
from ramlib.interface import Classifier, Rollout
from ramlib.labels import DIGITS, PAIRS, pair_log_probabilities, sums_of_pairs
from ramlib.model import EYES, Look, RAMConfig, RecurrentAttentionModel
from ramlib.networks import ClassificationNetwork, ConvGlimpseNetwork


def footprint(
    grid: GlimpseGrid, size: int, image_size: tuple[int, int], *, reach: float | Tensor = 1.0
) -> Float[Tensor, "B H W"]:
    """How much of each pixel a glimpse saw, from 0 to 1; differentiable in the grid.

    Every filter has a total weight of one. So the filters of a row, summed and multiplied by
    `delta`, cover each pixel inside the window about once and fall off softly at its border. The
    footprint is the product of that coverage along y and along x.

    Args:
        grid: parameters of shape `(B,)`.
        size: N, side of the glimpse.
        image_size: `(H, W)`.
        reach: factor by which the grid is spread before it is mapped back, since an object is
            larger than the window that suffices to name it.
    """
    height, width = image_size
    x, y = grid.centres(image_size)

    def coverage(centre: Tensor, delta: Tensor, pixels: int) -> Float[Tensor, "B pixels"]:
        delta = reach * delta
        # Filters narrower than their distance would leave gaps between them.
        sigma = torch.maximum(grid.sigma, delta / 2)
        weights = gaussian_filterbank(centre, delta, sigma, filters=size, pixels=pixels)
        return (delta[:, None] * weights.sum(1)).clamp(max=1)

    rows, columns = coverage(y, grid.delta_y, height), coverage(x, grid.delta_x, width)
    return rows[:, :, None] * columns[:, None, :]


class CloserLook(nn.Module):
    """Looks once more where a read ended, and scores words by what it sees and what is remembered.

    Args:
        image_shape: `(C, H, W)`.
        size: N, side of the closer look; at least 2.
        hidden: size of the read's memory `h1`.
        words: how many there are to score.
        side: of its window, as a fraction of the image's longer side. At 0.4 it holds two
            overlapping digits of 28 pixels on a canvas of 100.

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


TARGETS = ("pair", "sum")


@dataclass(frozen=True)
class ReadAgainConfig:
    """Two reads of one digit each.

    Args:
        reader: the model that reads one digit; its `glimpses` are those of one read.
        target: `pair` or `sum`.
        reach: of the footprints, at the start; it is learnt. See `footprint`.
        closer: N, side of the closer look that ends each read; None for no such look.
        frozen: whether all but the closer look keep the weights that they start with.
    """

    reader: RAMConfig = field(default_factory=RAMConfig)
    target: Literal["pair", "sum"] = "pair"
    reach: float = 1.1
    closer: int | None = None
    frozen: bool = False

    def build(self, image_shape: tuple[int, int, int], classes: int) -> ReadAgainModel:
        """The model with fresh weights."""
        return ReadAgainModel(self, image_shape, classes)


class ReadAgainModel(Classifier):
    """Reads twice with one reader; what the first read saw is dimmed for the second.

    The rollout holds the looks of both reads, 2T of them, but not the closer looks, which are of
    another size; their words count in the last scores. Before the second read its digit is
    unknown, and every digit counts alike.
    """

    def __init__(
        self, config: ReadAgainConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(image_shape, classes)
        require(
            config.target in TARGETS,
            f"ReadAgainModel: target must be one of {', '.join(TARGETS)}, got {config.target!r}",
        )
        self.config = config
        self.reader = RecurrentAttentionModel(config.reader, image_shape, DIGITS)
        self.reach = nn.Parameter(torch.tensor(config.reach))
        self.closer = None
        if config.closer is not None:
            self.closer = CloserLook(
                image_shape,
                config.closer,
                config.reader.hidden,
                DIGITS + PAIRS,
            )
        if config.frozen:
            require(
                self.closer is not None,
                "ReadAgainModel: frozen leaves the closer look to learn, and closer is None",
            )
            self.requires_grad_(False)
            self.closer.requires_grad_(True)

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Read, dim, read again."""
        return self.read_twice(images, noisy=noisy)[0]

    def read_twice(
        self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None
    ) -> tuple[Rollout, Float[Tensor, "B words"]]:
        """The rollout of both reads, and the words of the first."""
        first, words = self.read(images, noisy=noisy)
        dimmed = images * (1 - self.seen(first.grids)[:, None])
        second, _ = self.read(dimmed, noisy=noisy)
        one, two = (read.logits.log_softmax(-1) for read in (first, second))
        unknown = torch.full_like(two, 1 / DIGITS).log()
        # After the first read: a digit, and then the second read's, or two digits at once.
        said = words.log_softmax(-1)[:, None].expand(-1, two.shape[1], -1)
        pairs = pair_log_probabilities(said[..., :DIGITS], two)
        if self.closer is not None:
            pairs = torch.logaddexp(pairs, said[..., DIGITS:])
        guess = pair_log_probabilities(one, unknown)
        rollout = Rollout(
            self.of_labels(torch.cat([guess, pairs], 1)),
            torch.cat([first.windows, second.windows], 1),
            GlimpseGrid.cat([first.grids, second.grids]),
            torch.cat([first.glimpses, second.glimpses], 1),
            torch.cat([first.shifts, second.shifts], 1),
        )
        return rollout, words

    def of_labels(self, pairs: Float[Tensor, "... 55"]) -> Float[Tensor, "... classes"]:
        """Log-probabilities of the labels, from those of the pairs: themselves, or their sums'."""
        return pairs if self.config.target == "pair" else sums_of_pairs(pairs)

    def objective(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch; while the closer look learns alone, plus that of its pairs.

        As long as its pairs are guesses, two reads explain every label better, and it would never
        learn them.
        """
        rollout, words = self.read_twice(images)
        value = self.loss(rollout, labels)
        if self.config.frozen:
            pairs = words[:, DIGITS:].log_softmax(-1)
            value = value + F.nll_loss(self.of_labels(pairs), labels)
        return value

    def read(
        self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None
    ) -> tuple[Rollout, Float[Tensor, "B words"]]:
        """One read, and the scores of the words at its end: ten digits, and 55 pairs if it can."""
        looks = self.reader.looks(images, noisy=noisy)
        read = self.reader.rollout(looks)
        logits = read.logits.float()
        if self.closer is None:
            return replace(read, logits=logits), logits[:, -1]
        closer = self.closer(self.reader.preprocess(images), looks[-1]).float()
        words = closer + F.pad(logits[:, -1], (0, PAIRS))
        return replace(read, logits=torch.cat([logits[:, :-1], words[:, None, :DIGITS]], 1)), words

    def loss(self, rollout: Rollout, labels: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Negative log-likelihood of the label after each look of the second read, on average."""
        second = rollout.logits.chunk(2, 1)[1]
        looks = second.shape[1]
        # The logits are log-probabilities, and the cross-entropy of those is their likelihood's.
        return F.cross_entropy(second.flatten(0, 1), labels.repeat_interleave(looks))

    @property
    def stochastic(self) -> bool:
        """Whether the reader's noisy passes differ."""
        return self.reader.stochastic

    def policy_parameters(self) -> list[nn.Parameter]:
        """The reader's."""
        return self.reader.policy_parameters()

    def seen(self, grids: GlimpseGrid) -> Float[Tensor, "B H W"]:
        """What a read saw: the union of its looks' footprints."""
        size, image_size = self.config.reader.size, self.image_shape[1:]
        unseen = (
            1 - footprint(grids[:, t], size, image_size, reach=self.reach)
            for t in range(grids.shape[1])
        )
        # One by one: the gradient of `torch.prod` costs more than twice as much.
        return 1 - reduce(torch.mul, unseen)
