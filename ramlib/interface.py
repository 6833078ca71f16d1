"""What every model offers, so that a table is a loop over recipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib import _pytree
from ramlib._checks import require, require_images
from ramlib.glimpse import GlimpseGrid


@dataclass(frozen=True)
class Rollout:
    """All that happened while a model looked. A model that does not look has logits alone.

    Args:
        logits: class scores after every look.
        windows: the boxes that it looked at, xyxy in pixels of the image, not cut at its border.
        grids: the Gaussian grids laid there, of shape `(B, T)`, for a model that lays them.
        glimpses: what it saw there.
        shifts: by how much each centre moved, before any noise.
        said: the model's answer, where that is not the likeliest class after the last look.
    """

    logits: Float[Tensor, "B T classes"]
    windows: Float[Tensor, "B T 4"] | None = None
    grids: GlimpseGrid | None = None
    glimpses: Float[Tensor, "B T C N N"] | None = None
    shifts: Float[Tensor, "B T 2"] | None = None
    said: Int64[Tensor, "B ..."] | None = None

    @property
    def labels(self) -> Int64[Tensor, "B ..."]:
        """The model's answer, in the form of the task's labels."""
        return self.logits[:, -1].argmax(-1) if self.said is None else self.said


_pytree.register(Rollout)


class Classifier(nn.Module, ABC):
    """A model that maps images to class scores, one set for every look.

    Args:
        image_shape: `(C, H, W)` of an image, with pixels in `value_range`.
        classes: number of classes.
    """

    value_range: tuple[float, float] = (0.0, 1.0)

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.image_shape, self.classes = tuple(image_shape), classes

    @abstractmethod
    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Look at each image.

        Args:
            images: pixels in `value_range`.
            noisy: look at places that chance moves; by default only while training.
        """

    def loss(self, rollout: Rollout, labels: Int64[Tensor, "B ..."]) -> Float[Tensor, ""]:
        """What training lowers: here the cross-entropy of the last look."""
        return F.cross_entropy(rollout.logits[:, -1], labels)

    def objective(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, "B ..."]
    ) -> Float[Tensor, ""]:
        """The loss of a batch, which a training step lowers."""
        return self.loss(self(images), labels)

    def learn(self, batch: Any, update: int) -> Float[Tensor, ""]:
        """The loss of step `update`, from 0; the batch holds all that its task hands out."""
        return self.objective(batch.images, batch.labels)

    def adapt(self, task: Any) -> None:
        """Take from a task's training images what is not learnt by gradient; here, nothing."""

    def policy_parameters(self) -> list[nn.Parameter]:
        """Parameters of the attention policy, which learn at a rate of their own; none here."""
        return []

    @property
    def stochastic(self) -> bool:
        """Whether noisy passes differ, so that their average is a result of its own."""
        return False

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B ... classes"]:
        """How likely each class is.

        Args:
            images: pixels in `value_range`.
            passes: 0 for one pass without noise; otherwise the mean of so many noisy passes, of
                which Section IV-B of Semeniuta & Barth (2016) takes 10.
        """
        runs = (self(images, noisy=passes > 0).logits[:, -1] for _ in range(max(passes, 1)))
        return torch.stack([logits.float().softmax(-1) for logits in runs]).mean(0)

    def decode(self, probabilities: Float[Tensor, "B ... classes"]) -> Int64[Tensor, "B ..."]:
        """The answer, from the probabilities: here, the likeliest class."""
        return probabilities.argmax(-1)

    def predict(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Int64[Tensor, "B ..."]:
        """The answer to each image.

        A model in training mode answers as in evaluation mode, and stays in training mode.

        Args:
            images: pixels in `value_range`.
            passes: as in `probabilities`.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape or range is wrong, it is empty, it is not finite, or `passes`
                is below 0.
        """
        require_images("predict", images, self.image_shape, self.value_range)
        require(passes >= 0, f"predict: passes must be at least 0, got {passes}")
        own = next(self.parameters())
        training = self.training
        try:
            self.eval()
            with torch.no_grad():
                images = images.to(own.device, own.dtype)
                return self.decode(self.probabilities(images, passes=passes))
        finally:
            self.train(training)
