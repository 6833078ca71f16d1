"""Spatial transformers: a CNN that first turns the image as it likes it (Jaderberg et al., 2015).

A localisation network names an affine map, the image is resampled along it, and a CNN classifies
what comes out. `SonderbyModel` names one map after another, each knowing of the last, and
remembers what each showed (Sonderby et al., 2015).

Resampling is bilinear: a number of the output is a mean of four pixels, and its gradient knows of
no others. Where the output is much coarser than the image, pixels in between are not seen at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require, require_batch
from ramlib.interface import Classifier, Rollout
from ramlib.recurrence import GatedRecurrentUnit

# ---- the transformer ----


def transform(
    images: Float[Tensor, "B C H W"], theta: Float[Tensor, "B 2 3"], size: int
) -> Float[Tensor, "B C N N"]:
    """Resample each image along an affine map, to `size` x `size`.

    Args:
        images: any range.
        theta: takes a place of the output, `(x, y, 1)` with x and y in [-1, 1], to one of the
            image; -1 and 1 are the outer borders of the first and the last pixel, as in torch.
        size: N, side of the output.

    Section 3, Jaderberg et al. (2015): their equations of the map and of bilinear sampling.
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images.to(theta.dtype)
        shape = (len(images), images.shape[1], size, size)
        grid = F.affine_grid(theta, shape, align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)


def bounds(theta: Float[Tensor, "*B 2 3"], image_size: tuple[int, int]) -> Float[Tensor, "*B 4"]:
    """The upright box around what an affine map shows: xyxy in pixels, not cut at the border.

    Args:
        theta: as in `transform`.
        image_size: `(H, W)`.
    """
    height, width = image_size
    reach_x, reach_y = theta[..., :2].abs().sum(-1).unbind(-1)
    x, y = (theta[..., 2] + 1).unbind(-1)
    left, right = (x - reach_x) * width / 2, (x + reach_x) * width / 2
    top, bottom = (y - reach_y) * height / 2, (y + reach_y) * height / 2
    return torch.stack([left, top, right, bottom], -1)


class AffineHead(nn.Linear):
    """A linear map to the six numbers of an affine map; at first, `zoom` times the identity.

    Args:
        features: size of the input.
        zoom: share of the image's side that the first map shows.

    As in Jaderberg et al. (2015): no weights, and the bias of the identity.
    """

    def __init__(self, features: int, zoom: float = 1.0) -> None:
        super().__init__(features, 6)
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            self.bias.copy_(torch.tensor([zoom, 0, 0, 0, zoom, 0]))

    def forward(self, h: Float[Tensor, "B F"]) -> Float[Tensor, "B 2 3"]:
        """An affine map for each image."""
        # In mixed precision too: eight bits of mantissa would place an output to half a pixel.
        with torch.autocast(h.device.type, enabled=False):
            return super().forward(h.to(self.weight.dtype)).view(-1, 2, 3)


class Features(nn.Module):
    """Strided 3x3 convolutions and a linear layer.

    Args:
        image_shape: `(C, H, W)`.
        widths: channels of the convolutions, each of which halves its input.
        features: size of the output.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], widths: Sequence[int], features: int
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *widths)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
            height, width = (height + 1) // 2, (width + 1) // 2
        # In memory, channels last: a training step takes a quarter less time on a CPU.
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.project = nn.Linear(widths[-1] * height * width, features)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """Features of the whole image."""
        return F.relu(self.project(self.convolutions(images).flatten(1)))


# ---- the models ----


@dataclass(frozen=True)
class JaderbergConfig:
    """All that shapes a CNN with a spatial transformer in front.

    Args:
        size: N, side of what the transformer shows.
        zoom: share of the image's side that the first map shows; Jaderberg et al. begin at 1.
        shrink: factor by which the localisation network averages the image down.
        localisation: channels of its convolutions.
        widths: channels of the classifier's convolutions.
        hidden: size of both feature vectors.

    It looks once: `glimpses` is 1.

    Raises:
        ValueError: if an argument is out of its range.
    """

    size: int = 28
    zoom: float = 1.0
    shrink: int = 2
    localisation: Sequence[int] = (16, 32, 64)
    widths: Sequence[int] = (32, 64)
    hidden: int = 256
    glimpses: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        for name in ("size", "shrink"):
            value = getattr(self, name)
            require(value >= 1, f"{type(self).__name__}: {name} must be at least 1, got {value}")
        require(self.zoom > 0, f"{type(self).__name__}: zoom must be above 0, got {self.zoom}")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> JaderbergModel:
        """The model with fresh weights."""
        return JaderbergModel(self, image_shape, classes)


class JaderbergModel(Classifier):
    """Localisation network, affine transformer, CNN.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.

    Section 3, Jaderberg et al. (2015).
    """

    def __init__(
        self, config: JaderbergConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(image_shape, classes)
        self.config = config
        channels, height, width = image_shape
        shrunk = (channels, height // config.shrink, width // config.shrink)
        self.localise = Features(shrunk, config.localisation, config.hidden)
        self.affine = AffineHead(config.hidden, config.zoom)
        self.see = Features((channels, config.size, config.size), config.widths, config.hidden)
        self.f_class = nn.Linear(config.hidden, classes)

    def policy_parameters(self) -> list[nn.Parameter]:
        """The last layer of the localisation network, which learns at a rate of its own."""
        return list(self.affine.parameters())

    def overview(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """What the localisation network knows of the image."""
        return self.localise(F.avg_pool2d(images, self.config.shrink))

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Class scores after one transformed look; `noisy` changes nothing.

        Args:
            images: pixels in [0, 1].
            noisy: of no effect, since nothing is drawn.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape is wrong or it is empty.
        """
        require_batch(type(self).__name__, images, self.image_shape)
        theta = self.affine(self.overview(images))
        shown = transform(images, theta, self.config.size)
        logits = self.f_class(self.see(shown))
        windows = bounds(theta, self.image_shape[1:])
        return Rollout(logits[:, None], windows[:, None], glimpses=shown[:, None])


@dataclass(frozen=True)
class SonderbyConfig(JaderbergConfig):
    """All that shapes a recurrent spatial transformer.

    Args:
        glimpses: T, looks per image.
    """

    glimpses: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.glimpses >= 1,
            f"SonderbyConfig: glimpses must be at least 1, got {self.glimpses}",
        )

    def build(self, image_shape: tuple[int, int, int], classes: int) -> SonderbyModel:
        """The model with fresh weights."""
        return SonderbyModel(self, image_shape, classes)


class SonderbyModel(JaderbergModel):
    """Localisation network, a GRU that names T affine maps, a CNN on each, a GRU that remembers.

    The maps do not depend on what was seen along them: the first GRU is fed with the overview, and
    plans all looks.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.

    Sonderby et al. (2015). Theirs reads three digits, one a look, and needs no memory
    beyond the plan; the second GRU is ours, for labels that belong to all looks together.
    """

    def __init__(
        self, config: SonderbyConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(config, image_shape, classes)
        self.plan = GatedRecurrentUnit(config.hidden, config.hidden)
        self.remember = GatedRecurrentUnit(config.hidden, config.hidden)

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Class scores after each transformed look; `noisy` changes nothing.

        Args:
            images: pixels in [0, 1].
            noisy: of no effect, since nothing is drawn.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape is wrong or it is empty.
        """
        require_batch(type(self).__name__, images, self.image_shape)
        given = self.plan.from_input(self.overview(images))  # the same at every look
        planned = memory = None
        thetas, glimpses, memories = [], [], []
        for _ in range(self.config.glimpses):
            planned = self.plan(given, planned)
            theta = self.affine(planned)
            shown = transform(images, theta, self.config.size)
            memory = self.remember(self.remember.from_input(self.see(shown)), memory)
            thetas.append(theta)
            glimpses.append(shown)
            memories.append(memory)
        return Rollout(
            self.f_class(torch.stack(memories, 1)),
            bounds(torch.stack(thetas, 1), self.image_shape[1:]),
            glimpses=torch.stack(glimpses, 1),
        )
