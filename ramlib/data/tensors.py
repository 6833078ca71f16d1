"""A task made of tensors: the shortest way to train and measure on data of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ramlib._checks import require, require_batch
from ramlib.tasks import Batch, Task


@dataclass(frozen=True, eq=False)
class TensorTask(Task):
    """Images and labels, parted once into train, validation and test.

    Args:
        images: pixels in the range that the model takes.
        labels: classes, counted from 0.
        name: what a record calls the data.
        held_out: share of the images that go to validation, and as many to test.
        seed: of the draw that parts them.

    Raises:
        TypeError: if `images` is not a floating-point tensor.
        ValueError: if the lengths differ, a label is negative, or a split would be empty.
    """

    images: Float[Tensor, "n C H W"]
    labels: Int64[Tensor, " n"]
    name: str = "own tensors"
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require_batch("TensorTask", self.images, tuple(self.images.shape[1:]))
        n = len(self.images)
        require(
            tuple(self.labels.shape) == (n,),
            f"TensorTask: labels must have shape ({n},) for {n} images, "
            f"got {tuple(self.labels.shape)}",
        )
        require(
            int(self.labels.min()) >= 0,
            f"TensorTask: labels must count from 0, got {int(self.labels.min())}",
        )
        require(
            0 < self.held_out < 0.5 and int(self.held_out * n) >= 1,
            f"TensorTask: held_out must be in (0, 0.5) and leave an image to each split, "
            f"got {self.held_out} of {n}",
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of an image."""
        return tuple(self.images.shape[1:])

    @cached_property
    def classes(self) -> int:
        """One more than the largest label."""
        return int(self.labels.max()) + 1

    @cached_property
    def _parts(self) -> dict[str, Int64[Tensor, " rows"]]:
        n = len(self.labels)
        held = int(self.held_out * n)
        drawn = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))
        parts = {"validation": drawn[:held], "test": drawn[held : 2 * held]}
        parts["train"] = drawn[2 * held :]
        return {split: rows.sort().values.to(self.images.device) for split, rows in parts.items()}

    def rows(self, split: str) -> Int64[Tensor, " rows"]:
        """Which images are of `split`, on the device of the images."""
        require(
            split in self._parts,
            f"TensorTask: split must be one of {', '.join(self._parts)}, got {split!r}",
        )
        return self._parts[split]

    def sample(self, count: int, *, split: str = "train", generator: torch.Generator) -> Batch:
        """Draw `count` images, with repetition, on the generator's device."""
        require(count >= 1, f"TensorTask.sample: count must be at least 1, got {count}")
        rows, device = self.rows(split), generator.device
        drawn = torch.randint(len(rows), (count,), generator=generator, device=device)
        chosen = rows[drawn.to(rows.device)]
        return Batch(self.images[chosen].to(device), self.labels[chosen].to(device))

    def batches(
        self,
        split: str,
        count: int | None = None,
        *,
        batch: int = 500,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """The first `count` images of `split`, or all, each once and in order."""
        for some in self.rows(split)[:count].split(batch):
            yield Batch(self.images[some].to(device), self.labels[some].to(device))

    def describe(self) -> str:
        """The name, and how many images are in each split."""
        counts = (f"{len(self.rows(s))} {s}" for s in ("train", "validation", "test"))
        return f"{self.name}: {', '.join(counts)}"

    def settings(self) -> dict[str, str | float | int]:
        """What a checkpoint keeps of the task: a digest in place of the tensors."""
        digest = hashlib.sha256()
        for part in (self.images, self.labels):
            digest.update(repr((part.dtype, tuple(part.shape))).encode())
            digest.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        kept = {"name": self.name, "held_out": self.held_out, "seed": self.seed}
        return {**kept, "sha256": digest.hexdigest()}
