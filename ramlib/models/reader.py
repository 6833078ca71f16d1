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
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require, require_batch
from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Classifier, Rollout
from ramlib.labels import (
    OBJECTS,
    STOP,
    count_digits,
    decode_numbers,
    join,
    mirror,
    sequence_loss,
    to_text,
    until_the_end,
)
from ramlib.model import Look, RAMConfig, RecurrentAttentionModel
from ramlib.tasks import Task


class CentredCrop(nn.Module):
    """Prepares crops as the paper does: less the mean image, divided by 128.

    Args:
        image_shape: `(1, H, W)` of a crop, with grey levels in [0, 255].
        mirrored: flip crops from left to right as well.

    Section IV-B, Semeniuta & Barth (2016).
    """

    def __init__(self, image_shape: tuple[int, int, int], *, mirrored: bool = False) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.register_buffer("mean_image", torch.full(tuple(image_shape), 128.0))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Centred grey levels, about in [-1, 1]."""
        centred = (images - self.mean_image) / 128
        return centred.flip(-1) if self.mirrored else centred


class Reader:
    """What a `Classifier` of house numbers has besides: grey levels in bytes, and strings.

    Its classes are the ten digits and the end, and its answer is a row of six of them.
    """

    value_range = (0.0, 255.0)

    @staticmethod
    def require_classes(where: str, classes: int) -> None:
        """Refuse anything but the digits and the end."""
        require(
            classes == STOP + 1,
            f"{where}: classes must be {STOP + 1}, the digits and the end, got {classes}",
        )

    def adapt(self, task: Task) -> None:
        """Take over the mean image of the training crops."""
        self.prepare.mean_image.copy_(task.mean_image())

    def decode(
        self, probabilities: Float[Tensor, "B objects classes"]
    ) -> Int64[Tensor, "B objects"]:
        """The likeliest digits before the first end."""
        return decode_numbers(probabilities)

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
        elif isinstance(images, Tensor) and images.is_floating_point() and images.numel() > 0:
            # No photograph is so dark: somebody has divided by 255.
            require(
                not 0 < (brightest := images.max().item()) <= 1,
                "predict: images must have grey levels in [0, 255], got none above "
                f"{brightest:g}; multiply pixels in [0, 1] by 255",
            )
        return super().predict(images, passes=passes)

    def read(
        self, images: Float[Tensor, "B C H W"] | UInt8[Tensor, "B C H W"], *, passes: int = 0
    ) -> list[str]:
        """The number in each image; arguments and errors are those of `predict`."""
        return to_text(self.predict(images, passes=passes))


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


class HouseNumberReader(Reader, RecurrentAttentionModel):
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

    def __init__(
        self, config: ReaderConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        self.require_classes("HouseNumberReader", classes)
        prepare = CentredCrop(image_shape, mirrored=config.direction == "right-to-left")
        super().__init__(config, image_shape, classes, prepare=prepare)

    @property
    def mirrored(self) -> bool:
        """Whether it reads crops in a mirror."""
        return self.prepare.mirrored

    def rollout(self, looks: list[Look]) -> Rollout:
        """Join looks. Where they were is told on the crop as it was given, not in the mirror."""
        seen = super().rollout(looks)
        if self.mirrored:
            width = self.image_shape[-1]
            left, top, right, bottom = seen.windows.unbind(-1)
            seen = replace(
                seen,
                windows=torch.stack([width - right, top, width - left, bottom], -1),
                grids=replace(seen.grids, c_x=-seen.grids.c_x),
                glimpses=seen.glimpses.flip(-1),
                shifts=seen.shifts * seen.shifts.new_tensor([-1, 1]),
            )
        own = until_the_end(self._scores(seen).float().softmax(-1))
        return replace(seen, said=decode_numbers(self._from_left(own)))

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
        # A graph that is captured, for torch.compile or ONNX, cannot end early.
        may_end = not self.training and not torch.compiler.is_compiling()
        objects = []
        count = images.shape[0]
        going = images.new_ones(count, dtype=torch.bool)
        for looks in self._look_at_objects(images, [count] * OBJECTS, noisy=noisy):
            objects.append(looks)
            going &= self.f_class(looks[-1].state.h1).argmax(-1) != STOP
            if may_end and not going.any():
                break
        return self.rollout(list(chain.from_iterable(objects)))

    def _scores(self, rollout: Rollout) -> Float[Tensor, "B objects classes"]:
        """Scores of each object."""
        return rollout.logits[:, self.config.glimpses - 1 :: self.config.glimpses]

    def _targets(self, labels: Int64[Tensor, "B objects"]) -> Int64[Tensor, "B objects"]:
        """The labels in the order of reading."""
        return mirror(labels, count_digits(labels)) if self.mirrored else labels

    def _from_left(
        self, own: Float[Tensor, "B objects classes"]
    ) -> Float[Tensor, "B objects classes"]:
        """Probabilities in the order of the image, from those in the order of reading."""
        return mirror(own, count_digits(decode_numbers(own))) if self.mirrored else own

    def loss(self, rollout: Rollout, labels: Int64[Tensor, "B objects"]) -> Float[Tensor, ""]:
        """Negative log-likelihood of a number, its end included: the mean over the batch.

        Args:
            rollout: of six objects, as training mode gives it.
            labels: digits from left to right, then 10s.
        """
        return sequence_loss(self._scores(rollout), self._targets(labels))

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
        if torch.compiler.is_compiling():  # the number of images that go on is not known then
            return super().objective(images, labels)
        counts = count_digits(labels)
        # Long numbers first, so that those which go on are always the first rows.
        order = counts.argsort(descending=True, stable=True)
        images, targets = images[order], self._targets(labels)[order]
        place = torch.arange(OBJECTS, device=labels.device)
        rows = (counts[:, None] >= place).sum(0).tolist()
        rows = [n for n in rows if n > 0]
        total = images.new_zeros(())
        for k, looks in enumerate(self._look_at_objects(images, rows, noisy=self.training)):
            scores = self.f_class(looks[-1].state.h1)
            total = total + F.cross_entropy(scores, targets[: rows[k], k], reduction="sum")
        return total / len(images)

    def in_own_order(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """`probabilities`, in the order in which this reader reads."""
        # Passes may differ in length, so each is filled up to six objects before they are averaged.
        runs = [self(images, noisy=passes > 0) for _ in range(max(passes, 1))]
        chances = [until_the_end(self._scores(run).float().softmax(-1)) for run in runs]
        return torch.stack(chances).mean(0)

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """How likely each digit and the end are, for each of six objects from the left."""
        return self._from_left(self.in_own_order(images, passes=passes))


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


class JoinedReader(Reader, Classifier):
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
        self.require_classes("JoinedReader", classes)
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
        like = rightwards.prepare.mean_image
        joined = cls(config, rightwards.image_shape, rightwards.classes)
        joined.to(like.device, like.dtype).train(rightwards.training)
        joined.rightwards.load_state_dict(rightwards.state_dict())
        joined.leftwards.load_state_dict(leftwards.state_dict())
        return joined

    def adapt(self, task: Task) -> None:
        """Both readers take over the mean image."""
        self.rightwards.adapt(task)
        self.leftwards.adapt(task)

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """The looks of the left-to-right reader, then those of the other.

        Args:
            images: grey levels in [0, 255].
            noisy: corrupt the grids; by default only while training.
        """
        readers = (self.rightwards, self.leftwards)
        reads = [reader(images, noisy=noisy) for reader in readers]
        own = (
            until_the_end(reader._scores(read).float().softmax(-1))
            for reader, read in zip(readers, reads, strict=True)
        )
        return Rollout(
            torch.cat([read.logits for read in reads], 1),
            torch.cat([read.windows for read in reads], 1),
            GlimpseGrid.cat([read.grids for read in reads]),
            torch.cat([read.glimpses for read in reads], 1),
            torch.cat([read.shifts for read in reads], 1),
            said=decode_numbers(join(*own)),
        )

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """How likely each digit and the end are, for each of six objects from the left."""
        return join(
            self.rightwards.in_own_order(images, passes=passes),
            self.leftwards.in_own_order(images, passes=passes),
        )

    @property
    def stochastic(self) -> bool:
        """Whether either reader's noisy passes differ."""
        return self.rightwards.stochastic or self.leftwards.stochastic

    def policy_parameters(self) -> list[nn.Parameter]:
        """Both readers'."""
        return self.rightwards.policy_parameters() + self.leftwards.policy_parameters()
