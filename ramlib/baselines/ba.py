"""DRAM: a glance at the whole image starts one recurrent layer, which looks; another one reads.

Ba et al. (2015) give Mnih et al.'s hard crops a second layer and a context. The upper layer begins
with an overview of the image and names the places; the lower one is fed with glimpses only, and
the class is read from it. So the overview can say where to look, and nothing else.

Crops, rewards and what is done with them are those of `ramlib.baselines.mnih`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require
from ramlib.baselines.mnih import (
    Episode,
    HardAttention,
    HardAttentionConfig,
    PlaceNetwork,
    log_density,
    reinforce,
)
from ramlib.interface import Rollout
from ramlib.labels import OBJECTS, count_digits, decode_numbers, until_the_end
from ramlib.models.reader import CentredCrop, Reader
from ramlib.tasks import Task


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

    @property
    def looks(self) -> int:
        """T."""
        return self.config.glimpses

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
        images = self.prepare(images)
        table = self.crops.integral(images)
        r1, r2 = None, self.overview(images)[:, None]
        mean = self.emission(r2, images.new_zeros(len(images), 1, 2)).expand(-1, samples, -1)
        r2 = r2.expand(-1, samples, -1)
        states, places, means, drawn = [], [], [], []
        for t in range(self.looks):
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


# ---- house numbers ----


@dataclass(frozen=True)
class BaReaderConfig(BaConfig):
    """A `BaConfig` for house numbers.

    Args:
        glimpses: looks at each object.
        scales: of the crops; a house number's crop is small.
        shrink: as in `BaConfig`, as are all others.
    """

    glimpses: int = 2
    scales: Sequence[int] = (1, 2)
    shrink: int = 2

    def build(self, image_shape: tuple[int, int, int], classes: int) -> BaReader:
        """The model with fresh weights."""
        return BaReader(self, image_shape, classes)


class BaReader(Reader, BaModel):
    """Reads a number from left to right: a few looks at each digit, and at the end.

    Args:
        config: the architecture.
        image_shape: `(1, H, W)` of a crop, with grey levels in [0, 255].
        classes: 11, the digits and the end.

    Raises:
        ValueError: if `classes` is not 11.

    Ba et al. (2015), on house numbers. Theirs also reads from right to left.
    """

    def __init__(
        self, config: BaReaderConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        self.require_classes("BaReader", classes)
        super().__init__(config, image_shape, classes)
        # What lies outside of a crop counts as 0, which is then the mean grey.
        self.prepare = CentredCrop(image_shape)

    @property
    def looks(self) -> int:
        """All looks, T at each of six objects."""
        return OBJECTS * self.config.glimpses

    def adapt(self, task: Task) -> None:
        """Take over the mean image of the training crops, and then see to crops of the crops."""
        Reader.adapt(self, task)
        BaModel.adapt(self, task)

    def scores(self, logits: Float[Tensor, "*B T classes"]) -> Float[Tensor, "*B objects classes"]:
        """Scores of each object: those after the last look at it."""
        every = self.config.glimpses
        return logits[..., every - 1 :: every, :].float()

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Look at six objects; arguments and errors are those of `HardAttention`."""
        seen = super().forward(images, noisy=noisy)
        said = decode_numbers(until_the_end(self.scores(seen.logits).softmax(-1)))
        return replace(seen, said=said)

    def losses(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, "B objects"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The cross-entropy of a number, its end included, and the surrogate of the rewards.

        An object earns the probability of its class. The looks at it are judged by the mean of what
        it and the later ones earn; those beyond the end are not judged.
        """
        seen = self.episode(images, self.config.samples, noisy=True)
        log_p = self.scores(seen.logits).log_softmax(-1)
        index = labels[:, None, :, None].expand(*log_p.shape[:3], 1)
        places = torch.arange(OBJECTS, device=labels.device)
        asked = (places <= count_digits(labels)[:, None])[:, None].float()
        right = log_p.gather(-1, index)[..., 0]
        cross_entropy = -(right * asked).sum(-1).mean()

        def from_here_on(values: Float[Tensor, "B S objects"]) -> Float[Tensor, "B S objects"]:
            return values.flip(-1).cumsum(-1).flip(-1)

        earned = from_here_on(right.detach().exp() * asked) / from_here_on(asked).clamp(min=1)
        every = self.config.glimpses
        densities = log_density(seen.drawn, seen.means, self.sigma)
        judged = densities * asked.repeat_interleave(every, -1)
        return cross_entropy, reinforce(judged, earned.repeat_interleave(every, -1))

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """How likely each digit and the end are, for each of six objects from the left."""
        runs = [self(images, noisy=passes > 0).logits for _ in range(max(passes, 1))]
        return torch.stack([until_the_end(self.scores(r).softmax(-1)) for r in runs]).mean(0)
