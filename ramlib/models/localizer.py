"""Attention as a localiser: the window that a classifier wants is a box around its object.

The model is that of `model.py` on frozen feature maps, with three changes that Section IV-C of
Semeniuta & Barth (2016) makes against overfitting: there is no context network, the classifier
reads the glimpse network instead of the memory, and its last layer forgets all now and then.

Near the bird, where windows begin, cross-entropy hardly changes with the window. So training may
also charge a window for *class evidence* that it leaves outside, and for its area. Evidence is
made of labels by LayerCAM, while training only; no box is ever seen, and no label when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require, require_batch, require_images
from ramlib.attention import Window
from ramlib.interface import Rollout
from ramlib.model import Look, RAMConfig, RecurrentAttentionModel
from ramlib.models.features import LITE0, FrozenMaps

# A soft window's edge, in cells of the maps.
SOFTNESS = 0.35


class MapBatch(NamedTuple):
    """A batch of feature maps, with what is known of their photographs.

    `evidence` says how much speaks for the class at each place, and sums to one. `boxes` are the
    objects', in pixels of the photograph; they are for measuring.
    """

    images: Float[Tensor, "B C H W"]
    labels: Int64[Tensor, " B"]
    boxes: Float[Tensor, "B 4"]
    evidence: Float[Tensor, "B H W"]


@dataclass(frozen=True)
class LocalizerConfig:
    """What shapes a `Localizer`, and what its training charges.

    Args:
        backbone: network of timm whose maps are looked at.
        maps: `(C, H, W)` of its stage that is looked at.
        glimpses: T, looks per photograph.
        size: N, side of a glimpse.
        hidden: size of `h1`, `h2` and of the glimpse's features.
        width: channels that a glimpse is brought to before it is read.
        window: start and limits of the attention window.
        alpha: half-width of the noise on the grid.
        dropout: in the glimpse network and before the last layer.
        reads: what the classifier reads: each `glimpse`, or the `memory`, as elsewhere in the book.
        reset_every: updates after which the last layer starts anew; None for never.
        resets: how often it does so.
        evidence: weight of the class evidence outside the last window.
        area: weight of that window's area, as a share of the photograph.
    """

    backbone: str = LITE0
    maps: tuple[int, int, int] = (112, 16, 16)
    glimpses: int = 2
    size: int = 8
    hidden: int = 256
    width: int = 32
    window: Window = field(default_factory=lambda: Window(0.7, 0.2, 1.0))
    alpha: float = 0.1
    dropout: float = 0.3
    reads: Literal["glimpse", "memory"] = "glimpse"
    reset_every: int | None = None
    resets: int = 10
    evidence: float = 0.0
    area: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.reads in ("glimpse", "memory"),
            f"LocalizerConfig: reads must be one of glimpse, memory, got {self.reads!r}",
        )
        require(
            self.reset_every is None or self.reset_every >= 1,
            f"LocalizerConfig: reset_every must be at least 1 or None, got {self.reset_every}",
        )
        for name in ("evidence", "area"):
            value = getattr(self, name)
            require(value >= 0, f"LocalizerConfig: {name} must be at least 0, got {value}")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> Localizer:
        """The model with fresh weights."""
        return Localizer(self, image_shape, classes)


class MapGlimpseNetwork(nn.Sequential):
    """f_glimpse for feature maps: fewer channels, then one dense layer.

    Args:
        channels: of the maps.
        size: N, side of a glimpse.
        features: size of the feature vector.
        width: channels that it is brought to first.
        dropout: before the dense layer.
    """

    def __init__(self, channels: int, size: int, features: int, width: int, dropout: float) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(width * size**2, features),
            nn.ReLU(),
        )


class Localizer(RecurrentAttentionModel):
    """Looks at photographs through frozen features, and says where it looked last.

    Args:
        config: the architecture, and what training charges.
        image_shape: `(3, H, W)` of a photograph, RGB in [0, 1].
        classes: number of classes.
    """

    def __init__(
        self, config: LocalizerConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        channels = config.maps[0]
        super().__init__(
            RAMConfig(
                glimpses=config.glimpses,
                size=config.size,
                hidden=config.hidden,
                context=False,
                window=config.window,
                alpha=config.alpha,
            ),
            image_shape,
            classes,
            prepare=FrozenMaps(config.backbone, config.maps),
            f_glimpse=MapGlimpseNetwork(
                channels, config.size, config.hidden, config.width, config.dropout
            ),
        )
        self.settings = config
        self.f_class = nn.Linear(config.hidden, classes)
        self.forget()

    def forget(self) -> None:
        """Let the last layer start anew, from zeros."""
        with torch.no_grad():
            self.f_class.weight.zero_()
            self.f_class.bias.zero_()

    @property
    def stochastic(self) -> bool:
        """Never: noise is for training alone, and boxes of noisy passes are not averaged."""
        return False

    def adapt(self, task: Any) -> None:
        """Learn what the channels of training maps are like."""
        maps = [self.prepare.see(b.images).maps if b.images.shape[1] == 3 else b.images
                for b in task.batches("train")]  # fmt: skip
        n = sum(part[:, 0].numel() for part in maps)
        mean = sum(part.double().sum((0, 2, 3)) for part in maps) / n
        square = sum(part.double().square().sum((0, 2, 3)) for part in maps) / n
        self.prepare.standardise(mean.float(), (square - mean**2).clamp(min=0).sqrt().float())

    def looks(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> list[Look]:
        """The T looks at photographs, or at maps that were made of them before."""
        if tuple(images.shape[1:]) != self.seen_shape:
            require_batch("Localizer", images, self.image_shape)
        noisy = self.training if noisy is None else noisy
        maps = self.preprocess(images)
        state, looks = self.begin(maps), []
        for _ in range(self.config.glimpses):
            last = looks[-1].grid if looks else None
            looks.append(self.look(maps, state, last, noisy=noisy))
            state = looks[-1].state
        return looks

    def rollout(self, looks: list[Look]) -> Rollout:
        """Join looks; the classifier reads what the configuration says."""
        rollout = super().rollout(looks)
        if self.settings.reads == "memory":
            return rollout
        seen = rollout.glimpses
        features = self.f_glimpse(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        logits = self.f_class(F.dropout(features, self.settings.dropout, self.training))
        return Rollout(logits, rollout.windows, rollout.grids, seen, rollout.shifts)

    def learn(self, batch: Any, update: int) -> Float[Tensor, ""]:
        """Cross-entropy of the last look, and the charges on its window.

        Args:
            batch: photographs or maps; with `evidence` where that is charged.
            update: steps made before this one, for the resets.

        Raises:
            ValueError: if evidence is charged and the batch has none.
        """
        settings = self.settings
        every = settings.reset_every
        if (
            every is not None
            and update > 0
            and update % every == 0
            and update // every <= settings.resets
        ):
            self.forget()
        rollout = self(batch.images)
        loss = self.loss(rollout, batch.labels)
        height, width = self.image_shape[1:]
        window = rollout.windows[:, -1]
        if settings.area:
            sides = window[:, 2:] - window[:, :2]
            loss = loss + settings.area * sides.prod(1).mean() / (height * width)
        if settings.evidence:
            require(
                isinstance(batch, MapBatch),
                "Localizer: class evidence is charged, but the batch has none; take batches from "
                "a task of feature maps, or set evidence to 0",
            )
            rows, columns = self.seen_shape[1:]
            cells = window * window.new_tensor([columns / width, rows / height] * 2)
            outside = 1 - soft_inside(cells, (rows, columns))
            left_out = (outside * batch.evidence).sum((1, 2))
            loss = loss + settings.evidence * left_out.mean()
        return loss

    def locate(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 4"]:
        """The box around each photograph's object, cut at the border.

        It is the mean of the last windows on the photograph and on its mirror image, so that what
        the frozen network sees a little too far to one side evens out.

        Args:
            images: RGB in [0, 1], of the size that the model was built for.

        Returns:
            Boxes, xyxy in pixels.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape or range is wrong, it is empty or it is not finite.
            ImportError: if what brings the frozen features is not installed.
        """
        require_images("locate", images, self.image_shape, self.value_range)
        training, own = self.training, next(self.parameters())
        try:
            self.eval()
            with torch.no_grad():
                images = images.to(own.device, own.dtype)
                straight, mirrored = (self(one).windows for one in (images, images.flip(3)))
        finally:
            self.train(training)
        return self.join(straight, mirrored)[:, -1]

    def join(
        self, straight: Float[Tensor, "B T 4"], mirrored: Float[Tensor, "B T 4"]
    ) -> Float[Tensor, "B T 4"]:
        """The mean of windows on photographs and on their mirror images, cut at the border.

        Args:
            straight: in pixels of the photographs.
            mirrored: of each, in pixels of its mirror image.
        """
        height, width = self.image_shape[1:]
        x1, y1, x2, y2 = mirrored.unbind(-1)
        back = torch.stack([width - x2, y1, width - x1, y2], -1)
        limit = straight.new_tensor([width, height, width, height])
        return torch.minimum((straight + back) / 2, limit).clamp(min=0)


def soft_inside(boxes: Float[Tensor, "B 4"], shape: tuple[int, int]) -> Float[Tensor, "B H W"]:
    """How far each cell is inside a box: a product of sigmoids, one half on an edge.

    Args:
        boxes: xyxy in cells.
        shape: `(H, W)` of the maps.
    """

    def along(low: Tensor, high: Tensor, cells: int) -> Float[Tensor, "B cells"]:
        middle = torch.arange(cells, device=boxes.device, dtype=boxes.dtype) + 0.5
        after, before = middle - low[:, None], high[:, None] - middle
        return torch.sigmoid(after / SOFTNESS) * torch.sigmoid(before / SOFTNESS)

    x1, y1, x2, y2 = boxes.unbind(1)
    rows, columns = along(y1, y2, shape[0]), along(x1, x2, shape[1])
    return rows[:, :, None] * columns[:, None, :]


def smooth(evidence: Float[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """Evidence under a Gaussian of one cell."""
    steps = torch.arange(-3.0, 4.0, device=evidence.device)
    kernel = torch.softmax(-steps.square() / 2, 0)
    down = F.conv2d(evidence[:, None], kernel.view(1, 1, -1, 1), padding=(3, 0))
    return F.conv2d(down, kernel.view(1, 1, 1, -1), padding=(0, 3))[:, 0]


def sharpen(
    evidence: Float[Tensor, "B H W"], threshold: float, softness: float = 0.05
) -> Float[Tensor, "B H W"]:
    """Smooth evidence by one cell, keep what is near its maximum, and let it sum to one.

    Args:
        evidence: at least 0 everywhere, for example from `layer_cam`.
        threshold: share of the maximum at which a cell counts half.
        softness: of the threshold, as a share of the maximum.
    """
    blurred = smooth(evidence)
    largest = blurred.amax((1, 2), keepdim=True).clamp(min=1e-12)
    kept = torch.sigmoid((blurred / largest - threshold) / softness)
    return kept / kept.sum((1, 2), keepdim=True)
