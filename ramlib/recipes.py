"""One value per row of a table: task, model, budget, and what to expect of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ramlib._checks import require
from ramlib.attention import Window
from ramlib.baselines.cnn import CNNConfig
from ramlib.data.cluttered import ClutteredDigits
from ramlib.data.house_numbers import HouseNumbers
from ramlib.inhibition import ReadAgainConfig
from ramlib.interface import Classifier
from ramlib.model import RAMConfig
from ramlib.reader import JoinedReaderConfig, ReaderConfig


@dataclass(frozen=True)
class Recipe:
    """All that decides a trained model. The same recipe on the same machine gives the same weights.

    Args:
        name: how the command line and `ramlib.load` call it.
        row: how a table calls it.
        task: where images and labels come from.
        model: the architecture.
        updates: optimiser steps.
        batch: images per step, each made fresh.
        rate: Adam's learning rate, warmed up linearly and then brought to 0 along a cosine.
        policy_share: the attention policy learns at this share of `rate`. A fast policy runs into
            a corner of the image and stays there.
        warmup: steps of the warm-up.
        clip: largest norm of the gradient.
        seed: of the initial weights, the images and all noise.
        precision: of the training step, in Lightning's words.
        start: recipe whose weights the model starts from, but for what does not fit. They ship, or
            lie beside this training in the folder of runs.
        expects: error and cost to expect.
    """

    name: str
    row: str
    task: ClutteredDigits | HouseNumbers
    model: RAMConfig | ReadAgainConfig | CNNConfig | ReaderConfig | JoinedReaderConfig
    updates: int
    batch: int = 128
    rate: float = 1e-3
    policy_share: float = 0.2
    warmup: int = 200
    clip: float = 0.5
    seed: int = 0
    precision: str = "bf16-mixed"
    start: str | None = None
    expects: str = ""

    def __post_init__(self) -> None:
        for field in ("updates", "batch"):
            value = getattr(self, field)
            require(value >= 1, f"Recipe: {field} must be at least 1, got {value}")
        require(0 <= self.seed < 2**31, f"Recipe: seed must be in [0, 2**31), got {self.seed}")
        for field in ("rate", "clip"):
            value = getattr(self, field)
            require(value > 0, f"Recipe: {field} must be above 0, got {value}")

    def build(self) -> Classifier:
        """The model with fresh weights, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.model.build(self.task.image_shape, self.task.classes)


# What a recipe is called changes nothing in what it trains.
_NAMES = ("name", "row", "expects")


def differences(recipe: Recipe, saved: dict[str, Any]) -> list[str]:
    """In what a recipe that was saved as a dict differs, as in `seed=1 (now 0)`.

    Args:
        recipe: the recipe as it is now.
        saved: `dataclasses.asdict` of a recipe; fields that it lacks are not compared.
    """

    def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    now = dict(flat(asdict(recipe)))
    return [
        f"{key}={value} (now {now.get(key)})"
        for key, value in flat(saved)
        if key not in _NAMES and value != now.get(key)
    ]


DIGIT = RAMConfig(context=False, window=Window(0.35, 0.12, 1.0), supervision="all")
DIGIT_CONTEXT = RAMConfig(context=True, window=Window(0.35, 0.12, 0.5), supervision="all")
# The paper's remedies: an upper limit on the window, relative shifts, and eq. 5 on the third look.
TWO_DIGITS = RAMConfig(context=True, window=Window(0.3, 0.12, 0.4), relative=True, penalised_step=3)

# About a million multiply-adds a look. One digit fills most of its crop, one of five a tenth.
NUMBERS = ReaderConfig(eye="conv-3", window=Window(0.4, 0.12, 0.9))
# For a GPU. The paper names no sizes; these are of its time.
NUMBERS_LARGE = replace(NUMBERS, size=16, hidden=512, eye_width=4)
TWIN, SVHN = HouseNumbers("twin"), HouseNumbers("svhn")

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="digit-every-look",
            row="Ours, without context, loss on every look",
            task=ClutteredDigits("digit"),
            model=DIGIT,
            updates=50_000,
            expects="about 4 % test error, the overview learnt; about an hour on one CPU core",
        ),
        # The first look sees nothing sharp enough to name. Once looking is learnt, the loss need
        # no longer ask it to.
        Recipe(
            name="digit",
            row="Ours, without context",
            task=ClutteredDigits("digit"),
            model=replace(DIGIT, supervision="after-first"),
            updates=28_000,
            rate=5e-4,
            start="digit-every-look",
        ),
        Recipe(
            name="digit-context",
            row="Ours, with context",
            task=ClutteredDigits("digit"),
            model=DIGIT_CONTEXT,
            updates=60_000,
        ),
        Recipe(
            name="digit-context-conv",
            row="Ours, with context and a convolutional glimpse network",
            task=ClutteredDigits("digit"),
            model=replace(DIGIT_CONTEXT, eye="conv-3"),
            updates=15_000,
            rate=5e-4,
            start="digit-context",
        ),
        Recipe(
            name="pairs",
            row="Ours, pairs",
            task=ClutteredDigits("pair"),
            model=TWO_DIGITS,
            updates=60_000,
            start="digit-context",
        ),
        Recipe(
            name="sum",
            row="Ours, sum",
            task=ClutteredDigits("sum", distractors=0),
            model=TWO_DIGITS,
            updates=30_000,
            start="pairs",
        ),
        Recipe(
            name="pairs-ior",
            row="Ours, pairs by inhibition of return",
            task=ClutteredDigits("pair"),
            model=ReadAgainConfig(DIGIT_CONTEXT, "pair"),
            updates=15_000,
            rate=5e-4,
            start="digit-context",
        ),
        Recipe(
            name="sum-ior",
            row="Ours, sum by inhibition of return",
            task=ClutteredDigits("sum", distractors=0),
            model=ReadAgainConfig(DIGIT_CONTEXT, "sum"),
            updates=10_000,
            rate=5e-4,
            start="pairs-ior",
        ),
        Recipe(
            name="cnn-pairs",
            row="Plain CNN, pairs",
            task=ClutteredDigits("pair"),
            model=CNNConfig(),
            updates=60_000,
        ),
        Recipe(
            name="cnn-sum",
            row="Plain CNN, sum",
            task=ClutteredDigits("sum", distractors=0),
            model=CNNConfig(),
            updates=30_000,
        ),
        # A simple glimpse network first; all that is around it is kept when it is exchanged.
        Recipe(
            name="house-numbers-simple",
            row="House numbers, synthetic twin: forward, simple glimpse network",
            task=TWIN,
            model=replace(NUMBERS, eye="dense"),
            updates=4_000,
        ),
        Recipe(
            name="house-numbers-forward",
            row="House numbers, synthetic twin: forward",
            task=TWIN,
            model=NUMBERS,
            updates=20_000,
            start="house-numbers-simple",
        ),
        Recipe(
            name="house-numbers-backward",
            row="House numbers, synthetic twin: backward",
            task=TWIN,
            model=replace(NUMBERS, direction="right-to-left"),
            updates=15_000,
            start="house-numbers-forward",
        ),
        # The paper's Section IV-B: 2 epochs of 230,000 images with the simple network, 50 with the
        # full one, at the paper's rate.
        Recipe(
            name="house-numbers-large-simple",
            row="House numbers, SVHN: forward, large, simple glimpse network",
            task=SVHN,
            model=replace(NUMBERS_LARGE, eye="dense"),
            updates=3_600,
            rate=1e-4,
            expects="some minutes on a large GPU; not run here",
        ),
        Recipe(
            name="house-numbers-large-forward",
            row="House numbers, SVHN: forward, large",
            task=SVHN,
            model=NUMBERS_LARGE,
            updates=90_000,
            rate=1e-4,
            start="house-numbers-large-simple",
            expects="some hours on a large GPU; not run here",
        ),
        Recipe(
            name="house-numbers-large-backward",
            row="House numbers, SVHN: backward, large",
            task=SVHN,
            model=replace(NUMBERS_LARGE, direction="right-to-left"),
            updates=90_000,
            rate=1e-4,
            start="house-numbers-large-forward",
            expects="some hours on a large GPU; not run here",
        ),
    )
}


def get(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        KeyError: if there is none; the message suggests the nearest name.
    """
    if name in RECIPES:
        return RECIPES[name]
    nearest = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)
    raise KeyError(
        f"get: no recipe is called {name!r}; did you mean {nearest[0]!r}? "
        f"The recipes are {', '.join(RECIPES)}"
    )
