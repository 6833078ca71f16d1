"""RAM: looks at hard crops, and learns from rewards where to look (Mnih et al., 2014).

A crop has no gradient with respect to its place. So the place is drawn from a Gaussian, and the
policy learns by REINFORCE: make more likely what was rewarded more than usual. Everything else
learns by cross-entropy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require, require_batch
from ramlib.interface import Classifier, Rollout
from ramlib.tasks import Task

# ---- hard crops ----


class CropPyramid(nn.Module):
    """Square crops around a place: the finest at full resolution, coarser ones block by block.

    Scale s covers `s * size` pixels a side and holds the means of s x s blocks; what lies outside
    the image counts as 0. The mean of any block is four look-ups in the image's integral image,
    which is made once an image, so a look costs the same at every scale and size of image.

    Convention: places are in [-1, 1] as everywhere in this package, and a crop is laid so that its
    middle is the border between two pixels that is nearest to the place.

    Args:
        image_shape: `(C, H, W)`.
        size: N, side of a crop in numbers; even.
        scales: pixels per number, from fine to coarse.

    Raises:
        ValueError: if `size` is not even and at least 2, or a scale is below 1.

    Section 4, Mnih et al. (2014); integral images: Viola & Jones (2001).
    """

    def __init__(self, image_shape: tuple[int, int, int], size: int, scales: Sequence[int]) -> None:
        super().__init__()
        require(
            size >= 2 and size % 2 == 0,
            f"CropPyramid: size must be even and at least 2, got {size}",
        )
        require(
            len(scales) >= 1 and min(scales) >= 1,
            f"CropPyramid: scales must be at least 1, got {tuple(scales)}",
        )
        self.size, self.image_size = size, image_shape[1:]
        self.shape = (image_shape[0], len(scales), size, size)
        last = torch.tensor([image_shape[2] - 1, image_shape[1] - 1])
        self.register_buffer("last", last, persistent=False)
        sides = torch.tensor(scales)
        offsets = (torch.arange(size + 1) - size // 2) * sides[:, None]
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("areas", sides.square()[:, None, None].float(), persistent=False)
        # What a number of each scale is on average, and how it deviates. They belong to the
        # weights: a model that goes on from them on other images keeps both.
        self.register_buffer("mean", torch.zeros(len(scales), 1, 1))
        self.register_buffer("deviation", torch.ones(len(scales), 1, 1))

    @staticmethod
    def integral(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C entries"]:
        """The sum of all pixels above and left of each border, row by row; entries = (H+1)(W+1)."""
        return F.pad(images.cumsum(2).cumsum(3), (1, 0, 1, 0)).flatten(2)

    def middles(self, places: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 2"]:
        """The border nearest to each place, `(x, y)` in pixels."""
        return ((places + 1) * self.last / 2 + 0.5).round()

    def boxes(self, places: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 4"]:
        """What the finest crop covers: xyxy in pixels, not cut at the image's border."""
        middles = self.middles(places)
        return torch.cat([middles - self.size / 2, middles + self.size / 2], -1)

    def raw(
        self, table: Float[Tensor, "B C entries"], places: Float[Tensor, "B S 2"]
    ) -> Float[Tensor, "B S C K N N"]:
        """The K crops at each of S places of an image, in units of its pixels.

        Args:
            table: of `integral`.
            places: in [-1, 1], x before y.
        """
        height, width = self.image_size
        x, y = self.middles(places).long().unbind(-1)
        x = (x[..., None, None] + self.offsets).clamp(0, width)
        y = (y[..., None, None] + self.offsets).clamp(0, height)
        index = (y * (width + 1))[..., :, None] + x[..., None, :]  # (B, S, K, N + 1, N + 1)
        batch, channels, _ = table.shape
        flat = index.view(batch, 1, -1).expand(-1, channels, -1)
        sums = table.gather(2, flat).view(batch, channels, *index.shape[1:]).transpose(1, 2)
        return sums.diff(dim=-1).diff(dim=-2) / self.areas

    def forward(
        self, table: Float[Tensor, "B C entries"], places: Float[Tensor, "B S 2"]
    ) -> Float[Tensor, "B S C K N N"]:
        """The crops, standardised scale by scale; as in `raw`."""
        return (self.raw(table, places) - self.mean) / self.deviation

    @torch.no_grad()
    def standardise(self, images: Float[Tensor, "B C H W"]) -> None:
        """Take mean and deviation of each scale from crops of `images`, at places of chance."""
        generator = torch.Generator(images.device).manual_seed(0)
        places = torch.rand(len(images), 1, 2, generator=generator, device=images.device)
        found = self.raw(self.integral(images), 2 * places - 1)
        deviation, mean = torch.std_mean(found, (0, 1, 2, 4, 5))
        self.mean.copy_(mean[:, None, None])
        self.deviation.copy_(deviation[:, None, None])


# ---- rewards ----


def log_density(
    places: Float[Tensor, "*B 2"], means: Float[Tensor, "*B 2"], sigma: Float[Tensor, ""]
) -> Float[Tensor, "*B"]:
    """Logarithm of a Gaussian's density at `places`, but for a constant; gradients reach `means`.

    Args:
        places: that were drawn; without gradient, or the estimate would be zero.
        means: of the Gaussian.
        sigma: its standard deviation along both axes.
    """
    return (places.detach() - means).square().sum(-1) / (-2 * sigma**2)


def reinforce(
    log_probabilities: Float[Tensor, "B S *A"], returns: Float[Tensor, "B S *A"]
) -> Float[Tensor, ""]:
    """A number whose gradient estimates that of minus the expected return, without bias.

    Each sample's return is compared with the mean return of the image's other samples: a baseline
    that need not be learnt, and that does not depend on the action which it judges.

    Args:
        log_probabilities: of the actions of S independent samples of each image.
        returns: what came of each action; without gradient.

    Raises:
        ValueError: if there are fewer than 2 samples.

    Williams (1992); the leave-one-out baseline: Kool et al. (2019).
    """
    batch, samples = returns.shape[:2]
    require(samples >= 2, f"reinforce: there must be at least 2 samples, got {samples}")
    returns = returns.detach()
    advantages = (returns - returns.mean(1, keepdim=True)) * (samples / (samples - 1))
    return -(advantages * log_probabilities).sum() / (batch * samples)


def later_means(rewards: Float[Tensor, "*B T"]) -> Float[Tensor, "*B T"]:
    """What comes of the place of each look: the mean of the rewards from that look on."""
    sums = rewards.flip(-1).cumsum(-1).flip(-1)
    return sums / torch.arange(rewards.shape[-1], 0, -1, device=rewards.device)


def move(last: Float[Tensor, "*B 2"], raw: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 2"]:
    """A place that is `last` at `raw` = 0, and goes to the border of the image as `raw` grows.

    A mean outside the image would be out of reach: all samples would be clamped to one place, and
    would earn the same.
    """
    share = raw.tanh()
    return last + share.clamp(min=0) * (1 - last) + share.clamp(max=0) * (1 + last)


# ---- what looks at hard crops ----


@dataclass(frozen=True)
class HardAttentionConfig:
    """What shapes any model that looks at hard crops.

    Args:
        glimpses: T, looks per image.
        size: N, side of a crop.
        scales: of the crops, see `CropPyramid`.
        hidden: size of a recurrent state.
        samples: sequences of places tried for each image in a training step.
        sigma: standard deviation of the places, at the beginning of training and at its end; along
            a geometric curve in between.
        anneal: updates until its end.

    Raises:
        ValueError: if an argument is out of its range.
    """

    glimpses: int = 4
    size: int = 12
    scales: Sequence[int] = (1, 2, 4, 8)
    hidden: int = 256
    samples: int = 4
    sigma: Sequence[float] = (0.4, 0.05)
    anneal: int = 10_000

    def __post_init__(self) -> None:
        mine = type(self).__name__
        for name, least in (("glimpses", 1), ("samples", 2), ("anneal", 1)):
            value = getattr(self, name)
            require(value >= least, f"{mine}: {name} must be at least {least}, got {value}")
        require(
            len(self.sigma) == 2 and min(self.sigma) > 0,
            f"{mine}: sigma must be two numbers above 0, got {self.sigma}",
        )


class Episode(NamedTuple):
    """What happened in S samples of T looks, of which the policy chose the last A.

    `drawn` is what came of the Gaussians around `means`; `places` is where that was looked at.
    """

    logits: Float[Tensor, "B S T classes"]
    places: Float[Tensor, "B S T 2"]
    means: Float[Tensor, "B S A 2"]
    drawn: Float[Tensor, "B S A 2"]


class HardAttention(Classifier, ABC):
    """Looks at hard crops; the policy learns from rewards, the rest by cross-entropy.

    Images are looked at as `prepare` gives them, which leaves them as they are unless somebody puts
    another module in its place.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.
    """

    def __init__(
        self, config: HardAttentionConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(image_shape, classes)
        self.config = config
        self.prepare: nn.Module = nn.Identity()
        self.crops = CropPyramid(image_shape, config.size, config.scales)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def episode(self, images: Float[Tensor, "B C H W"], samples: int, noisy: bool) -> Episode:
        """Look T times, in each of `samples` ways; without noise all of them are the same."""

    @property
    def sigma(self) -> Float[Tensor, ""]:
        """Standard deviation of the places, at this point of the training."""
        first, last = self.config.sigma
        share = (self.updates / self.config.anneal).clamp(max=1)
        return first * (last / first) ** share

    def draw(self, mean: Float[Tensor, "B S 2"], noisy: bool) -> Float[Tensor, "B S 2"]:
        """What comes of the Gaussian around `mean`; without noise, `mean`. No gradient goes back.

        It may lie outside the image. What is looked at then is the nearest place on it; but what
        was drawn is this, and of this the density is taken, or the estimate would be biased.
        """
        mean = mean.detach()
        return mean + self.sigma * torch.randn_like(mean) if noisy else mean

    @property
    def stochastic(self) -> bool:
        """Places are drawn."""
        return True

    def adapt(self, task: Task) -> None:
        """Measure what crops look like, unless the weights come from elsewhere; begin to anneal."""
        if self.updates == 0:
            generator = torch.Generator().manual_seed(0)
            images = task.sample(512, generator=generator).images
            self.crops.standardise(self.prepare(images))
        self.updates.zero_()

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Look at each image T times; the windows are the finest crops.

        Args:
            images: pixels in [0, 1].
            noisy: draw the places, in place of their means; by default only while training.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape is wrong or it is empty.
        """
        require_batch(type(self).__name__, images, self.image_shape)
        seen = self.episode(images, 1, self.training if noisy is None else noisy)
        return Rollout(seen.logits[:, 0], self.crops.boxes(seen.places[:, 0]))

    def losses(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, " B"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The cross-entropy of all looks, and the surrogate of the rewards.

        A look earns the probability of the right class after it. In the cross-entropy the first
        look counts a quarter, since it seldom sees enough.
        """
        seen = self.episode(images, self.config.samples, noisy=True)
        index = labels[:, None, None, None].expand(*seen.logits.shape[:3], 1)
        right = seen.logits.float().log_softmax(-1).gather(-1, index)[..., 0]
        weights = right.new_ones(self.config.glimpses)
        weights[0] = 0.25
        cross_entropy = -(right * weights / weights.sum()).sum(-1).mean()
        densities = log_density(seen.drawn, seen.means, self.sigma)
        earned = later_means(right.detach().exp())[..., -seen.means.shape[2] :]
        return cross_entropy, reinforce(densities, earned)

    def objective(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """The sum of both losses; in training, one more update towards the last sigma."""
        cross_entropy, rewards = self.losses(images, labels)
        self.updates += self.training
        return cross_entropy + rewards


class PlaceNetwork(nn.Module):
    """Names the mean of the next place, from a state and the last place.

    Args:
        features: size of the state.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, 2))
        # Small weights: every image begins with looks that stay where they are.
        nn.init.normal_(self.layers[2].weight, std=0.1 / math.sqrt(128))
        nn.init.zeros_(self.layers[2].bias)

    def forward(
        self, h: Float[Tensor, "B S H"], last: Float[Tensor, "B S 2"]
    ) -> Float[Tensor, "B S 2"]:
        """The mean, in [-1, 1]."""
        # In mixed precision too: eight bits of mantissa would place a look to half a pixel.
        with torch.autocast(h.device.type, enabled=False):
            return move(last, self.layers(h.to(self.layers[0].weight.dtype)))


# ---- RAM ----


@dataclass(frozen=True)
class MnihConfig(HardAttentionConfig):
    """All that shapes a RAM; its first look is at the middle of the image.

    Args:
        reinforced: where the gradient of the rewards goes: into the network that names the next
            `place` only, as Mnih et al. have it, or through it into the `core` as well.
    """

    reinforced: Literal["core", "place"] = "core"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.reinforced in ("core", "place"),
            f"MnihConfig: reinforced must be core or place, got {self.reinforced!r}",
        )
        require(self.glimpses >= 2, f"MnihConfig: glimpses must be at least 2, got {self.glimpses}")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> MnihModel:
        """The model with fresh weights."""
        return MnihModel(self, image_shape, classes)


class MnihModel(HardAttention):
    """Looks T times at hard crops, then names the class.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.

    Sections 3 and 4, Mnih et al. (2014). Theirs differs in the policy: one linear map to a place,
    a fixed sigma, a first look anywhere, one sample an image, a learnt baseline, and a reward of 1
    for the right class after the last look.
    """

    def __init__(self, config: MnihConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__(config, image_shape, classes)
        hidden = config.hidden
        self.h_g = nn.Linear(math.prod(self.crops.shape), 128)
        self.h_l = nn.Linear(2, 128)
        self.from_h_g = nn.Linear(128, 256)
        self.from_h_l = nn.Linear(128, 256)
        self.from_g = nn.Linear(256, hidden)
        self.from_h = nn.Linear(hidden, hidden, bias=False)
        nn.init.orthogonal_(self.from_h.weight)
        self.f_a = nn.Linear(hidden, classes)
        self.f_l = PlaceNetwork(hidden)

    def policy_parameters(self) -> list[nn.Parameter]:
        """The parameters that only rewards teach."""
        return list(self.f_l.parameters())

    def see(
        self,
        table: Float[Tensor, "B C entries"],
        place: Float[Tensor, "B S 2"],
        h: Float[Tensor, "B S H"] | None,
    ) -> Float[Tensor, "B S H"]:
        """The state after a look at `place`; the first look finds none."""
        what = F.relu(self.h_g(self.crops(table, place).flatten(2)))
        where = F.relu(self.h_l(place))
        g = F.relu(self.from_h_g(what) + self.from_h_l(where))
        return F.relu(self.from_g(g) if h is None else self.from_g(g) + self.from_h(h))

    def episode(self, images: Float[Tensor, "B C H W"], samples: int, noisy: bool) -> Episode:
        """See `HardAttention`."""
        images = self.prepare(images)
        table = self.crops.integral(images)
        place = images.new_zeros(len(images), 1, 2)
        # The first look is the same in all samples: it is taken once.
        h = self.see(table, place, None).expand(-1, samples, -1)
        place = place.expand(-1, samples, -1)
        states, places, means, drawn = [h], [place], [], []
        for _ in range(self.config.glimpses - 1):
            mean = self.f_l(h.detach() if self.config.reinforced == "place" else h, place)
            means.append(mean)
            drawn.append(self.draw(mean, noisy))
            place = drawn[-1].clamp(-1, 1)
            h = self.see(table, place, h)
            states.append(h)
            places.append(place)
        logits = self.f_a(torch.stack(states, 2))
        return Episode(logits, *(torch.stack(steps, 2) for steps in (places, means, drawn)))
