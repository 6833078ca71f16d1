"""Reading a number at a glance: a CNN sees the whole crop once, and all digits come out together.

Nothing is read one after another here, so the CNN must say in another way where a number ends.
`GoodfellowCNN` has an output for the length; `EndingCNN` has a class for the end at every place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ramlib._checks import require, require_batch
from ramlib.interface import Classifier, Rollout
from ramlib.labels import (
    LONGEST,
    OBJECTS,
    STOP,
    count_digits,
    decode_numbers,
    sequence_loss,
    until_the_end,
)
from ramlib.models.reader import CentredCrop, Reader


@dataclass(frozen=True)
class NumberCNNConfig:
    """A CNN that reads at a glance. By default, Goodfellow et al.'s at a quarter of its channels.

    Args:
        end: how it says where a number ends: by its `length`, or by a class of the `end`.
        stages: channels of the 3x3 convolutions, stage by stage; between stages the image is
            halved.
        hidden: units of the dense layer before the outputs.
        dropout: on what the dense layer takes and gives.

    Raises:
        ValueError: if an argument is out of its range.

    Section 5.1, Goodfellow et al. (2014), whose eight convolutions are 5x5 and have 48 to 192
    channels.
    """

    end: Literal["length", "end"] = "length"
    stages: Sequence[Sequence[int]] = ((12,), (16, 32), (40, 48), (48, 48), (48,))
    hidden: int = 768
    dropout: float = 0.5

    def __post_init__(self) -> None:
        require(
            self.end in ENDS,
            f"NumberCNNConfig: end must be one of {', '.join(ENDS)}, got {self.end!r}",
        )
        require(
            len(self.stages) >= 1 and all(len(stage) >= 1 for stage in self.stages),
            f"NumberCNNConfig: every stage must have a convolution, got stages={self.stages}",
        )
        require(
            0 <= self.dropout < 1,
            f"NumberCNNConfig: dropout must be in [0, 1), got {self.dropout}",
        )

    def build(self, image_shape: tuple[int, int, int], classes: int) -> NumberCNN:
        """The model with fresh weights."""
        return ENDS[self.end](self, image_shape, classes)


class NumberCNN(Reader, Classifier):
    """Convolutions, a dense layer, and six outputs of eleven scores.

    Args:
        config: the architecture.
        image_shape: `(1, H, W)` of a crop, with grey levels in [0, 255].
        classes: 11, the digits and the end.

    Raises:
        ValueError: if `classes` is not 11.
    """

    def __init__(
        self, config: NumberCNNConfig, image_shape: tuple[int, int, int], classes: int
    ) -> None:
        self.require_classes(type(self).__name__, classes)
        super().__init__(image_shape, classes)
        self.config = config
        self.prepare = CentredCrop(image_shape)
        channels, height, width = image_shape
        widths = iter(pairwise((channels, *chain.from_iterable(config.stages))))
        layers: list[nn.Module] = []
        for stage in config.stages:
            if layers:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            for _ in stage:
                before, after = next(widths)
                # Normalised before the bend, so that the convolution needs no bias of its own.
                convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        # In memory, channels last: a training step takes a third less time on a CPU.
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(config.stages[-1][-1] * height * width, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, OBJECTS * classes),
        )

    def forward(self, images: Float[Tensor, "B C H W"], *, noisy: bool | None = None) -> Rollout:
        """Six outputs of eleven scores; `noisy` changes nothing.

        Args:
            images: grey levels in [0, 255].
            noisy: of no effect, since no grid is laid.

        Raises:
            TypeError: if `images` is not a floating-point tensor.
            ValueError: if its shape is wrong or it is empty.
        """
        require_batch(type(self).__name__, images, self.image_shape)
        scores = self.dense(self.convolutions(self.prepare(images)))
        scores = scores.unflatten(1, (OBJECTS, self.classes))
        return Rollout(scores, said=decode_numbers(self.chances(scores.float())))

    def chances(
        self, scores: Float[Tensor, "B objects classes"]
    ) -> Float[Tensor, "B objects classes"]:
        """How likely each digit and the end are, for each of six objects from the left.

        Args:
            scores: the six outputs.
        """
        raise NotImplementedError

    def probabilities(
        self, images: Float[Tensor, "B C H W"], *, passes: int = 0
    ) -> Float[Tensor, "B objects classes"]:
        """As of any reader; all passes of a model without noise are the same."""
        return self.chances(self(images).logits.float())


class GoodfellowCNN(NumberCNN):
    """The first output is the length, the other five are the digits at their places.

    Of the scores of the length those of 1 to 5 count, and of a digit's those of 0 to 9.

    Goodfellow et al. (2014).
    """

    @staticmethod
    def _parts(
        scores: Float[Tensor, "B objects classes"],
    ) -> tuple[Float[Tensor, "B lengths"], Float[Tensor, "B places digits"]]:
        return scores[:, 0, 1 : LONGEST + 1], scores[:, 1:, :STOP]

    def loss(self, rollout: Rollout, labels: Int64[Tensor, "B objects"]) -> Float[Tensor, ""]:
        """Negative log-likelihood of the length and of the digits that there are.

        Args:
            rollout: the six outputs.
            labels: digits from left to right, then 10s.

        Section 4, Goodfellow et al. (2014).
        """
        length, digits = self._parts(rollout.logits)
        targets = labels[:, :LONGEST].flatten()
        summed = F.cross_entropy(digits.flatten(0, 1), targets, ignore_index=STOP, reduction="sum")
        return F.cross_entropy(length, count_digits(labels) - 1) + summed / len(labels)

    def chances(
        self, scores: Float[Tensor, "B objects classes"]
    ) -> Float[Tensor, "B objects classes"]:
        """The digits' own, up to the likeliest end; there and beyond, the end is certain.

        A number of n digits is as likely as its length times its first n digits, and the likeliest
        of all numbers of all lengths wins.
        """
        length, digits = (part.log_softmax(-1) for part in self._parts(scores))
        counts = 1 + (length + digits.amax(-1).cumsum(1)).argmax(1)
        beyond = torch.arange(OBJECTS, device=scores.device) >= counts[:, None]
        end = F.one_hot(torch.tensor(STOP), self.classes).to(scores)
        padded = F.pad(digits.exp(), (0, 1, 0, 1))
        return torch.where(beyond[..., None], end, padded)


class EndingCNN(NumberCNN):
    """Each output is a digit or the end; what comes after the first end does not count."""

    def loss(self, rollout: Rollout, labels: Int64[Tensor, "B objects"]) -> Float[Tensor, ""]:
        """Negative log-likelihood of a number, its end included.

        Args:
            rollout: the six outputs.
            labels: digits from left to right, then 10s.
        """
        return sequence_loss(rollout.logits, labels)

    def chances(
        self, scores: Float[Tensor, "B objects classes"]
    ) -> Float[Tensor, "B objects classes"]:
        """Each output's own, up to the first end."""
        return until_the_end(scores.softmax(-1))


ENDS = {"length": GoodfellowCNN, "end": EndingCNN}
