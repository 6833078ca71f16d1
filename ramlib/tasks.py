"""What a task offers: images with labels, and what an answer to them is worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ramlib.interface import Rollout


class Batch(NamedTuple):
    """The least that a batch holds. A task may hand out more, in a type of its own."""

    images: Float[Tensor, "B C H W"]
    labels: Int64[Tensor, "B ..."]


# For each thing that a task measures, two masks of one shape: which cases count, among which.
Judgement = dict[str, tuple[Bool[Tensor, "..."], Bool[Tensor, "..."]]]


@runtime_checkable
class Task(Protocol):
    """Where images and labels come from, and what an answer to them is worth.

    Training needs `image_shape`, `classes` and `sample`; measuring needs `batches` and `judge`. A
    batch has `images` and `labels`, as `Batch` does. What a task does not decide for itself it
    takes over by deriving from this class.

    The splits are `train`, `validation` and `test`.
    """

    image_shape: tuple[int, int, int]
    classes: int

    def sample(self, count: int, *, split: str = "train", generator: torch.Generator) -> Batch:
        """Draw `count` images on the generator's device; the same seed gives the same batch."""
        ...

    def batches(
        self,
        split: str,
        count: int | None = None,
        *,
        batch: int = 500,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """The images that a split is measured on, the same every time; at most `count` of them."""
        ...

    def judge(self, rollout: Rollout, batch: Batch) -> Judgement:
        """What is measured, by name: which cases count, among which. `error` has to be there."""
        return {"error": wrong(rollout.labels, batch.labels)}

    def describe(self) -> str:
        """What the images are and how many, for a record."""
        ...

    @property
    def public(self) -> Task:
        """The same task on images that everybody has, on which a record is checked again."""
        return self


def wrong(
    answers: Int64[Tensor, "B ..."], labels: Int64[Tensor, "B ..."]
) -> tuple[Bool[Tensor, " B"], Bool[Tensor, " B"]]:
    """The commonest judgement: which answers differ from their labels, among all of them."""
    differs = (answers != labels).flatten(1).any(1) if labels.ndim > 1 else answers != labels
    return differs, torch.ones_like(differs)
