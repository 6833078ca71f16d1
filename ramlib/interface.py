"""What every model of the book offers, so that a table is a loop over recipes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require_images
from ramlib.glimpse import GlimpseGrid


@dataclass(frozen=True)
class Rollout:
    """All that happened while a model looked. A model that does not look has logits alone.

    Args:
        logits: class scores after every look.
        grids: where it looked, of shape `(B, T)`.
        glimpses: what it saw there.
        shifts: by how much each centre moved, before any noise.
    """

    logits: Float[Tensor, "B T classes"]
    grids: GlimpseGrid | None = None
    glimpses: Float[Tensor, "B T C N N"] | None = None
    shifts: Float[Tensor, "B T 2"] | None = None


class Classifier(nn.Module):
    """A model that maps images to class scores, one set for every look.

    Args:
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.image_shape, self.classes = tuple(image_shape), classes

    @abstractmethod
    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Look at each image.

        Args:
            images: pixels in [0, 1].
            noisy: corrupt the grids; by default only while training.
        """

    def loss(self, rollout: Rollout, labels: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """What training lowers: here the cross-entropy of the last look."""
        return F.cross_entropy(rollout.logits[:, -1], labels)

    def objective(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, "B ..."]
    ) -> Float[Tensor, ""]:
        """The loss of a batch, which a training step lowers."""
        return self.loss(self(images), labels)

    def wrong(self, rollout: Rollout, labels: Int64[Tensor, "B ..."]) -> Bool[Tensor, " B"]:
        """Which images were named wrongly: here, after the last look."""
        return rollout.logits[:, -1].argmax(-1) != labels

    def adapt(self, task) -> None:
        """Take from a task's training images what is not learnt by gradient; here, nothing."""

    def policy_parameters(self) -> list[nn.Parameter]:
        """Parameters of the attention policy, which learn at a rate of their own; none here."""
        return []

    @torch.inference_mode()
    def predict(self, images: Float[Tensor, "B C H W"]) -> Int64[Tensor, " B"]:
        """The class of each image, from the last look.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape or range is wrong, it is empty, or it is not finite.
        """
        require_images("predict", images, self.image_shape)
        images = images.to(next(self.parameters()).dtype)
        return self(images).logits[:, -1].argmax(-1)
