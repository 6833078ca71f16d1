"""DRAM: a glance at the whole image starts one recurrent layer, which looks; another one reads.

Ba et al. (2015) give Mnih et al.'s hard crops a second layer and a context. The upper layer begins
with an overview of the image and names the places; the lower one is fed with glimpses only, and
the class is read from it. So the overview can say where to look, and nothing else.

Crops, rewards and what is done with them are those of `ramlib.baselines.mnih`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require
from ramlib.baselines.mnih import Episode, HardAttention, HardAttentionConfig, PlaceNetwork


@dataclass(frozen=True)
class BaConfig(HardAttentionConfig):
    """All that shapes a DRAM.

    Args:
        shrink: factor by which the context network averages the image down.
        eye: glimpse network: `dense`, or `conv` for two convolutions on the crops.

    Raises:
        ValueError: if an argument is out of its range.
    """

    shrink: int = 4
    eye: Literal["dense", "conv"] = "dense"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.eye in ("dense", "conv"),
            f"BaConfig: eye must be dense or conv, got {self.eye!r}",
        )
        require(self.shrink >= 1, f"BaConfig: shrink must be at least 1, got {self.shrink}")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> BaModel:
        """The model with fresh weights."""
        return BaModel(self, image_shape, classes)


class Overview(nn.Module):
    """The context network: three convolutions on the shrunken image.

    Args:
        image_shape: `(C, H, W)`.
        features: size of the feature vector.
        shrink: factor by which the image is averaged down.

    Section 3, "Context network", Ba et al. (2015).
    """

    def __init__(self, image_shape: tuple[int, int, int], features: int, shrink: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.shrink = shrink
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
        )
        rows, columns = (-(-(side // shrink) // 4) for side in (height, width))
        self.project = nn.Linear(32 * rows * columns, features)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """The first state of the upper layer."""
        small = F.avg_pool2d(images, self.shrink)
        return F.relu(self.project(self.convolutions(small).flatten(1)))


class RectifiedLayer(nn.Module):
    """A recurrent layer, `max(0, W x + U h)`.

    Args:
        inputs: size of x.
        hidden: size of h.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(inputs, hidden)
        self.from_state = nn.Linear(hidden, hidden, bias=False)
        nn.init.orthogonal_(self.from_state.weight)

    def forward(
        self, x: Float[Tensor, "*B X"], h: Float[Tensor, "*B H"] | None
    ) -> Float[Tensor, "*B H"]:
        """The next state; None is a state of zeros."""
        z = self.from_input(x)
        return F.relu(z if h is None else z + self.from_state(h))


class BaModel(HardAttention):
    """Looks T times at hard crops, from the first look on where the overview says.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.

    Section 3, Ba et al. (2015). Theirs has LSTMs in place of rectified layers. Here rewards
    alone teach the overview, the upper layer and the place: the upper layer reads the lower one
    without sending a gradient back.
    """

    def __init__(self, config: BaConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(config, image_shape, classes)
        hidden = config.hidden
        channels, scales, size, _ = self.crops.shape
        if config.eye == "dense":
            self.g_image = nn.Sequential(
                nn.Flatten(), nn.Linear(math.prod(self.crops.shape), 256), nn.ReLU()
            )
            seen = 256
        else:
            # All scales are channels of one small image, and share their middle.
            self.g_image = nn.Sequential(
                nn.Conv2d(channels * scales, 32, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 32, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
            )
            seen = 32 * (size // 2) ** 2
        self.what = nn.Linear(seen, hidden)
        self.g_loc = nn.Linear(2, 128)
        self.where = nn.Linear(128, hidden)
        # A factor of about one, wherever the crop is, until something better is learnt.
        nn.init.ones_(self.where.bias)
        self.lower = RectifiedLayer(hidden, hidden)
        self.upper = RectifiedLayer(hidden, hidden)
        self.overview = Overview(image_shape, hidden, config.shrink)
        self.emission = PlaceNetwork(hidden)
        self.f_class = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def policy_parameters(self) -> list[nn.Parameter]:
        """The parameters that only rewards teach."""
        parts = (self.overview, self.upper, self.emission)
        return [parameter for part in parts for parameter in part.parameters()]

    def glimpse(
        self, table: Float[Tensor, "B C entries"], place: Float[Tensor, "B S 2"]
    ) -> Float[Tensor, "B S H"]:
        """What times where."""
        crops = self.crops(table, place).flatten(2, 3)
        what = F.relu(self.what(self.g_image(crops.flatten(0, 1)))).unflatten(0, place.shape[:2])
        return what * F.relu(self.where(F.relu(self.g_loc(place))))

    def episode(self, images: Float[Tensor, "B C H W"], samples: int, noisy: bool) -> Episode:
        """See `HardAttention`; all T places are chosen."""
        table = self.crops.integral(images)
        r1, r2 = None, self.overview(images)[:, None]
        mean = self.emission(r2, images.new_zeros(len(images), 1, 2)).expand(-1, samples, -1)
        r2 = r2.expand(-1, samples, -1)
        states, places, means, drawn = [], [], [], []
        for t in range(self.config.glimpses):
            if t > 0:
                r2 = self.upper(r1.detach(), r2)
                mean = self.emission(r2, places[-1])
            means.append(mean)
            drawn.append(self.draw(mean, noisy))
            places.append(drawn[-1].clamp(-1, 1))
            r1 = self.lower(self.glimpse(table, places[-1]), r1)
            states.append(r1)
        logits = self.f_class(torch.stack(states, 2))
        return Episode(logits, *(torch.stack(steps, 2) for steps in (places, means, drawn)))
