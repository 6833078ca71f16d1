"""Inhibition of return: read an object, dim what was read, and read again with the same weights.

The paper leaves two digits under one weak label as its open problem: attention reads one digit and
never switches. Here the switch needs no learning. A glimpse's own filters, mapped back to the
image, say which pixels it saw; those pixels are dimmed for every later look and for the context.
So the digit that was read no longer attracts attention, and the other one does.

The label stays weak. A pair's probability is the sum over both orders of reading; a sum's is the
convolution of the two reads. Neither says which digit was read first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require
from ramlib.data.cluttered import pair_label
from ramlib.glimpse import GlimpseGrid, gaussian_filterbank
from ramlib.interface import Classifier, Rollout
from ramlib.model import RAMConfig, RecurrentAttentionModel

DIGITS = 10


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


def pair_log_probabilities(
    first: Float[Tensor, "B T 10"], second: Float[Tensor, "B T 10"]
) -> Float[Tensor, "B T 55"]:
    """Log-probability of each unordered pair: `p1(i) p2(j) + p1(j) p2(i)`, or `p1(i) p2(i)`.

    Args:
        first: log-probabilities of the first read's digit.
        second: of the second's.
    """
    i, j = torch.tril_indices(DIGITS, DIGITS, device=first.device)
    straight, crossed = first[..., i] + second[..., j], first[..., j] + second[..., i]
    joint = torch.where(i == j, straight, torch.logaddexp(straight, crossed))
    return joint[..., pair_label(i, j).argsort()]


def sum_log_probabilities(
    first: Float[Tensor, "B T 10"], second: Float[Tensor, "B T 10"]
) -> Float[Tensor, "B T 19"]:
    """Log-probability of each sum: the convolution of the two reads, in the log domain."""
    terms = first[..., :, None] + second[..., None, :]
    # Row i is shifted right by i, so that column s holds the ways to reach the sum s.
    shifted = torch.stack(
        [F.pad(terms[..., i, :], (i, DIGITS - 1 - i), value=-torch.inf) for i in range(DIGITS)], -1
    )
    return torch.logsumexp(shifted, -1)


COMBINE = {"pair": pair_log_probabilities, "sum": sum_log_probabilities}


@dataclass(frozen=True)
class ReadAgainConfig:
    """Two reads of one digit each.

    Args:
        reader: the model that reads one digit; its `glimpses` are those of one read.
        target: `pair` or `sum`.
        reach: of the footprints, at the start; it is learnt. See `footprint`.
    """

    reader: RAMConfig = field(default_factory=RAMConfig)
    target: Literal["pair", "sum"] = "pair"
    reach: float = 1.1

    def build(self, image_shape: tuple[int, int, int], classes: int) -> ReadAgainModel:
        """The model with fresh weights."""
        return ReadAgainModel(self, image_shape, classes)


class ReadAgainModel(Classifier):
    """Reads twice with one reader; what the first read saw is dimmed for the second.

    The rollout holds the looks of both reads, 2T of them. Before the second read its digit is
    unknown, and every digit counts alike.
    """

    def __init__(
        self, config: ReadAgainConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(image_shape, classes)
        require(
            config.target in COMBINE,
            f"ReadAgainModel: target must be one of {', '.join(COMBINE)}, got {config.target!r}",
        )
        self.config = config
        self.reader = RecurrentAttentionModel(config.reader, image_shape, DIGITS)
        self.reach = nn.Parameter(torch.tensor(config.reach))

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Read, dim, read again."""
        first = self.reader(images, noisy=noisy)
        dimmed = images * (1 - self.seen(first.grids)[:, None])
        second = self.reader(dimmed, noisy=noisy)
        one, two = (read.logits.float().log_softmax(-1) for read in (first, second))
        combine = COMBINE[self.config.target]
        unknown = torch.full_like(two, 1 / DIGITS).log()
        return Rollout(
            torch.cat([combine(one, unknown), combine(one[:, -1:].expand_as(two), two)], 1),
            GlimpseGrid.stack([first.grids, second.grids]).map(lambda p: p.flatten(1, 2)),
            torch.cat([first.glimpses, second.glimpses], 1),
            torch.cat([first.shifts, second.shifts], 1),
        )

    def loss(self, rollout: Rollout, labels: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Negative log-likelihood of the label after each look of the second read, on average."""
        second = rollout.logits.chunk(2, 1)[1]
        looks = second.shape[1]
        # The logits are log-probabilities, and the cross-entropy of those is their likelihood's.
        return F.cross_entropy(second.flatten(0, 1), labels.repeat_interleave(looks))

    def policy_parameters(self) -> list[nn.Parameter]:
        """The reader's."""
        return self.reader.policy_parameters()

    def seen(self, grids: GlimpseGrid) -> Float[Tensor, "B H W"]:
        """What a read saw: the union of its looks' footprints."""
        size, image_size = self.config.reader.size, self.image_shape[1:]
        unseen = [
            1 - footprint(grids[:, t], size, image_size, reach=self.reach)
            for t in range(grids.shape[1])
        ]
        return 1 - torch.stack(unseen).prod(0)
