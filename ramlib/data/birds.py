"""Birds: CUB-200-2011's photographs in the official layout, with labels and boxes.

A folder `CUB_200_2011` holds `images/CLASS/NAME.jpg` and five lists: `images.txt`, `classes.txt`,
`image_class_labels.txt`, `bounding_boxes.txt` and `train_test_split.txt`. Three sets of images have
this layout: the real CUB-200-2011, whole or some of its classes; the synthetic twin that
`ramlib data birds` writes; and a small sample of the twin, which ships.

Every photograph becomes a square of 256 pixels, whatever its own sides, and its box with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ramlib._checks import require
from ramlib._extras import needs
from ramlib.data import crops
from ramlib.data.mnist import Split
from ramlib.interface import Rollout
from ramlib.tasks import Judgement, Task, wrong

SIDE, CROP = 256, 224
LISTS = ("images", "classes", "image_class_labels", "bounding_boxes", "train_test_split")
HELD_OUT = 6  # of so many training images of a class, one is for validation
SPLIT_SEED = 0
OFFICIAL = (200, 5_994, 5_794)  # classes, training and test images

SAMPLE = Path(__file__).parent / "bird_files"
TWIN_MARK = "twin.json"  # a folder with this file holds no photographs


class BirdBatch(NamedTuple):
    """A batch of photographs: colours in [0, 1], classes, and boxes, xyxy in pixels."""

    images: Float[Tensor, "B 3 H W"]
    labels: Int64[Tensor, " B"]
    boxes: Float[Tensor, "B 4"]


class Listing(NamedTuple):
    """What the five lists of a folder say, image by image."""

    root: os.PathLike
    classes: list[str]
    paths: list[os.PathLike]
    labels: Int64[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]  # xyxy in pixels of the photograph
    training: Int64[np.ndarray, " n"]  # 1 for the official training images, 0 for the test's


# ---- the lists ----


def _read_list(root: Path, name: str, values: int) -> dict[int, list[str]]:
    """One list: a number, then `values` words on each line."""
    path = root / f"{name}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"birds: no file {path}; unpack the official archive CUB_200_2011.tgz again"
        )
    rows: dict[int, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        require(
            len(words) == values + 1 and words[0].isdecimal() and int(words[0]) not in rows,
            f"birds: line {number} of {path} must be a new number and {values} value(s), "
            f"got {line!r}",
        )
        rows[int(words[0])] = words[1:]
    require(bool(rows), f"birds: {path} lists nothing")
    return rows


def _numbers(root: Path, name: str, rows: dict[int, list[str]]) -> np.ndarray:
    try:
        found = np.array([[float(word) for word in words] for words in rows.values()])
    except ValueError as error:
        raise ValueError(f"birds: {root / name}.txt must hold numbers ({error})") from error
    require(
        bool(np.isfinite(found).all()), f"birds: {root / name}.txt must hold finite numbers alone"
    )
    return found


def read_listing(root: Path) -> Listing:
    """Read the five lists of a folder, and check that they agree and that every file is there.

    Raises:
        FileNotFoundError: if a list or an image is missing.
        ValueError: if a list is damaged, two lists name different images, or a class has no
            training image.
    """
    images, classes = _read_list(root, "images", 1), _read_list(root, "classes", 1)
    parts = {
        name: _read_list(root, name, values)
        for name, values in (
            ("image_class_labels", 1),
            ("bounding_boxes", 4),
            ("train_test_split", 1),
        )
    }
    for name, rows in parts.items():
        odd = sorted(set(rows) ^ set(images))
        require(
            not odd,
            f"birds: {root / name}.txt and images.txt must list the same images; "
            f"{len(odd)} are in one alone, the first is number {odd[:1]}",
        )
        parts[name] = {key: rows[key] for key in images}
    labels, boxes, training = (_numbers(root, name, rows) for name, rows in parts.items())
    row_of = {number: row for row, number in enumerate(classes)}
    unknown = sorted(set(labels[:, 0].astype(int).tolist()) - set(row_of))
    require(not unknown, f"birds: {root} has images of the class {unknown[:1]}, which has no name")
    labels = np.array([row_of[int(number)] for number in labels[:, 0]])
    training = (training[:, 0] == 1).astype(np.int64)
    names = [words[0] for words in classes.values()]
    empty = [
        name for row, name in enumerate(names) if not ((labels == row) & (training == 1)).any()
    ]
    require(
        not empty,
        f"birds: {len(empty)} of {len(names)} classes in {root} have no training image, the first "
        f"is {empty[:1]}; take them out of classes.txt or add images",
    )
    boxes[:, 2:] += boxes[:, :2]  # from corner and size
    paths = [root / "images" / words[0] for words in images.values()]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise FileNotFoundError(
            f"birds: {len(absent)} of {len(paths)} images that {root / 'images.txt'} lists are not "
            f"there, the first is {absent[0]}; unpack the official archive again"
        )
    return Listing(root, names, paths, labels, boxes, training)


# ---- the photographs ----


class Photographs(NamedTuple):
    """All photographs of a folder, scaled to squares."""

    listing: Listing
    images: np.ndarray  # (n, 256, 256, 3), one byte a channel, in a file of the cache
    sizes: Float[np.ndarray, "n 2"]  # width and height of each photograph
    boxes: Float[np.ndarray, "n 4"]  # xyxy in pixels of the square

    def of(self, rows: Int64[np.ndarray, " B"]) -> BirdBatch:
        """Some of them as a batch."""
        images = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(self.listing.labels[rows])
        return BirdBatch(images, labels, torch.from_numpy(self.boxes[rows]).float())

    def crop(
        self, rows: Int64[np.ndarray, " B"], boxes: Float[np.ndarray, "B 4"]
    ) -> Float[Tensor, "B 3 256 256"]:
        """Cut a box out of each photograph in its own resolution, and scale that to a square.

        Args:
            rows: which photographs.
            boxes: xyxy in pixels of the square of 256. What leaves the photograph is cut off; a
                box keeps at least a 32nd of each side.
        """
        low = boxes[:, :2].clip(0, SIDE - SIDE / 32)
        high = np.maximum(boxes[:, 2:].clip(0, SIDE), low + SIDE / 32)
        scale = np.tile(self.sizes[rows], 2) / SIDE
        own = np.concatenate([low, high], 1) * scale
        squares = [
            crops.cut(self.listing.paths[row], box, SIDE, "RGB")[0]
            for row, box in zip(rows, own, strict=True)
        ]
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255


@lru_cache(maxsize=4)
def load(root: Path, *, quiet: bool = False) -> Photographs:
    """The photographs of a folder, read once a process and scaled once for all.

    Args:
        root: the folder that holds `images` and the lists.
        quiet: without progress bars.

    Raises:
        FileNotFoundError: if a list or an image is missing.
        ValueError: if a list or an image is damaged, or a box lies outside its photograph.
        OSError: if the cache cannot be written.
    """
    listing = read_listing(root)
    folders = sorted({path.parent for path in listing.paths})
    cache = crops.cache_of("birds", str(root.resolve()), [root, *folders])
    nowhere = [None] * len(listing.paths)
    images, frames = crops.cut_all(cache, "whole", listing.paths, nowhere, SIDE, "RGB", quiet=quiet)
    sizes = frames[:, 2:]
    low = listing.boxes[:, :2].clip(0)
    high = np.minimum(listing.boxes[:, 2:], sizes)
    outside = np.flatnonzero((low >= high).any(1))
    require(
        not len(outside),
        f"birds: the boxes of {len(outside)} images lie outside them, the first is "
        f"{[str(listing.paths[row]) for row in outside[:1]]}; see {root}/bounding_boxes.txt",
    )
    boxes = np.concatenate([low, high], 1) * (SIDE / np.tile(sizes, 2))
    return Photographs(listing, images, sizes, boxes)


def split_rows(listing: Listing, split: Split) -> Int64[np.ndarray, " rows"]:
    """Which images belong to `split`: the official test images, or a part of the official training.

    Of each class, a sixth of its training images is drawn for validation, once for all; a class
    with fewer than six gives none.
    """
    require(
        split in ("train", "validation", "test"),
        f"birds: split must be one of train, validation, test, got {split!r}",
    )
    if split == "test":
        return np.flatnonzero(listing.training == 0)
    held_out = np.zeros(len(listing.labels), bool)
    for label in range(len(listing.classes)):
        own = np.flatnonzero((listing.labels == label) & (listing.training == 1))
        drawn = np.random.default_rng((SPLIT_SEED, label)).permutation(own)
        held_out[drawn[: len(own) // HELD_OUT]] = True
    return np.flatnonzero((listing.training == 1) & (held_out == (split == "validation")))


# ---- the task ----


@dataclass(frozen=True)
class Birds(Task):
    """Naming the species of a bird.

    Args:
        data: the `sample` that ships, the synthetic `twin`, or `cub`, real photographs.
        folder: where the images lie, in the official layout: this folder, or one in it that is
            called `CUB_200_2011` or like `data`. When left out, the environment's `RAMLIB_DATA`.
            The sample needs none.
        classes: how many the folder names: 200 in the official archive.

    Raises:
        ValueError: if `data` is unknown or `classes` is below 2.

    Section IV-C, Semeniuta & Barth (2016).
    """

    data: Literal["sample", "twin", "cub"] = "sample"
    folder: str | None = None
    classes: int = 5

    def __post_init__(self) -> None:
        require(self.classes >= 2, f"Birds: classes must be at least 2, got {self.classes}")
        allowed = ("sample", "twin", "cub")
        require(
            self.data in allowed,
            f"Birds: data must be one of {', '.join(allowed)}, got {self.data!r}",
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one square."""
        return (3, SIDE, SIDE)

    @property
    def root(self) -> Path:
        """The folder that holds `images` and the lists.

        Raises:
            FileNotFoundError: if no folder is named, or it does not hold this data.
        """
        if self.data == "sample":
            return SAMPLE
        cure = {
            "twin": "write it with: ramlib data birds --out FOLDER",
            "cub": "unpack CUB_200_2011.tgz of https://www.vision.caltech.edu/datasets/"
            "cub_200_2011 in it",
        }[self.data]
        named = self.folder or os.environ.get("RAMLIB_DATA")
        if not named:
            raise FileNotFoundError(
                f"Birds: no folder is named for {self.data!r}; name one as RAMLIB_DATA, and {cure}"
            )
        for root in (Path(named), Path(named) / "CUB_200_2011", Path(named) / self.data):
            # Photographs are never taken for synthetic images, nor these for photographs.
            is_twin = (root / TWIN_MARK).is_file()
            if (root / "images.txt").is_file() and is_twin == (self.data == "twin"):
                return root
        raise FileNotFoundError(
            f"Birds: neither {named} nor a folder in it holds an images.txt of "
            f"{'synthetic images' if self.data == 'twin' else 'photographs'}; {cure}"
        )

    @property
    def photographs(self) -> Photographs:
        """All of the folder's.

        Raises:
            ValueError: if it does not have so many classes.
        """
        photographs = load(self.root)
        found = len(photographs.listing.classes)
        require(
            found == self.classes,
            f"Birds: classes must be {found}, as in {self.root}, got {self.classes}",
        )
        return photographs

    def rows(self, split: Split) -> Int64[np.ndarray, " rows"]:
        """Which photographs are of `split`."""
        return split_rows(self.photographs.listing, split)

    def sample(
        self, count: int, *, split: Split = "train", generator: torch.Generator
    ) -> BirdBatch:
        """Draw `count` photographs, with repetition, on the generator's device.

        Raises:
            ValueError: if `count` is below 1, `split` is unknown or a file is damaged.
            FileNotFoundError: if the folder or a file is missing.
        """
        require(count >= 1, f"Birds.sample: count must be at least 1, got {count}")
        rows, device = self.rows(split), generator.device
        drawn = torch.randint(len(rows), (count,), generator=generator, device=device).cpu()
        return BirdBatch(*(part.to(device) for part in self.photographs.of(rows[drawn.numpy()])))

    def batches(
        self,
        split: Split,
        count: int | None = None,
        *,
        batch: int = 100,
        device: torch.device | str = "cpu",
    ) -> Iterator[BirdBatch]:
        """The first `count` photographs of `split`, or all, each once and in order."""
        rows = self.rows(split)[:count]
        for start in range(0, len(rows), batch):
            parts = self.photographs.of(rows[start : start + batch])
            yield BirdBatch(*(part.to(device) for part in parts))

    def judge(self, rollout: Rollout, batch: Any) -> Judgement:
        """The error on species and, of a model that looks, where its last window lies.

        The batch need not hold photographs; its `labels` and `boxes` are asked for.

        `missed`: its centre is outside the bird's box. `apart`: it has less than half of its area
        in common with the box, by intersection over union.
        """
        judged = {"error": wrong(rollout.labels, batch.labels)}
        if rollout.windows is not None:
            windows, every = rollout.windows[:, -1], torch.ones_like(judged["error"][1])
            judged["missed"] = (~centre_inside(windows, batch.boxes), every)
            judged["apart"] = (iou(windows, batch.boxes) < 0.5, every)
        return judged

    @property
    def public(self) -> Birds:
        """The same task on the sample, which ships."""
        return replace(self, data="sample", folder=None, classes=5)

    def describe(self) -> str:
        """What the images are and how many, for a record: a twin or a subset says so."""
        return describe(self.data, self.photographs.listing)


def describe(data: str, listing: Listing) -> str:
    """What a folder's images are and how many."""
    counts = {split: len(split_rows(listing, split)) for split in ("train", "validation", "test")}
    listed = ", ".join(f"{n} {split}" for split, n in counts.items())
    classes = f"{len(listing.classes)} classes"
    if data != "cub":
        small = " (the sample)" * (data == "sample")
        return f"synthetic twin of CUB-200-2011{small}, {classes}: {listed}"
    whole = (len(listing.classes), counts["train"] + counts["validation"], counts["test"])
    return f"CUB-200-2011{'' if whole == OFFICIAL else ' subset'}, {classes}: {listed}"


def iou(first: Float[Tensor, "B 4"], second: Float[Tensor, "B 4"]) -> Float[Tensor, " B"]:
    """Intersection over union of each box with its partner, both cut at the square's border.

    Args:
        first: xyxy in pixels of the square.
        second: of each, its partner.
    """
    first, second = first.clamp(0, SIDE), second.clamp(0, SIDE)
    low, high = (
        torch.maximum(first[:, :2], second[:, :2]),
        torch.minimum(first[:, 2:], second[:, 2:]),
    )
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def centre_inside(windows: Float[Tensor, "B 4"], boxes: Float[Tensor, "B 4"]) -> Tensor:
    """Whether the centre of each window lies in the box beside it."""
    centre = (windows[:, :2] + windows[:, 2:]) / 2
    return ((boxes[:, :2] <= centre) & (centre <= boxes[:, 2:])).all(1)


# ---- crops for a classifier ----


def random_crops(
    images: Float[Tensor, "B 3 H W"], side: int = CROP, *, generator: torch.Generator
) -> Float[Tensor, "B 3 side side"]:
    """A random square of each photograph, mirrored with probability one half."""
    batch, _, height, width = images.shape
    require(
        1 <= side <= min(height, width),
        f"random_crops: side must be in [1, {min(height, width)}], got {side}",
    )
    device = images.device

    def place(room: int) -> Int64[Tensor, "B side"]:
        first = torch.randint(room + 1, (batch, 1), generator=generator, device=device)
        return first + torch.arange(side, device=device)

    rows, columns = place(height - side), place(width - side)
    mirrored = torch.rand(batch, 1, generator=generator, device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    index = torch.arange(batch, device=device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def ten_crops(images: Float[Tensor, "B 3 H W"], side: int = CROP) -> Sequence[Tensor]:
    """The four corners and the middle of each photograph, and their mirror images.

    Krizhevsky et al. (2012).
    """
    with needs("birds"):
        from torchvision.transforms.functional import ten_crop

    return ten_crop(images, [side, side])
