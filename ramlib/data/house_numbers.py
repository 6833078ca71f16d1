"""House numbers: SVHN's photographs in the official layout, cut to the number and made grey.

A folder holds `train`, `test` and, if it was downloaded too, `extra`, each with PNG files and a
`digitStruct.mat`. Three sets of images have this layout: the real SVHN, whole or in part; the
synthetic twin that `ramlib data house-numbers` writes; and a small sample of the twin, which ships.

Nothing but the crops and the lists is kept: see `crops`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from ramlib._checks import require
from ramlib._files import as_path, write_atomically
from ramlib.data import crops, digit_struct
from ramlib.data.augment import warp
from ramlib.data.digit_struct import DigitStruct
from ramlib.data.mnist import Split
from ramlib.interface import Rollout
from ramlib.labels import LONGEST, STOP, count_digits
from ramlib.tasks import Judgement, Task, wrong

SPLIT_SEED = 0
VALIDATION = 5_000  # images, or a tenth of them where there are fewer than 50,000
OFFICIAL = {"train": 33_402, "test": 13_068, "extra": 202_353}

SAMPLE = Path(__file__).parent / "house_number_files"
TWIN_MARK = "twin.json"  # a folder with this file holds no photographs

_CHUNK = 1_000


@dataclass(frozen=True)
class Crop:
    """How a photograph is cut.

    Args:
        expand: the box around all digits grows by this share of its width and of its height.
        side: of the square that the result is scaled to, in pixels.
    """

    expand: float
    side: int


# Section IV-B, Semeniuta & Barth (2016).
CROPS = {"tight": Crop(0.3, 64), "loose": Crop(1.3, 128)}


class NumberBatch(NamedTuple):
    """A batch of crops and what is known of them.

    `images` are grey levels 0..255. `labels` are the digits from left to right, then 10s: the
    class that says that none is left. `boxes` are the digits', xyxy in pixels of the crop, then
    zeros.
    """

    images: Float[Tensor, "B 1 S S"]
    labels: Int64[Tensor, "B 6"]
    boxes: Float[Tensor, "B 5 4"]


class Numbers(NamedTuple):
    """All crops of one partition, as `NumberBatch` has them, but grey levels of one byte."""

    images: UInt8[Tensor, "n S S"]
    labels: Int64[Tensor, "n 6"]
    boxes: Float[Tensor, "n 5 4"]
    names: list[str]
    left_out: list[str]


def union_boxes(listed: DigitStruct) -> Float32[np.ndarray, "images 4"]:
    """The box around all digits of each image, xyxy in pixels."""
    low = np.minimum.reduceat(listed.boxes[:, :2], listed.starts)
    high = np.maximum.reduceat(listed.boxes[:, 2:], listed.starts)
    return np.concatenate([low, high], 1)


# ---- the lists of images ----


def _read_listing(root: Path, partitions: tuple[str, ...], quiet: bool) -> DigitStruct:
    """Join the lists of several folders, and check that every file is there."""
    parts = []
    for partition in partitions:
        part = digit_struct.read(root / partition, quiet=quiet)
        present = set(os.listdir(root / partition))
        absent = [name for name in part.names if name not in present]
        if absent:
            raise FileNotFoundError(
                f"house_numbers: {len(absent)} of {len(part.names)} files that "
                f"{root / partition / digit_struct.FILE} lists are not there, the first is "
                f"{absent[0]}; unpack the official archive again"
            )
        parts.append(part)
    return DigitStruct(
        [f"{p}/{name}" for p, part in zip(partitions, parts, strict=True) for name in part.names],
        *(np.concatenate([getattr(p, field) for p in parts]) for field in _ARRAYS),
    )


_ARRAYS = ("counts", "digits", "boxes")


def _listing(root: Path, partitions: tuple[str, ...], cache: Path, quiet: bool) -> DigitStruct:
    """The joined lists, from the cache if they are there and whole."""
    path = cache / "index.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return DigitStruct(kept["names"].tolist(), *(kept[field] for field in _ARRAYS))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        listed = _read_listing(root, partitions, quiet)

    def write(temporary: Path) -> None:
        arrays = {field: getattr(listed, field) for field in _ARRAYS}
        with temporary.open("wb") as file:
            np.savez_compressed(file, names=np.array(listed.names), **arrays)

    write_atomically(path, write)
    return listed


# ---- the task ----


def _padded(listed: DigitStruct, frames: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels `(n, 6)` and the digits' boxes in pixels of the crop `(n, 5, 4)`."""
    n = len(listed.names)
    row = np.arange(n).repeat(listed.counts)
    place = np.arange(len(row)) - listed.starts.repeat(listed.counts)
    labels = np.full((n, LONGEST + 1), STOP, np.int64)
    labels[row, place] = listed.digits
    corner, span = frames[:, :2], frames[:, 2:] - frames[:, :2]
    boxes = np.zeros((n, LONGEST, 4), np.float32)
    scaled = (listed.boxes.reshape(-1, 2, 2) - corner[row, None]) * (side / span[row, None])
    boxes[row, place] = scaled.reshape(-1, 4)
    return labels, boxes


def _without(listed: DigitStruct, keep: np.ndarray) -> DigitStruct:
    """The entries that `keep` says."""
    digits = keep.repeat(listed.counts)
    names = [name for name, kept in zip(listed.names, keep, strict=True) if kept]
    return DigitStruct(names, listed.counts[keep], listed.digits[digits], listed.boxes[digits])


@lru_cache(maxsize=8)
def load(
    root: Path,
    part: Literal["training", "test"],
    crop: str = "tight",
    device: torch.device | str = "cpu",
    *,
    quiet: bool = False,
) -> Numbers:
    """The crops of one part of a folder, on `device`. Read once per process and device.

    A number of more than five digits is left out, as Goodfellow et al. (2014) leave it; the
    official training images hold one, and `left_out` names it.

    Args:
        root: the folder that holds `train` and `test`.
        part: `training` is `train` and, if it is there, `extra`.
        crop: `tight` or `loose`.
        device: where the grey levels go; on the CPU they stay in the cache's file.
        quiet: without progress bars.

    Raises:
        FileNotFoundError: if a folder, a list or a listed image is missing.
        ValueError: if a list or an image is damaged, or a box lies outside its image.
        OSError: if the cache cannot be written.
    """
    partitions = ("test",) if part == "test" else ("train", "extra")
    partitions = tuple(p for p in partitions if p != "extra" or (root / p).is_dir())
    for partition in partitions:
        if not (root / partition).is_dir():
            raise FileNotFoundError(f"house_numbers.load: no folder {root / partition}")
    place = str(root.resolve()), partitions
    cache = crops.cache_of("house-numbers", place, [root / name for name in partitions])
    listed = _listing(root, partitions, cache, quiet)
    keep = listed.counts <= LONGEST
    left_out = [name for name, kept in zip(listed.names, keep, strict=True) if not kept]
    listed = _without(listed, keep)
    kind, paths = CROPS[crop], [root / name for name in listed.names]
    grown = crops.expand_boxes(union_boxes(listed), kind.expand)
    images, frames = crops.cut_all(cache, crop, paths, grown, kind.side, quiet=quiet)
    labels, boxes = _padded(listed, frames, kind.side)
    tensors = (torch.from_numpy(array).to(device) for array in (images, labels, boxes))
    return Numbers(*tensors, listed.names, left_out)


def split_rows(n: int, split: Split) -> Int64[np.ndarray, " rows"]:
    """Which rows of a part belong to `split`: all of `test`; the rest is drawn once for all.

    The validation images are 5,000, or a tenth where there are fewer than 50,000, and at least one.
    """
    if split == "test":
        return np.arange(n)
    drawn = np.random.default_rng(SPLIT_SEED).permutation(n)
    held_out = max(1, min(VALIDATION, n // 10))
    return np.sort(drawn[:held_out] if split == "validation" else drawn[held_out:])


def is_twin(root: Path) -> bool:
    """Whether a folder was written by `ramlib data house-numbers`."""
    return (root / TWIN_MARK).is_file()


@dataclass(frozen=True)
class HouseNumbers(Task):
    """Reading a house number, digit by digit.

    Args:
        data: the `sample` that ships, the synthetic `twin`, or `svhn`, real photographs.
        crop: `tight` (64x64) or `loose` (128x128).
        folder: where the images lie, in the official layout: this folder, or one in it that is
            called like `data`. When left out, the environment's `RAMLIB_DATA`. The sample needs
            none.
        only: train on so many of the training images, the first ones; None for all of them.
        augment: half-width of the uniform noise on a training crop's place and size: it is shifted
            by up to this share of half its side, and scaled by up to this share, along each axis
            by itself. It is the noise that a reader's `alpha` lays on each look, laid on the whole
            image instead.

    Raises:
        ValueError: if an argument is unknown or out of its range.

    Section IV-B, Semeniuta & Barth (2016).
    """

    data: Literal["sample", "twin", "svhn"] = "sample"
    crop: Literal["tight", "loose"] = "tight"
    folder: str | None = None
    only: int | None = None
    augment: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (("data", ("sample", "twin", "svhn")), ("crop", tuple(CROPS))):
            value = getattr(self, name)
            require(
                value in allowed,
                f"HouseNumbers: {name} must be one of {', '.join(allowed)}, got {value!r}",
            )
        require(
            self.only is None or self.only >= 1,
            f"HouseNumbers: only must be at least 1 or None, got {self.only}",
        )
        require(
            0 <= self.augment < 1, f"HouseNumbers: augment must be in [0, 1), got {self.augment}"
        )

    @property
    def classes(self) -> int:
        """Ten digits, and the class that says that none is left."""
        return STOP + 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one crop."""
        side = CROPS[self.crop].side
        return (1, side, side)

    @property
    def root(self) -> Path:
        """The folder that holds `train` and `test`.

        Raises:
            FileNotFoundError: if no folder is named, or it does not hold this data.
        """
        if self.data == "sample":
            return SAMPLE
        cure = {
            "twin": "write it with: ramlib data house-numbers --out FOLDER",
            "svhn": "unpack train.tar.gz and test.tar.gz (and extra.tar.gz) of "
            "http://ufldl.stanford.edu/housenumbers in it",
        }[self.data]
        named = self.folder or os.environ.get("RAMLIB_DATA")
        if not named:
            raise FileNotFoundError(
                f"HouseNumbers: no folder is named for {self.data!r}; name one as RAMLIB_DATA, and "
                f"{cure}; or take the sample that ships: --data sample"
            )
        for root in (as_path(named), as_path(named) / self.data):
            # Photographs are never taken for synthetic images, nor these for photographs.
            if (root / "train").is_dir() and is_twin(root) == (self.data == "twin"):
                return root
        raise FileNotFoundError(
            f"HouseNumbers: neither {named} nor its folder {self.data!r} holds a folder 'train' of "
            f"{'synthetic images' if self.data == 'twin' else 'photographs'}; {cure}"
        )

    def numbers(self, split: Split, device: torch.device | str = "cpu") -> tuple[Numbers, Tensor]:
        """The part that holds `split`, and the rows that are of it."""
        require(
            split in ("train", "validation", "test"),
            f"HouseNumbers: split must be one of train, validation, test, got {split!r}",
        )
        part = "test" if split == "test" else "training"
        numbers = load(self.root, part, self.crop, torch.device(device))
        rows = split_rows(len(numbers.labels), split)
        if split == "train":
            rows = rows[: self.only]
        return numbers, torch.from_numpy(rows).to(device)

    def sample(
        self, count: int, *, split: Split = "train", generator: torch.Generator
    ) -> NumberBatch:
        """Draw `count` crops, with repetition, on the generator's device; augment those of `train`.

        Raises:
            ValueError: if `count` is below 1, `split` is unknown or a file is damaged.
            FileNotFoundError: if the folder or a file is missing.
        """
        require(count >= 1, f"HouseNumbers.sample: count must be at least 1, got {count}")
        numbers, rows = self.numbers(split, generator.device)
        chosen = torch.randint(len(rows), (count,), generator=generator, device=rows.device)
        batch = _batch(numbers, rows[chosen])
        if split == "train" and self.augment > 0:
            batch = shake(batch, self.augment, generator)
        return batch

    def batches(
        self,
        split: Split,
        count: int | None = None,
        *,
        batch: int = 500,
        device: torch.device | str = "cpu",
    ) -> Iterator[NumberBatch]:
        """The first `count` crops of `split`, or all, each once and in order."""
        numbers, rows = self.numbers(split, device)
        for some in rows[:count].split(batch):
            yield _batch(numbers, some)

    def judge(self, rollout: Rollout, batch: NumberBatch) -> Judgement:
        """The error on whole numbers, on single digits, and on lengths.

        `error`: any digit, or the length, was read wrongly. `digit_error`: of all digits, those
        read wrongly, or not at all, at their places from the left. `too_long` and `too_short`:
        more digits were read than there are, or fewer.
        """
        read = rollout.labels
        is_digit = batch.labels != STOP
        is_wrong, every = wrong(read, batch.labels)
        longer = count_digits(read) - count_digits(batch.labels)
        return {
            "error": (is_wrong, every),
            "digit_error": (read != batch.labels, is_digit),
            "too_long": (longer > 0, every),
            "too_short": (longer < 0, every),
        }

    @property
    def public(self) -> HouseNumbers:
        """The same task on the sample, which ships."""
        return replace(self, data="sample", only=None, folder=None)

    def mean_image(self) -> Float[Tensor, "1 S S"]:
        """Mean of the training crops, in grey levels."""
        numbers, rows = self.numbers("train")
        total = sum(numbers.images[some].double().sum(0) for some in rows.split(_CHUNK))
        return (total / len(rows)).float()[None]

    def describe(self) -> str:
        """What the images are and how many, for a record: a twin or a subset says so."""
        counts = {s: len(self.numbers(s)[1]) for s in ("train", "validation", "test")}
        listed = ", ".join(f"{n} {split}" for split, n in counts.items())
        if self.data != "svhn":
            return f"synthetic twin of SVHN{' (the sample)' * (self.data == 'sample')}: {listed}"
        images = counts["train"] + counts["validation"], counts["test"]
        # The one number of six digits is left out of the first.
        whole = images[1] == OFFICIAL["test"] and images[0] in (
            OFFICIAL["train"] - 1,
            OFFICIAL["train"] + OFFICIAL["extra"] - 1,
        )
        return f"SVHN{'' if whole else ' subset'}: {listed}"


def shake(batch: NumberBatch, alpha: float, generator: torch.Generator) -> NumberBatch:
    """Shift and scale every crop, and its boxes with it; what comes in repeats the edge.

    Args:
        batch: crops.
        alpha: half-width of the noise: shifts are in units of half the side, scales are factors.
        generator: where chance comes from.
    """
    images = batch.images
    noise = torch.rand(4, len(images), generator=generator, device=images.device)
    noise = alpha * (2 * noise - 1)
    shift, scale = noise[:2].T, 1 + noise[2:].T
    # Where in the old crop each pixel of the new one comes from, in [-1, 1] from edge to edge.
    where = torch.diag_embed(scale)
    where = torch.cat([where, shift[..., None]], -1)
    sampled = warp(images, where, padding="border")
    half = images.shape[-1] / 2
    shift, scale = shift.repeat(1, 2)[:, None], scale.repeat(1, 2)[:, None]
    boxes = ((batch.boxes / half - 1 - shift) / scale + 1) * half
    none = (batch.boxes == 0).all(-1, keepdim=True)
    return NumberBatch(sampled, batch.labels, boxes.masked_fill(none, 0))


def _batch(numbers: Numbers, rows: Int64[Tensor, " B"]) -> NumberBatch:
    images = numbers.images[rows][:, None].float()
    return NumberBatch(images, numbers.labels[rows], numbers.boxes[rows])
