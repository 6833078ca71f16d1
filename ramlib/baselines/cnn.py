"""A plain CNN: it sees the whole canvas at once, and says nothing of where it looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramlib._checks import require
from ramlib.interface import Classifier, Rollout


@dataclass(frozen=True)
class CNNConfig:
    """A CNN of as many layers as there are widths, and two more.

    Args:
        widths: channels of the 3x3 convolutions.
        hidden: units of the layer before the classes.
        strides: of each convolution; 2 for all when left out.

    Raises:
        ValueError: if there are strides, but not one for each convolution.
    """

    widths: Sequence[int] = (16, 32, 64, 64)
    hidden: int = 256
    strides: Sequence[int] = ()

    def __post_init__(self) -> None:
        require(
            len(self.strides) in (0, len(self.widths)),
            f"CNNConfig: strides must be one for each of the {len(self.widths)} convolutions, "
            f"got {tuple(self.strides)}",
        )

    def build(self, image_shape: tuple[int, int, int], classes: int) -> PlainCNN:
        """The model with fresh weights."""
        return PlainCNN(self, image_shape, classes)


class PlainCNN(Classifier):
    """Convolutions, some of them strided, one hidden layer, the classes.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.
    """

    def __init__(self, config: CNNConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(image_shape, classes)
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        strides = config.strides or (2,) * len(config.widths)
        for (before, after), stride in zip(
            pairwise((channels, *config.widths)), strides, strict=True
        ):
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU()]
            height, width = -(-height // stride), -(-width // stride)
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(config.widths[-1] * height * width, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, classes),
        )
        # In memory, channels last: a training step takes a quarter less time on a CPU.
        self.layers.to(memory_format=torch.channels_last)

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Class scores after one look at everything; `noisy` changes nothing."""
        return Rollout(self.layers(images)[:, None])
