"""A synthetic twin of CUB-200-2011, written in its own layout.

Every image is drawn from a seed of its own: one bird, in any colours, large or small, turned,
facing left or right, somewhere in front of leaves and twigs. A species is a choice of four small
parts: the bill, the bars on the wing, the tail, the ring around the eye. Colour, size, pose and
background say nothing of it, so that whoever names species has to look closely.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from ramlib._checks import require
from ramlib._extras import bar, needs, quietly
from ramlib._files import as_path, room, usual_rights
from ramlib.data.birds import LISTS, TWIN_MARK

with needs("train"):
    from PIL import Image, ImageDraw, ImageFilter

LONGEST_SIDE = 256  # pixels
_FINE = 2  # drawn so many times larger, then averaged down: smooth edges

Points = Float[np.ndarray, "_ 2"]
Colour = tuple[int, int, int]


class Species(NamedTuple):
    """The parts that make a species."""

    bill: Literal["short", "long", "bent"]
    bars: Literal[0, 2]
    tail: Literal["short", "long", "forked"]
    ring: bool

    @property
    def name(self) -> str:
        """In the manner of the official classes' names."""
        bars = "Barred" if self.bars else "Plain"
        ring = "Ringed" if self.ring else "Bare"
        return f"{bars}_{ring}_{self.bill.title()}_bill_{self.tail.title()}_tail"


def all_species() -> list[Species]:
    """Every choice of parts, in an order in which any two neighbours differ in several."""
    every = itertools.product(
        ("short", "long", "bent"), (0, 2), ("short", "long", "forked"), (0, 1)
    )
    every = [Species(bill, bars, tail, bool(ring)) for bill, bars, tail, ring in every]
    return [every[13 * place % len(every)] for place in range(len(every))]


class Bird(NamedTuple):
    """One image of the twin, and the box around its bird, xyxy in pixels."""

    image: Image.Image
    box: tuple[float, float, float, float]


# ---- the bird, in units of half its body, facing right, y down ----


def _ellipse(x: float, y: float, wide: float, high: float, turn: float = 0.0) -> Points:
    angle = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    along, across = wide * np.cos(angle), high * np.sin(angle)
    cos, sin = math.cos(turn), math.sin(turn)
    return np.stack([x + cos * along - sin * across, y + sin * along + cos * across], 1)


_BILLS = {
    "short": [(0.28, -0.1), (0.62, 0.02), (0.28, 0.14)],
    "long": [(0.3, -0.07), (1.0, 0.05), (0.3, 0.1)],
    "bent": [(0.26, -0.14), (0.55, -0.08), (0.66, 0.2), (0.5, 0.1), (0.28, 0.12)],
}
_TAILS = {
    "short": [(-0.75, -0.2), (-1.35, 0.0), (-1.35, 0.25), (-0.7, 0.3)],
    "long": [(-0.75, -0.2), (-2.0, 0.1), (-2.0, 0.35), (-0.7, 0.3)],
    "forked": [(-0.75, -0.2), (-1.8, -0.15), (-1.25, 0.15), (-1.8, 0.5), (-0.7, 0.3)],
}


def _parts(species: Species, rng: np.random.Generator) -> list[tuple[Points, Colour]]:
    """Polygons and their colours, from back to front."""
    back, belly, wing, bill = (tuple(rng.integers(20, 210, 3).tolist()) for _ in range(4))
    light, dark = (235, 232, 220), (18, 16, 20)
    head = np.array([0.82, -0.52 + rng.normal(0, 0.06)])
    nod = rng.normal(0, 0.2)
    turn = np.array([[math.cos(nod), math.sin(nod)], [-math.sin(nod), math.cos(nod)]])
    eye = head + np.array([0.12, -0.06]) @ turn
    legs = [
        (np.array([[x, 0.5], [x + 0.06, 0.5], [x + 0.1, 0.95], [x + 0.04, 0.95]]), dark)
        for x in (-0.05, 0.2)
    ]
    bars = [
        (_ellipse(-0.35 + 0.3 * place, 0.0 + 0.05 * place, 0.05, 0.27, 0.35), light)
        for place in range(species.bars)
    ]
    ring = [(_ellipse(*eye, 0.135, 0.135), light)] if species.ring else []
    return [
        *legs,
        (np.array(_TAILS[species.tail]), back),
        (head + np.array(_BILLS[species.bill]) @ turn, bill),
        (_ellipse(0.0, 0.0, 1.0, 0.6, -0.2), back),
        (_ellipse(0.25, 0.2, 0.62, 0.36, -0.3), belly),
        (_ellipse(*head, 0.38, 0.36), back),
        (_ellipse(-0.25, 0.0, 0.68, 0.34, 0.2), wing),
        *bars,
        *ring,
        (_ellipse(*eye, 0.075, 0.075), dark),
    ]


def _placed(
    parts: list[tuple[Points, Colour]], size: tuple[int, int], rng: np.random.Generator
) -> tuple[list[tuple[Points, Colour]], tuple[float, float, float, float]]:
    """Turn, mirror, scale and move a bird so that all of it is on the picture; and its box."""
    angle = rng.normal(0, 0.3)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    mirror = np.array([rng.choice([-1, 1]), 1])
    turned = [points @ turn * mirror for points, _ in parts]
    every = np.concatenate(turned)
    low, high = every.min(0), every.max(0)
    # The bird's longer side takes a third to nine tenths of the picture.
    share = float(np.clip(rng.normal(0.6, 0.14), 0.33, 0.9))
    scale = share * float(np.min(np.array(size) / (high - low)))
    room = np.array(size) - scale * (high - low)
    corner = room * rng.beta(2.5, 2.5, 2)
    moved = [(points - low) * scale + corner for points in turned]
    box = tuple(np.concatenate([corner, corner + scale * (high - low)]).tolist())
    return [(p, colour) for p, (_, colour) in zip(moved, parts, strict=True)], box


# ---- what is around it ----


def _cloud(rng: np.random.Generator, size: tuple[int, int], cell: float) -> np.ndarray:
    """Noise of about unit variance whose spots are `cell` pixels wide, `(H, W, 1)`."""
    coarse = tuple(max(2, round(side / cell)) for side in size)
    noise = Image.fromarray(rng.normal(0, 1, coarse[::-1]).astype(np.float32))
    return np.asarray(noise.resize(size, Image.Resampling.BICUBIC))[..., None]


def _background(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Out of focus greens, browns and greys, with leaves and twigs in front of them."""
    one, other = (rng.uniform(50, 190, 3) * (0.9, 1.05, 0.75) for _ in range(2))
    mix = 1 / (1 + np.exp(-1.5 * _cloud(rng, size, rng.uniform(40, 160))))
    picture = mix * one + (1 - mix) * other
    picture = picture + _cloud(rng, size, 12.0) * rng.uniform(0, 14) + _cloud(rng, size, 4.0) * 4
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 9)):
        place, long = rng.uniform((0, 0), size), rng.uniform(0.03, 0.12) * size[0]
        leaf = place + long * _ellipse(0.0, 0.0, 1.0, 0.4, rng.uniform(0, math.pi))
        draw.polygon([tuple(p) for p in leaf], tuple(rng.integers(20, 200, 3).tolist()))
    for _ in range(rng.integers(0, 4)):
        ends = rng.uniform((0, 0), size, (2, 2))
        ends += (ends - ends.mean(0)) * 2
        width = int(rng.uniform(0.008, 0.03) * size[0])
        colour = tuple((rng.uniform(20, 120) * np.array([1, 0.85, 0.7])).astype(int).tolist())
        draw.line([tuple(p) for p in ends], colour, width)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.006) * size[0]))


def draw_bird(species: Species, seed: int | tuple[int, ...]) -> Bird:
    """One image of the twin; the same seed gives the same image.

    Args:
        species: what kind of bird.
        seed: a number, or several.
    """
    rng = np.random.default_rng(seed)
    shorter = int(rng.uniform(0.65, 1.0) * LONGEST_SIDE)
    size = (LONGEST_SIDE, shorter) if rng.random() < 0.75 else (shorter, LONGEST_SIDE)
    fine = (_FINE * size[0], _FINE * size[1])
    parts, box = _placed(_parts(species, rng), fine, rng)
    image = _background(fine, rng)
    draw = ImageDraw.Draw(image)
    for points, colour in parts:
        draw.polygon([tuple(point) for point in points], colour)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    picture = np.asarray(image.resize(size, Image.Resampling.BOX)).astype(float)
    light = rng.uniform(0.75, 1.2) + 0.1 * _cloud(rng, size, 120.0)
    picture = picture * light + rng.normal(0, rng.uniform(1, 5), picture.shape)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    return Bird(image, tuple(edge / _FINE for edge in box))


# ---- the folder ----


def write_twin(
    folder: Path | str,
    *,
    train: int,
    test: int,
    classes: int = 10,
    seed: int = 0,
    quality: int = 85,
    quiet: bool = False,
) -> Path:
    """Write a twin in the official layout, with the same number of images of every species.

    The same seed gives the same image of a species, however many there are.

    Args:
        folder: made here; it must not hold anything yet.
        train: training images of all species together, at least one of each.
        test: test images of all species together, at least one of each.
        classes: species, at most 36.
        seed: of all images.
        quality: of the JPEG files, from 1 to 95.
        quiet: without a progress bar.

    Raises:
        ValueError: if a number is out of its range.
        FileExistsError: if `folder` holds something.
        OSError: if `folder` cannot be written.
    """
    species = all_species()
    require(
        2 <= classes <= len(species),
        f"write_twin: classes must be in [2, {len(species)}], got {classes}",
    )
    for name, value in (("train", train), ("test", test)):
        require(value >= classes, f"write_twin: {name} must be at least {classes}, got {value}")
    require(0 <= seed < 2**31, f"write_twin: seed must be in [0, 2**31), got {seed}")
    require(1 <= quality <= 95, f"write_twin: quality must be in [1, 95], got {quality}")
    folder = as_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"write_twin: {folder} exists; choose another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The folder appears when it is complete.
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with room(partial, folder), quietly(quiet):
            _write_into(partial, species[:classes], (test, train), seed, quality)
            note = {"synthetic": True, "seed": seed, "classes": classes}
            note |= {"train": train, "test": test}
            (partial / TWIN_MARK).write_text(json.dumps(note) + "\n", encoding="utf-8")
        usual_rights(partial, 0o777)
        if folder.is_dir():
            folder.rmdir()
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_into(
    folder: Path, species: list[Species], counts: tuple[int, int], seed: int, quality: int
) -> None:
    """The images and the five lists; `counts` are the test's and the training's images."""
    names = [f"{row + 1:03d}.{kind.name}" for row, kind in enumerate(species)]
    for name in names:
        (folder / "images" / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {name: [] for name in LISTS if name != "classes"}
    wanted = [
        (row, training, index)
        for row in range(len(species))
        for training in (1, 0)
        for index in range(len(range(row, counts[training], len(species))))
    ]
    for number, (row, training, index) in enumerate(bar(wanted, "drawing birds", len(wanted)), 1):
        bird = draw_bird(species[row], (seed, row, training, index))
        file = f"{names[row]}/{species[row].name}_{number:05d}.jpg"
        bird.image.save(folder / "images" / file, quality=quality)
        x1, y1, x2, y2 = bird.box
        lists["images"].append(f"{number} {file}")
        lists["image_class_labels"].append(f"{number} {row + 1}")
        lists["bounding_boxes"].append(f"{number} {x1:.1f} {y1:.1f} {x2 - x1:.1f} {y2 - y1:.1f}")
        lists["train_test_split"].append(f"{number} {training}")
    lists["classes"] = [f"{row + 1} {name}" for row, name in enumerate(names)]
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
