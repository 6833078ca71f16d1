"""Reading several objects in a row: a few looks for each, until none is left.

The model is that of `model.py`, and its state goes on from object to object. After every three
looks the classifier names a digit, or says with a class of its own that none is left. So the end
of a number is learnt like a digit.

A number may also be read from right to left. A reader tends to see one digit too many where it
ends, and the two end on opposite sides. `JoinedReader` believes the shorter reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require, require_batch, require_images
from ramlib.data.house_numbers import LONGEST, STOP, HouseNumbers
from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Classifier, Rollout
from ramlib.model import Look, RAMConfig, RecurrentAttentionModel

OBJECTS = LONGEST + 1  # the digits of the longest number, and the end
GREY_LEVELS = (0.0, 255.0)

# ---- what is read: digits as classes, then the class of the end ----


def count_digits(labels: Int64[Tensor, "B objects"]) -> Int64[Tensor, " B"]:
    """Digits before the first end."""
    return (labels != STOP).long().cumprod(1).sum(1)


def mirror(rows: Tensor, counts: Int64[Tensor, " B"]) -> Tensor:
    """Reverse the first `counts[b]` entries of each row; the others stay where they are."""
    place = torch.arange(rows.shape[1], device=rows.device)
    counts = counts[:, None]
    source = torch.where(place < counts, counts - 1 - place, place)
    return rows[torch.arange(len(rows), device=rows.device)[:, None], source]


def to_text(labels: Int64[Tensor, "B objects"]) -> list[str]:
    """The numbers as strings."""
    rows = zip(labels.tolist(), count_digits(labels).tolist(), strict=True)
    return ["".join(map(str, row[:count])) for row, count in rows]


# ---- how sure: for each object, a distribution over the digits and the end ----


def until_the_end(
    chances: Float[Tensor, "B objects classes"],
) -> Float[Tensor, "B all_objects classes"]:
    """Make a reading of six objects out of what one pass said.

    A pass is not taught what to say after the end, and need not go on. There, the end is certain.
    """
    objects, classes = chances.shape[1:]
    counts = count_digits(chances.argmax(-1))
    place = torch.arange(OBJECTS, device=chances.device)
    beyond = (place > counts[:, None]) | (place >= objects)
    padded = F.pad(chances, (0, 0, 0, OBJECTS - objects))
    end = F.one_hot(torch.tensor(STOP), classes).to(chances)
    return torch.where(beyond[..., None], end, padded)


def decode(chances: Float[Tensor, "B objects classes"]) -> Int64[Tensor, "B objects"]:
    """The likeliest digits before the first end. A number has one digit at least, and at most five.

    Args:
        chances: of six objects.
    """
    chances = chances.clone()
    chances[:, 0, STOP] = -torch.inf
    chances[:, LONGEST, :STOP] = -torch.inf
    labels = chances.argmax(-1)
    place = torch.arange(labels.shape[1], device=labels.device)
    return labels.masked_fill(place > count_digits(labels)[:, None], STOP)


def join(
    rightwards: Float[Tensor, "B objects classes"], leftwards: Float[Tensor, "B objects classes"]
) -> Float[Tensor, "B objects classes"]:
    """Join two readings of the same numbers: the shorter length wins, the chances are averaged.

    In a number of n digits, place i from the left is place n - 1 - i from the right. If a reader
    saw a digit too many, it saw it last, and that one falls away.

    Args:
        rightwards: read from left to right.
        leftwards: read from right to left, in that order.

    Returns:
        From left to right.

    Section IV-B, Semeniuta & Barth (2016).
    """
    counts = torch.minimum(count_digits(decode(rightwards)), count_digits(decode(leftwards)))
    both = (rightwards + mirror(leftwards, counts)) / 2
    # The length is settled: before it are digits, after it is nothing.
    both[..., STOP] = 0
    both = both / both.sum(-1, keepdim=True).clamp(min=torch.finfo(both.dtype).tiny)
    beyond = torch.arange(OBJECTS, device=both.device) >= counts[:, None]
    end = F.one_hot(torch.tensor(STOP), both.shape[-1]).to(both)
    return torch.where(beyond[..., None], end, both)


def sequence_loss(
    scores: Float[Tensor, "B objects classes"], targets: Int64[Tensor, "B objects"]
) -> Float[Tensor, ""]:
    """Negative log-likelihood of a number, its end included: the mean over the batch.

    Args:
        scores: of six objects.
        targets: digits in the order of reading, then 10s, of which the first is asked for.
    """
    place = torch.arange(OBJECTS, device=targets.device)
    targets = targets.masked_fill(place > count_digits(targets)[:, None], -100)
    summed = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum")
    return summed / len(targets)


# ---- models ----


class Reader(Classifier):
    """What reads numbers from crops with grey levels in [0, 255]."""

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """How likely each digit and the end are, for each of six objects from the left.

        Args:
            images: grey levels in [0, 255].
            passes: 0 for a single pass without noise; otherwise the mean of so many passes with
                noise on the grids, of which the paper takes 10.
        """
        raise NotImplementedError

    @torch.inference_mode()
    def predict(
        self, images: Float[Tensor, "B C H W"] | UInt8[Tensor, "B C H W"], *, passes: int = 0
    ) -> Int64[Tensor, "B objects"]:
        """The digits of each image from left to right, then 10s.

        Args:
            images: grey levels in [0, 255], in bytes or in floating point.
            passes: as in `probabilities`.

        Raises:
            TypeError: if `images` is neither a floating-point tensor nor one of bytes.
            ValueError: if its shape or range is wrong, it is empty, it is not finite, or `passes`
                is below 0.
        """
        if isinstance(images, Tensor) and images.dtype == torch.uint8:
            images = images.float()
        require_images("predict", images, self.image_shape, GREY_LEVELS)
        # No photograph is so dark: somebody has divided by 255.
        require(
            not 0 < (brightest := images.max().item()) <= 1,
            f"predict: images must have grey levels in [0, 255], got none above {brightest:g}; "
            "multiply pixels in [0, 1] by 255",
        )
        require(passes >= 0, f"predict: passes must be at least 0, got {passes}")
        images = images.to(next(self.parameters()).dtype)
        return decode(self.probabilities(images, passes=passes))

    def read(
        self, images: Float[Tensor, "B C H W"] | UInt8[Tensor, "B C H W"], *, passes: int = 0
    ) -> list[str]:
        """The number in each image; arguments and errors are those of `predict`."""
        return to_text(self.predict(images, passes=passes))


class CentredReader(Reader):
    """A reader that is one network, and sees crops as the paper prepares them.

    Args:
        image_shape: `(1, H, W)` of a crop, with grey levels in [0, 255].
        classes: 11, the digits and the end.

    Raises:
        ValueError: if `classes` is not 11.

    Section IV-B, Semeniuta & Barth (2016).
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int) -> None:
        require(
            classes == STOP + 1,
            f"{type(self).__name__}: classes must be {STOP + 1}, the digits and the end, "
            f"got {classes}",
        )
        super().__init__(image_shape, classes)
        self.register_buffer("mean_image", torch.full(tuple(image_shape), 128.0))

    def adapt(self, task: HouseNumbers) -> None:
        """Take over the mean image of the training crops."""
        self.mean_image.copy_(task.mean_image())

    def preprocess(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Subtract the mean image, and divide by 128."""
        return (images - self.mean_image) / 128


@dataclass(frozen=True)
class ReaderConfig(RAMConfig):
    """A `RAMConfig` with the paper's regularisation, and a direction.

    Args:
        glimpses: looks at each object.
        alpha: as in `RAMConfig`, as are all others that are not named here.
        dropout: on the glimpse network's output.
        recurrent_dropout: on the candidate states.
        direction: in which the digits are read. From right to left, the crop is mirrored and read
            from left to right: so a reader that starts from one of the other direction goes along
            the number from its first step, and has mirrored digits to learn, no new way to look.

    Raises:
        ValueError: if an argument is out of its range, or asks for what a reader does not know:
            loss after every look, or a penalised look.

    Section IV-B, Semeniuta & Barth (2016).
    """

    glimpses: int = 3
    alpha: float = 0.1
    dropout: float = 0.5
    recurrent_dropout: float = 0.5
    direction: Literal["left-to-right", "right-to-left"] = "left-to-right"

    def __post_init__(self) -> None:
        super().__post_init__()
        directions = ("left-to-right", "right-to-left")
        require(
            self.direction in directions,
            f"ReaderConfig: direction must be one of {', '.join(directions)}, "
            f"got {self.direction!r}",
        )
        require(
            self.supervision == "last" and self.penalised_step is None,
            "ReaderConfig: a reader is asked after the last look at each object, and no look is "
            f"penalised; got supervision={self.supervision!r} and "
            f"penalised_step={self.penalised_step}",
        )

    def build(self, image_shape: tuple[int, int, int], classes: int) -> HouseNumberReader:
        """The model with fresh weights."""
        return HouseNumberReader(self, image_shape, classes)


class HouseNumberReader(RecurrentAttentionModel, CentredReader):
    """Reads a number in one direction.

    Args:
        config: the architecture.
        image_shape: `(1, H, W)` of a crop, with grey levels in [0, 255].
        classes: 11, the digits and the end.

    Raises:
        ValueError: if `classes` is not 11, or a crop is smaller than a glimpse.

    Section IV-B, Semeniuta & Barth (2016).
    """

    config: ReaderConfig

    @property
    def mirrored(self) -> bool:
        """Whether it reads crops in a mirror."""
        return self.config.direction == "right-to-left"

    def preprocess(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Subtract the mean image, divide by 128, and mirror what is read from right to left.

        Then as every model that looks.
        """
        images = CentredReader.preprocess(self, images)
        return super().preprocess(images.flip(-1) if self.mirrored else images)

    def rollout(self, looks: list[Look]) -> Rollout:
        """Join looks. Where they were is told on the crop as it was given, not in the mirror."""
        seen = super().rollout(looks)
        if not self.mirrored:
            return seen
        return replace(
            seen,
            grids=replace(seen.grids, c_x=-seen.grids.c_x),
            glimpses=seen.glimpses.flip(-1),
            shifts=seen.shifts * seen.shifts.new_tensor([-1, 1]),
        )

    def _look_at_objects(
        self, images: Float[Tensor, "B C H W"], rows: Sequence[int], *, noisy: bool
    ) -> Iterator[list[Look]]:
        """The looks at one object after another; only the first `rows[k]` images have object k."""
        images = self.preprocess(images)
        state, grid = self.begin(images), None
        for n in rows:
            images, state = images[:n], state.first(n)
            grid = None if grid is None else grid[:n]
            looks = []
            for _ in range(self.config.glimpses):
                looks.append(self.look(images, state, grid, noisy=noisy))
                state, grid = looks[-1].state, looks[-1].grid
            yield looks

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Read six objects, or in evaluation mode until every number has ended.

        Args:
            images: grey levels in [0, 255].
            noisy: corrupt the grids; by default only while training.

        Returns:
            All looks, in groups of `glimpses` for each object. The scores after the last of a group
            are those of the object.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape is wrong or it is empty.
        """
        require_batch("HouseNumberReader", images, self.image_shape)
        noisy = self.training if noisy is None else noisy
        objects = []
        going = images.new_ones(len(images), dtype=torch.bool)
        for looks in self._look_at_objects(images, [len(images)] * OBJECTS, noisy=noisy):
            objects.append(looks)
            going &= self.f_class(looks[-1].state.h1).argmax(-1) != STOP
            if not self.training and not going.any():
                break
        return self.rollout(list(chain.from_iterable(objects)))

    def _scores(self, rollout: Rollout) -> Float[Tensor, "B objects classes"]:
        """Scores of each object."""
        return rollout.logits[:, self.config.glimpses - 1 :: self.config.glimpses]

    def _from_left(self, rows: Tensor, counts: Int64[Tensor, " B"]) -> Tensor:
        """From the order of reading into the order of the image, or back."""
        return mirror(rows, counts) if self.mirrored else rows

    def loss(self, rollout: Rollout, labels: Int64[Tensor, "B objects"]) -> Float[Tensor, ""]:
        """Negative log-likelihood of a number, its end included: the mean over the batch.

        Args:
            rollout: of six objects, as training mode gives it.
            labels: digits from left to right, then 10s.
        """
        targets = self._from_left(labels, count_digits(labels))
        return sequence_loss(self._scores(rollout), targets)

    def objective(
        self, images: Float[Tensor, "B C H W"], labels: Int64[Tensor, "B objects"]
    ) -> Float[Tensor, ""]:
        """The loss, from no more looks than it needs: a number is read to its end and no further.

        Args:
            images: grey levels in [0, 255].
            labels: digits from left to right, then 10s.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape is wrong or it is empty.
        """
        require_batch("HouseNumberReader", images, self.image_shape)
        counts = count_digits(labels)
        # Long numbers first, so that those which go on are always the first rows.
        order = counts.argsort(descending=True, stable=True)
        images, targets = images[order], self._from_left(labels, counts)[order]
        place = torch.arange(OBJECTS, device=labels.device)
        rows = (counts[:, None] >= place).sum(0).tolist()
        rows = [n for n in rows if n > 0]
        total = images.new_zeros(())
        for k, looks in enumerate(self._look_at_objects(images, rows, noisy=self.training)):
            scores = self.f_class(looks[-1].state.h1)
            total = total + F.cross_entropy(scores, targets[: rows[k], k], reduction="sum")
        return total / len(images)

    def wrong(self, rollout: Rollout, labels: Int64[Tensor, "B objects"]) -> Bool[Tensor, " B"]:
        """Whether any digit, or the length, was read wrongly."""
        read = decode(until_the_end(self._scores(rollout).float().softmax(-1)))
        return (self._from_left(read, count_digits(read)) != labels).any(1)

    def in_own_order(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """`probabilities`, in the order in which this reader reads."""

        def once(noisy: bool) -> Tensor:
            scores = self._scores(self(images, noisy=noisy))
            return until_the_end(scores.float().softmax(-1))

        if passes == 0:
            return once(False)
        return torch.stack([once(True) for _ in range(passes)]).mean(0)

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """See `Reader`."""
        chances = self.in_own_order(images, passes=passes)
        return self._from_left(chances, count_digits(decode(chances)))


@dataclass(frozen=True)
class JoinedReaderConfig:
    """Two readers that are alike but for their direction.

    Args:
        reader: either of them; its direction does not matter.
    """

    reader: ReaderConfig = field(default_factory=ReaderConfig)

    def build(self, image_shape: tuple[int, int, int], classes: int) -> JoinedReader:
        """The model with fresh weights."""
        return JoinedReader(self, image_shape, classes)


class JoinedReader(Reader):
    """Reads a number from both sides; see `join`.

    Args:
        config: the architecture.
        image_shape: `(1, H, W)` of a crop, with grey levels in [0, 255].
        classes: 11, the digits and the end.

    Section IV-B, Semeniuta & Barth (2016).
    """

    def __init__(
        self, config: JoinedReaderConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        super().__init__(image_shape, classes)
        self.config = config
        self.rightwards, self.leftwards = (
            replace(config.reader, direction=direction).build(image_shape, classes)
            for direction in ("left-to-right", "right-to-left")
        )

    @classmethod
    def of(cls, rightwards: HouseNumberReader, leftwards: HouseNumberReader) -> JoinedReader:
        """Join two trained readers.

        Raises:
            ValueError: if they do not read in opposite directions, or differ in more than that.
        """
        directions = (rightwards.config.direction, leftwards.config.direction)
        require(
            directions == ("left-to-right", "right-to-left"),
            f"JoinedReader.of: the readers must read left-to-right and right-to-left, got "
            f"{' and '.join(directions)}",
        )
        require(
            replace(leftwards.config, direction="left-to-right") == rightwards.config
            and leftwards.image_shape == rightwards.image_shape,
            "JoinedReader.of: the readers differ in more than their direction",
        )
        config = JoinedReaderConfig(rightwards.config)
        joined = cls(config, rightwards.image_shape, rightwards.classes)
        joined.rightwards.load_state_dict(rightwards.state_dict())
        joined.leftwards.load_state_dict(leftwards.state_dict())
        return joined.train(rightwards.training)

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """The looks of the left-to-right reader, then those of the other.

        Args:
            images: grey levels in [0, 255].
            noisy: corrupt the grids; by default only while training.
        """
        reads = [reader(images, noisy=noisy) for reader in (self.rightwards, self.leftwards)]
        grids = (vars(read.grids).values() for read in reads)
        return Rollout(
            torch.cat([read.logits for read in reads], 1),
            GlimpseGrid(*(torch.cat(both, 1) for both in zip(*grids, strict=True))),
            torch.cat([read.glimpses for read in reads], 1),
            torch.cat([read.shifts for read in reads], 1),
        )

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """See `Reader`."""
        return join(
            self.rightwards.in_own_order(images, passes=passes),
            self.leftwards.in_own_order(images, passes=passes),
        )

    def policy_parameters(self) -> list[nn.Parameter]:
        """Both readers'."""
        return self.rightwards.policy_parameters() + self.leftwards.policy_parameters()
