"""The recurrent attention model: eqs. 1-4 of Semeniuta & Barth (2016) in one loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require, require_batch
from ramlib.attention import AttentionPolicy, Window, shift_penalty
from ramlib.glimpse import GlimpseGrid, read_glimpse
from ramlib.interface import Classifier, Rollout
from ramlib.networks import (
    ClassificationNetwork,
    ContextNetwork,
    ConvGlimpseNetwork,
    DenseGlimpseNetwork,
)
from ramlib.recurrence import RECURRENCES, State

# Which looks the loss charges.
SUPERVISION = {"last": slice(-1, None), "after-first": slice(1, None), "all": slice(None)}
# Channels of each glimpse network's convolutions.
EYES = {"dense": (), "conv-3": (16, 32, 32), "conv-5": (16, 32, 32, 32, 32)}


@dataclass(frozen=True)
class RAMConfig:
    """All that shapes a `RecurrentAttentionModel`, apart from the images and the classes.

    Args:
        glimpses: T, looks per image.
        size: N, side of a glimpse.
        hidden: size of `h1`, `h2` and of every feature vector.
        eye: glimpse network: `dense`, `conv-3` or `conv-5`.
        eye_width: factor on the channels of its convolutions.
        context: whether the context network exists.
        shrink: factor by which the context network averages the image down.
        window: start and limits of the attention window.
        relative: regress shifts of the centre in place of centres.
        penalised_step: the look, counted from 1, at which eq. 5 is charged; None for never.
        alpha: half-width of the noise on the grid.
        gradient_limit: of one look's gradient to the policy; see `AttentionPolicy`.
        recurrence: `top-down` (the paper's), `bottom-up` or `one-layer`.
        dropout: on the glimpse network's output.
        recurrent_dropout: on the candidate states.
        classifier: units of a hidden layer of the classification network.
        classifier_layers: its hidden layers.
        supervision: classify after the `last` look only, after every look but the first
            (`after-first`), or after `all` of them.
    """

    glimpses: int = 4
    size: int = 12
    hidden: int = 256
    eye: Literal["dense", "conv-3", "conv-5"] = "dense"
    eye_width: int = 1
    context: bool = True
    shrink: int = 2
    window: Window = field(default_factory=Window)
    relative: bool = False
    penalised_step: int | None = None
    alpha: float = 0.0
    gradient_limit: float | None = None
    recurrence: Literal["top-down", "bottom-up", "one-layer"] = "top-down"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    classifier: int = 256
    classifier_layers: int = 1
    supervision: Literal["last", "after-first", "all"] = "last"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("eye", tuple(EYES)),
            ("recurrence", tuple(RECURRENCES)),
            ("supervision", tuple(SUPERVISION)),
        ):
            value = getattr(self, name)
            require(
                value in allowed,
                f"RAMConfig: {name} must be one of {', '.join(allowed)}, got {value!r}",
            )
        for name in ("glimpses", "eye_width", "classifier", "classifier_layers"):
            value = getattr(self, name)
            require(value >= 1, f"RAMConfig: {name} must be at least 1, got {value}")
        require(
            self.penalised_step is None or 1 <= self.penalised_step <= self.glimpses,
            f"RAMConfig: penalised_step must be in [1, {self.glimpses}] or None, "
            f"got {self.penalised_step}",
        )
        require(
            self.supervision != "after-first" or self.glimpses >= 2,
            f"RAMConfig: supervision after-first needs at least 2 glimpses, got {self.glimpses}",
        )
        require(0 <= self.dropout < 1, f"RAMConfig: dropout must be in [0, 1), got {self.dropout}")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> RecurrentAttentionModel:
        """The model with fresh weights."""
        return RecurrentAttentionModel(self, image_shape, classes)


class Look(NamedTuple):
    """One look: the state after it, where it was, what it saw, and how far the centre moved."""

    state: State
    grid: GlimpseGrid
    glimpse: Float[Tensor, "B C N N"]
    shift: Float[Tensor, "B 2"]


class RecurrentAttentionModel(Classifier):
    """Looks T times, then names the class.

    Args:
        config: the architecture.
        image_shape: `(C, H, W)` of an image, with pixels in [0, 1].
        classes: number of classes.
        prepare: what is done to an image before anybody looks at it: centring, or the frozen
            layers of another network, whose `(C, H, W)` it then names as `out_shape`. Nothing,
            when left out.
        f_glimpse: a glimpse network of one's own, from `(B, C, N, N)` to `(B, hidden)`, in place
            of the one that `config` names.
        operator: a glimpse operator of one's own, with the arguments of `read_glimpse`.

    Raises:
        ValueError: if an image is smaller than a glimpse.
    """

    def __init__(
        self,
        config: RAMConfig,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        prepare: nn.Module | None = None,
        f_glimpse: nn.Module | None = None,
        operator: Callable[..., Tensor] = read_glimpse,
    ) -> None:
        super().__init__(image_shape, classes)
        self.prepare = nn.Identity() if prepare is None else prepare
        self.seen_shape = tuple(getattr(self.prepare, "out_shape", image_shape))
        channels, *image_size = self.seen_shape
        require(
            min(image_size) >= config.size,
            f"RecurrentAttentionModel: images of shape {self.seen_shape} are smaller than the "
            f"glimpse, whose size is {config.size}",
        )
        self.config, self.operator = config, operator
        width = config.hidden
        self.f_context = (
            ContextNetwork(self.seen_shape, width, shrink=config.shrink) if config.context else None
        )
        if f_glimpse is not None:
            self.f_glimpse = f_glimpse
        elif config.eye == "dense":
            self.f_glimpse = DenseGlimpseNetwork(channels, config.size, width)
        else:
            widths = [config.eye_width * least for least in EYES[config.eye]]
            self.f_glimpse = ConvGlimpseNetwork(channels, config.size, width, widths)
        self.f_rec = RECURRENCES[config.recurrence](
            width, width if config.context else 0, width, config.recurrent_dropout
        )
        self.f_ext = AttentionPolicy(
            width,
            config.size,
            tuple(image_size),
            config.window,
            relative=config.relative,
            alpha=config.alpha,
            gradient_limit=config.gradient_limit,
        )
        self.f_class = ClassificationNetwork(
            width, classes, config.classifier, config.classifier_layers
        )

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Look at each image T times.

        Args:
            images: pixels in [0, 1].
            noisy: corrupt the grids; by default only while training.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape is wrong or it is empty.
        """
        return self.rollout(self.looks(images, noisy=noisy))

    def looks(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> list[Look]:
        """The T looks of `forward`, one after another, with the state after each."""
        require_batch("RecurrentAttentionModel", images, self.image_shape)
        noisy = self.training if noisy is None else noisy
        images = self.preprocess(images)
        state, grid, looks = self.begin(images), None, []
        for _ in range(self.config.glimpses):
            look = self.look(images, state, grid, noisy=noisy)
            state, grid = look.state, look.grid
            looks.append(look)
        return looks

    def preprocess(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c h w"]:
        """What the looks are taken from: in mixed precision, its type, once and for all looks."""
        images = self.prepare(images)
        device = images.device.type
        if torch.is_autocast_enabled(device):
            return images.to(torch.get_autocast_dtype(device))
        return images

    def begin(self, images: Float[Tensor, "B C H W"]) -> State:
        """The state before the first look: of preprocessed images, it knows the context alone."""
        context = self.f_context(images) if self.f_context is not None else None
        return self.f_rec.begin(context, images.shape[0])

    def look(
        self,
        images: Float[Tensor, "B C H W"],
        state: State,
        last: GlimpseGrid | None,
        *,
        noisy: bool,
        through: GlimpseGrid | None = None,
    ) -> Look:
        """Eqs. 1-3: decide where to look, look there, and remember it.

        Args:
            images: from `preprocess`.
            state: after the last look.
            last: where that was; None before the first.
            noisy: corrupt the grid.
            through: look through this window instead of the one decided on.
        """
        state = self.f_rec.look(state)  # eq. 1
        grid, shift = self.f_ext(state.h2, last, noisy=noisy)  # eq. 2: where
        # Another policy's windows may be larger than ours can be.
        seen, support = (grid, self.f_ext.support) if through is None else (through, None)
        g = self.operator(images, seen, self.config.size, support=support)  # what
        features = F.dropout(self.f_glimpse(g), self.config.dropout, self.training)
        return Look(self.f_rec.see(state, features), grid, g, shift)  # eq. 3

    def rollout(self, looks: list[Look]) -> Rollout:
        """Join looks, and score the classes after each of them."""
        memories = torch.stack([look.state.h1 for look in looks], 1)
        grids = GlimpseGrid.stack([look.grid for look in looks])
        return Rollout(
            self.f_class(memories),  # eq. 4
            self.windows(grids),
            grids,
            torch.stack([look.glimpse for look in looks], 1),
            torch.stack([look.shift for look in looks], 1),
        )

    def windows(self, grids: GlimpseGrid) -> Float[Tensor, "B T 4"]:
        """The boxes that the grids cover, in pixels of the image that was given."""
        boxes = grids.boxes(self.config.size, self.seen_shape[1:])
        if self.seen_shape[1:] == self.image_shape[1:]:
            return boxes
        (height, width), (rows, columns) = self.image_shape[1:], self.seen_shape[1:]
        return boxes * boxes.new_tensor([width / columns, height / rows] * 2)

    @property
    def stochastic(self) -> bool:
        """Whether there is noise on the grids."""
        return self.config.alpha > 0

    def loss(self, rollout: Rollout, labels: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Cross-entropy of the supervised looks, plus the shift penalty where it is charged."""
        logits = rollout.logits[:, SUPERVISION[self.config.supervision]]
        looks = logits.shape[1]
        value = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(looks))
        if self.config.penalised_step is not None:
            value = value + shift_penalty(rollout.shifts[:, self.config.penalised_step - 1]).mean()
        return value

    def policy_parameters(self) -> list[nn.Parameter]:
        """Parameters of the attention policy, which learn at a rate of their own."""
        return list(self.f_ext.parameters())
