"""One value per row of a table: task, model, budget, and what to expect of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import torch

from ramlib._checks import require
from ramlib.attention import Window
from ramlib.baselines.cnn import CNNConfig
from ramlib.baselines.goodfellow import NumberCNNConfig
from ramlib.data.cluttered import ClutteredDigits
from ramlib.data.house_numbers import HouseNumbers
from ramlib.imitation import GuidedConfig
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
        start: recipe whose weights the model starts from, but for what does not fit. They lie
            beside this training in the folder of runs, or ship.
        joins: two recipes whose readers this one joins. Nothing is left to train: `updates` is 0.
        expects: error and cost to expect.
    """

    name: str
    row: str
    task: ClutteredDigits | HouseNumbers
    model: (
        RAMConfig
        | ReadAgainConfig
        | CNNConfig
        | ReaderConfig
        | JoinedReaderConfig
        | NumberCNNConfig
    )
    updates: int
    batch: int = 128
    rate: float = 1e-3
    policy_share: float = 0.2
    warmup: int = 200
    clip: float = 0.5
    seed: int = 0
    precision: str = "bf16-mixed"
    start: str | None = None
    joins: tuple[str, str] | None = None
    expects: str = ""

    def __post_init__(self) -> None:
        if self.joins is not None:
            require(
                self.updates == 0 and self.start is None,
                f"Recipe: what joins others is not trained; got updates={self.updates} and "
                f"start={self.start!r}",
            )
        for field in ("batch",) if self.joins else ("updates", "batch"):
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

    def plain(value: Any) -> Any:
        """A file knows no tuples."""
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key, plain(value)

    now = dict(flat(asdict(recipe)))
    return [
        f"{key}={value} (now {now.get(key)})"
        for key, value in flat(saved)
        if key not in _NAMES and value != now.get(key)
    ]


DIGIT = RAMConfig(context=False, window=Window(0.35, 0.12, 1.0), supervision="all")
DIGIT_CONTEXT = RAMConfig(context=True, window=Window(0.35, 0.12, 0.5), supervision="all")
# The paper's remedies: an upper limit on the window, relative shifts, and eq. 5 on the third look.
TWO_DIGITS = RAMConfig(
    context=True,
    window=Window(0.3, 0.12, 0.4),
    relative=True,
    penalised_step=3,
    gradient_limit=1.0,
)
READ_TWICE = replace(DIGIT_CONTEXT, gradient_limit=1.0)
# A convolutional eye on a smaller hole: what is next to it is left to be seen.
READ_TWICE_CONV = replace(READ_TWICE, eye="conv-3")
READ_TWICE_CLOSER = ReadAgainConfig(READ_TWICE_CONV, "pair", reach=0.8, closer=24)

# About a million multiply-adds a look. One digit fills most of its crop, one of five a tenth.
NUMBERS = ReaderConfig(
    eye="conv-3",
    hidden=192,
    window=Window(0.6, 0.15, 1.0),
    dropout=0.2,
    recurrent_dropout=0.1,
    gradient_limit=1.0,
)
# For a GPU. The paper names no sizes; these are of its time.
NUMBERS_LARGE = replace(
    NUMBERS, size=16, hidden=512, eye_width=4, dropout=0.5, recurrent_dropout=0.5
)
TWIN, SVHN = HouseNumbers("twin"), HouseNumbers("svhn")
# Noise on the looks alone does not keep a reader from learning 27,000 crops by heart, let alone
# 1,800: so the crops are shaken as well, but for the first readers of the twin, of three layers.
SHAKEN, SUBSET = replace(TWIN, augment=0.1), replace(SVHN, augment=0.2)
TWIN_LOOSE, SUBSET_LOOSE = replace(SHAKEN, crop="loose"), replace(SUBSET, crop="loose")


def _loose(model: ReaderConfig) -> ReaderConfig:
    """The same reader for loose crops: its window covers as much of a digit, its context sees all.

    A tight crop is 1.3 numbers wide, a loose one 2.3.
    """
    share = 1.3 / 2.3
    window = Window(*(share * side for side in astuple(model.window)))
    return replace(model, window=window, shrink=2 * model.shrink)


def _both_ways(
    prefix: str,
    row: str,
    task: HouseNumbers,
    model: ReaderConfig,
    *,
    starts: tuple[str, str],
    updates: tuple[int, int],
    rates: tuple[float, float] = (1e-3, 1e-3),
    joined: str | None = None,
    **training: Any,
) -> Iterator[Recipe]:
    """A reader from left to right, one from right to left, and the two joined.

    Args:
        prefix: of the names.
        row: beginning of the rows.
        task: what they read.
        model: of the first.
        starts: recipe that each starts from.
        updates: of each.
        rates: of each.
        joined: name of the last, if not `prefix-both`.
        training: other fields of the two that are trained.
    """
    names = f"{prefix}-forward", f"{prefix}-backward"
    shared = {"task": task, **training}
    yield Recipe(
        names[0],
        f"{row}, forward",
        model=model,
        start=starts[0],
        updates=updates[0],
        rate=rates[0],
        **shared,
    )
    yield Recipe(
        names[1],
        f"{row}, backward",
        model=replace(model, direction="right-to-left"),
        start=starts[1],
        updates=updates[1],
        rate=rates[1],
        **shared,
    )
    yield Recipe(
        joined or f"{prefix}-both",
        f"{row}, both",
        task=task,
        model=JoinedReaderConfig(model),
        updates=0,
        joins=names,
    )


# Of about as many multiply-adds as a reader spends on a number.
GOODFELLOW = NumberCNNConfig()
PLAIN_NUMBERS = NumberCNNConfig(end="end", stages=((20,), (40,), (64,), (64,)), hidden=384)


def _house_numbers() -> Iterator[Recipe]:
    """The rows of Table III on the twin, and from their weights those on the subset of SVHN."""
    twin, few = "house-numbers-twin", "house-numbers-subset"
    row, few_row = "House numbers, synthetic twin", "House numbers, SVHN subset"
    gentle = {"rate": 5e-4, "warmup": 50}
    both_gentle = {"rates": (5e-4, 5e-4), "warmup": 50}

    # A simple glimpse network first; all that is around it is kept when it is exchanged.
    simple = Recipe(
        f"{twin}-simple",
        f"{row}: simple glimpse network, forward",
        TWIN,
        replace(NUMBERS, eye="dense"),
        updates=2_500,
        rate=2e-3,
    )
    yield simple
    # The same, no longer than the paper's two epochs are: for Figure 4.
    yield replace(
        simple,
        name=f"{twin}-brief",
        row=f"{row}: simple glimpse network, briefly, forward",
        updates=500,
    )
    yield from _both_ways(
        twin,
        f"{row}: 3 layers",
        TWIN,
        NUMBERS,
        starts=(f"{twin}-simple", f"{twin}-forward"),
        updates=(8_000, 6_000),
    )
    yield from _both_ways(
        f"{twin}-five",
        f"{row}: 5 layers",
        SHAKEN,
        replace(NUMBERS, eye="conv-5"),
        starts=(f"{twin}-forward", f"{twin}-five-forward"),
        updates=(3_000, 3_000),
        rates=(5e-4, 1e-3),
        warmup=50,
    )
    yield Recipe(
        f"{twin}-loose-forward",
        f"{row}, 128x128: 3 layers, forward",
        TWIN_LOOSE,
        _loose(NUMBERS),
        updates=1_600,
        start=f"{twin}-forward",
    )
    yield from _both_ways(
        f"{twin}-loose-five",
        f"{row}, 128x128: 5 layers",
        TWIN_LOOSE,
        _loose(replace(NUMBERS, eye="conv-5")),
        starts=(f"{twin}-five-forward", f"{twin}-loose-five-forward"),
        updates=(1_600, 1_600),
    )
    yield Recipe(
        "goodfellow-house-numbers-twin",
        f"{row}: Goodfellow et al.'s CNN, scaled",
        SHAKEN,
        GOODFELLOW,
        updates=3_000,
    )
    yield Recipe(
        "cnn-house-numbers-twin", f"{row}: plain CNN", SHAKEN, PLAIN_NUMBERS, updates=3_000
    )

    # What the twin is worth: readers that have never seen a photograph.
    yield Recipe(
        f"{few}-untuned",
        f"{few_row}: 5 layers, both, trained on the twin alone",
        SVHN,
        JoinedReaderConfig(replace(NUMBERS, eye="conv-5")),
        updates=0,
        joins=(f"{twin}-five-forward", f"{twin}-five-backward"),
    )
    yield from _both_ways(
        few,
        f"{few_row}: 3 layers",
        SUBSET,
        NUMBERS,
        starts=(f"{twin}-forward", f"{twin}-backward"),
        updates=(800, 800),
        **both_gentle,
    )
    yield from _both_ways(
        f"{few}-five",
        f"{few_row}: 5 layers",
        SUBSET,
        replace(NUMBERS, eye="conv-5"),
        starts=(f"{twin}-five-forward", f"{twin}-five-backward"),
        updates=(800, 800),
        joined="house-numbers-svhn",
        **both_gentle,
    )
    yield Recipe(
        f"{few}-loose-forward",
        f"{few_row}, 128x128: 3 layers, forward",
        SUBSET_LOOSE,
        _loose(NUMBERS),
        updates=400,
        start=f"{twin}-loose-forward",
        **gentle,
    )
    yield from _both_ways(
        f"{few}-loose-five",
        f"{few_row}, 128x128: 5 layers",
        SUBSET_LOOSE,
        _loose(replace(NUMBERS, eye="conv-5")),
        starts=(f"{twin}-loose-five-forward", f"{twin}-loose-five-backward"),
        updates=(400, 400),
        **both_gentle,
    )
    yield Recipe(
        "goodfellow-house-numbers-subset",
        f"{few_row}: Goodfellow et al.'s CNN, scaled",
        SUBSET,
        GOODFELLOW,
        updates=800,
        start="goodfellow-house-numbers-twin",
        **gentle,
    )
    yield Recipe(
        "cnn-house-numbers-subset",
        f"{few_row}: plain CNN",
        SUBSET,
        PLAIN_NUMBERS,
        updates=800,
        start="cnn-house-numbers-twin",
        **gentle,
    )

    # The paper's Section IV-B: 2 epochs of 230,000 images with the simple network, 50 with the
    # full one, at the paper's rate.
    large, large_row = "house-numbers-large", "House numbers, SVHN: large"
    slow = {"rates": (1e-4, 1e-4), "expects": "some hours on a large GPU; not run here"}
    yield Recipe(
        f"{large}-simple",
        f"{large_row}, simple glimpse network, forward",
        SVHN,
        replace(NUMBERS_LARGE, eye="dense"),
        updates=3_600,
        rate=1e-4,
        expects="some minutes on a large GPU; not run here",
    )
    yield from _both_ways(
        large,
        f"{large_row}, 3 layers",
        SVHN,
        NUMBERS_LARGE,
        starts=(f"{large}-simple", f"{large}-forward"),
        updates=(90_000, 90_000),
        **slow,
    )
    yield from _both_ways(
        f"{large}-five",
        f"{large_row}, 5 layers",
        SVHN,
        replace(NUMBERS_LARGE, eye="conv-5"),
        starts=(f"{large}-simple", f"{large}-five-forward"),
        updates=(90_000, 90_000),
        **slow,
    )


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
            model=replace(DIGIT, supervision="after-first", gradient_limit=1.0),
            updates=80_000,
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
        # Attention does not find the second digit by itself. First it is shown where to look.
        Recipe(
            name="pairs-guided",
            row="Ours, pairs, while guided",
            task=ClutteredDigits("pair"),
            model=GuidedConfig(**vars(TWO_DIGITS)),
            updates=8_000,
            start="digit-context",
        ),
        Recipe(
            name="pairs",
            row="Ours, pairs, guided at first",
            task=ClutteredDigits("pair"),
            model=TWO_DIGITS,
            updates=20_000,
            start="pairs-guided",
        ),
        Recipe(
            name="sum",
            row="Ours, sum, from pairs",
            task=ClutteredDigits("sum", distractors=0),
            model=TWO_DIGITS,
            updates=12_000,
            start="pairs",
        ),
        Recipe(
            name="pairs-ior",
            row="Ours, pairs by inhibition of return",
            task=ClutteredDigits("pair"),
            model=ReadAgainConfig(READ_TWICE, "pair"),
            updates=15_000,
            rate=5e-4,
            start="digit-context",
        ),
        Recipe(
            name="sum-ior",
            row="Ours, sum by inhibition of return",
            task=ClutteredDigits("sum", distractors=0),
            model=ReadAgainConfig(READ_TWICE, "sum"),
            updates=4_000,
            rate=5e-4,
            start="pairs-ior",
        ),
        # The same with a convolutional glimpse network, from weights that know where to look.
        Recipe(
            name="pairs-conv-brief",
            row="Ours, pairs, with a convolutional glimpse network, briefly",
            task=ClutteredDigits("pair"),
            model=replace(TWO_DIGITS, eye="conv-3"),
            updates=15_000,
            rate=5e-4,
            start="pairs",
        ),
        Recipe(
            name="pairs-conv",
            row="Ours, pairs, with a convolutional glimpse network",
            task=ClutteredDigits("pair"),
            model=replace(TWO_DIGITS, eye="conv-3"),
            updates=40_000,
            start="pairs-conv-brief",
        ),
        Recipe(
            name="sum-conv",
            row="Ours, sum, with a convolutional glimpse network",
            task=ClutteredDigits("sum", distractors=0),
            model=replace(TWO_DIGITS, eye="conv-3"),
            updates=10_000,
            start="pairs-conv",
        ),
        Recipe(
            name="pairs-ior-conv",
            row="Ours, pairs by inhibition of return, with a convolutional glimpse network",
            task=ClutteredDigits("pair"),
            model=ReadAgainConfig(READ_TWICE_CONV, "pair", reach=0.8),
            updates=15_000,
            rate=3e-4,
            warmup=500,
            start="digit-context-conv",
        ),
        Recipe(
            name="sum-ior-conv",
            row="Ours, sum by inhibition of return, with a convolutional glimpse network",
            task=ClutteredDigits("sum", distractors=0),
            model=ReadAgainConfig(READ_TWICE_CONV, "sum", reach=0.8),
            updates=4_000,
            rate=3e-4,
            start="pairs-ior-conv",
        ),
        # And with a closer look after each read, for digits that lie on each other. At first it
        # learns alone, on many heaps: a reader that learnt with it would unlearn to read.
        Recipe(
            name="pairs-ior-closer-alone",
            row="Ours, pairs by inhibition of return, while the closer looks learn alone",
            task=ClutteredDigits("pair", heaped=0.75),
            model=replace(READ_TWICE_CLOSER, frozen=True),
            updates=12_000,
            start="pairs-ior-conv",
        ),
        Recipe(
            name="pairs-ior-closer-brief",
            row="Ours, pairs by inhibition of return, with closer looks, briefly",
            task=ClutteredDigits("pair"),
            model=READ_TWICE_CLOSER,
            updates=5_000,
            rate=3e-4,
            warmup=500,
            start="pairs-ior-closer-alone",
        ),
        # Then for long, with more heaps than chance makes, now that there is a word for each.
        Recipe(
            name="pairs-ior-closer",
            row="Ours, pairs by inhibition of return, with closer looks",
            task=ClutteredDigits("pair", heaped=0.2),
            model=READ_TWICE_CLOSER,
            updates=24_000,
            rate=5e-4,
            warmup=500,
            start="pairs-ior-closer-brief",
        ),
        Recipe(
            name="sum-ior-closer",
            row="Ours, sum by inhibition of return, with closer looks",
            task=ClutteredDigits("sum", distractors=0, heaped=0.2),
            model=replace(READ_TWICE_CLOSER, target="sum"),
            updates=18_000,
            rate=5e-4,
            start="pairs-ior-closer-brief",
        ),
        Recipe(
            name="cnn-pairs-brief",
            row="Plain CNN, pairs, briefly",
            task=ClutteredDigits("pair"),
            model=CNNConfig(),
            updates=20_000,
        ),
        Recipe(
            name="cnn-pairs",
            row="Plain CNN, pairs",
            task=ClutteredDigits("pair"),
            model=CNNConfig(),
            updates=20_000,
            start="cnn-pairs-brief",
        ),
        Recipe(
            name="cnn-sum-brief",
            row="Plain CNN, sum, briefly",
            task=ClutteredDigits("sum", distractors=0),
            model=CNNConfig(),
            updates=20_000,
        ),
        Recipe(
            name="cnn-sum",
            row="Plain CNN, sum",
            task=ClutteredDigits("sum", distractors=0),
            model=CNNConfig(),
            updates=20_000,
            start="cnn-sum-brief",
        ),
        *_house_numbers(),
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


def updates_behind(name: str) -> int:
    """Updates of the recipe called `name`, and of all those that its weights come from.

    Raises:
        KeyError: if there is no such recipe.
    """
    recipe = get(name)
    return recipe.updates + (updates_behind(recipe.start) if recipe.start else 0)
