"""The feed-forward parts: context, glimpse and classification networks.

All three map a batch to a batch of feature vectors. Section III, Semeniuta & Barth (2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require


class ContextNetwork(nn.Module):
    """f_context: a three-layer CNN on the shrunken image, which hints at where to look first.

    Args:
        image_shape: `(C, H, W)`.
        features: size of the feature vector.
        shrink: factor by which the image is averaged down before the first layer.
        widths: channels of the convolutions; each halves the image.

    Raises:
        ValueError: if `shrink` is outside [1, min(H, W)].
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        features: int = 256,
        *,
        shrink: int = 2,
        widths: Sequence[int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        require(
            1 <= shrink <= min(height, width),
            f"ContextNetwork: shrink must be in [1, {min(height, width)}] for images of shape "
            f"{image_shape}, got {shrink}",
        )
        self.shrink = shrink
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *widths)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        side_y, side_x = height // shrink, width // shrink
        for _ in widths:
            side_y, side_x = (side_y + 1) // 2, (side_x + 1) // 2
        self.project = nn.Linear(widths[-1] * side_y * side_x, features)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """Features of the whole image."""
        if self.shrink > 1:
            images = F.avg_pool2d(images, self.shrink)
        return F.relu(self.project(self.convolutions(images).flatten(1)))


class DenseGlimpseNetwork(nn.Module):
    """f_glimpse of the digit tasks: fully connected, one hidden layer.

    With so plain an eye, the error depends on the policy, as the paper intends.

    Args:
        channels: of the glimpse.
        size: N, side of the glimpse.
        features: size of the feature vector.
        hidden: units of the hidden layer.
    """

    def __init__(self, channels: int, size: int, features: int = 256, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size * size, hidden),
            nn.ReLU(),
            nn.Linear(hidden, features),
            nn.ReLU(),
        )

    def forward(self, glimpses: Float[Tensor, "B C N N"]) -> Float[Tensor, "B F"]:
        """Features of a glimpse."""
        return self.layers(glimpses)


class ConvGlimpseNetwork(nn.Module):
    """f_glimpse as a CNN: 3x3 convolutions, pooled once in the middle, then a linear layer.

    Args:
        channels: of the glimpse.
        size: N, side of the glimpse; at least 2.
        features: size of the feature vector.
        widths: channels of the convolutions: three or five of them in the paper.

    Raises:
        ValueError: if `size` is below 2.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        features: int = 256,
        widths: Sequence[int] = (16, 32, 32),
    ) -> None:
        super().__init__()
        require(size >= 2, f"ConvGlimpseNetwork: size must be at least 2, got {size}")
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(pairwise((channels, *widths))):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            if depth == (len(widths) - 1) // 2:
                layers.append(nn.MaxPool2d(2))
        # In memory, channels last: a training step of a reader takes a sixth less time on a CPU.
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.project = nn.Linear(widths[-1] * (size // 2) ** 2, features)

    def forward(self, glimpses: Float[Tensor, "B C N N"]) -> Float[Tensor, "B F"]:
        """Features of a glimpse."""
        return F.relu(self.project(self.convolutions(glimpses).flatten(1)))


class ClassificationNetwork(nn.Sequential):
    """f_class: from `h1` through a hidden layer to the logits.

    Args:
        features: size of `h1`.
        classes: number of classes.
        hidden: units of a hidden layer.
        layers: hidden layers; one in the paper.

    Eq. 4, Semeniuta & Barth (2016).
    """

    def __init__(self, features: int, classes: int, hidden: int = 256, layers: int = 1) -> None:
        stack: list[nn.Module] = []
        for before in (features, *[hidden] * (layers - 1)):
            stack += [nn.Linear(before, hidden), nn.ReLU()]
        super().__init__(*stack, nn.Linear(hidden, classes))
