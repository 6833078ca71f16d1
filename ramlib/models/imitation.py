"""Attention by example: learn to look where another model looked, before looking for oneself.

A model that reads one digit of two has no reason to leave it: the loss is flat wherever the other
digit is out of sight. But a digit reader with inhibition of return
(`ramlib.models.inhibition`) visits both digits, untrained. Here it shows the way. In this first
stage of training the model sees through the guide's windows, and its policy learns to say
beforehand where each of them will be. Then the guide is gone, and the model trains on with windows
of its own.

No position enters by another door: the guide has learnt from labels alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ramlib._checks import require
from ramlib.glimpse import GlimpseGrid
from ramlib.model import RAMConfig, RecurrentAttentionModel
from ramlib.models.inhibition import ReadAgainConfig, ReadAgainModel


def window_distance(ours: GlimpseGrid, theirs: GlimpseGrid) -> Float[Tensor, "..."]:
    """How far one window is from another, in place and in size.

    The squared distance of the centres, in units of half the image, plus a tenth of the squared
    distance of the sides on a logarithmic scale.
    """
    place = (ours.c_x - theirs.c_x).square() + (ours.c_y - theirs.c_y).square()
    width, height = (ours.delta_x / theirs.delta_x).log(), (ours.delta_y / theirs.delta_y).log()
    return place + (width.square() + height.square()) / 10


@dataclass(frozen=True)
class GuidedConfig(RAMConfig):
    """A `RAMConfig`, and which looks of a guide to follow.

    Args:
        target: `pair` or `sum`.
        follow: which of the guide's looks, counted from 0 through both of its reads, are followed;
            one for each of the model's own.

    Raises:
        ValueError: if `follow` has another length than the model has looks.
    """

    target: Literal["pair", "sum"] = "pair"
    follow: tuple[int, ...] = (0, 3, 4, 7)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.follow) == self.glimpses,
            f"GuidedConfig: follow must name {self.glimpses} looks, one for each of the model's, "
            f"got {self.follow}",
        )

    def build(self, image_shape: tuple[int, int, int], classes: int) -> GuidedModel:
        """The model with fresh weights."""
        return GuidedModel(self, image_shape, classes)


class GuidedModel(RecurrentAttentionModel):
    """A `RecurrentAttentionModel` in all but its training; its weights fit there."""

    # Not a submodule: the guide is neither trained nor stored.
    _guide: tuple[ReadAgainModel, ...] = ()

    def follow(self, reader: RecurrentAttentionModel) -> None:
        """Follow a one-digit reader, which reads twice by inhibition of return."""
        config = ReadAgainConfig(reader.config, self.config.target)
        guide = config.build(self.image_shape, self.classes)
        guide.reader.load_state_dict(reader.state_dict())
        self._guide = (guide.eval(),)

    @torch.no_grad()
    def shown(self, images: Float[Tensor, "B C H W"]) -> GlimpseGrid:
        """The windows to follow, of shape `(B, T)`."""
        (guide,) = self._guide
        grids = guide.to(images.device)(images, noisy=False).grids
        return grids[:, list(self.config.follow)].map(lambda p: p.float())

    def objective(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """The loss of what is read through the guide's windows, plus the distance to them."""
        shown = self.shown(images)
        images = self.preprocess(images)
        state, last, looks, distances = self.begin(images), None, [], []
        for t in range(self.config.glimpses):
            window = shown[:, t]
            look = self.look(images, state, last, noisy=False, through=window)
            state, last = look.state, window
            looks.append(look)
            distances.append(window_distance(look.grid, window))
        return self.loss(self.rollout(looks), labels) + torch.stack(distances).mean()
