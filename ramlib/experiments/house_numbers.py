"""House numbers: Table III on the twin and on the subset of SVHN, and trials of its claims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace
from typing import Any

from ramlib.attention import Window
from ramlib.baselines.goodfellow import NumberCNNConfig
from ramlib.data.house_numbers import HouseNumbers
from ramlib.experiments.recipe import (
    COSTS,
    PAPER,
    Group,
    Published,
    Recipe,
    Table,
    by_name,
    percent,
    trial,
)
from ramlib.models.reader import JoinedReaderConfig, ReaderConfig

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


RECIPES = by_name(*_house_numbers())

# The twin's rows, then those of the subset of SVHN.
NUMBERS = (
    "house-numbers-twin-forward",
    "house-numbers-twin-both",
    "house-numbers-twin-five-both",
    "house-numbers-twin-loose-forward",
    "house-numbers-twin-loose-five-both",
    "ba-house-numbers-twin",
    "goodfellow-house-numbers-twin",
    "cnn-house-numbers-twin",
    "house-numbers-subset-untuned",
    "house-numbers-subset-forward",
    "house-numbers-subset-both",
    "house-numbers-svhn",
    "house-numbers-subset-loose-forward",
    "house-numbers-subset-loose-five-both",
    "goodfellow-house-numbers-subset",
    "cnn-house-numbers-subset",
)

TABLES = {
    "III": Table(
        "House numbers, error on whole numbers in percent",
        (
            Published("Goodfellow et al., 64x64", 3.96, "goodfellow2013multidigit"),
            Published("Ba et al., 64x64", 3.9, "ba2014multiple"),
            Published("Ba et al., 128x128", 4.46, "ba2014multiple"),
            Published("Jaderberg et al., 64x64", 3.6, "jaderberg2015spatial"),
            Published("Jaderberg et al., 128x128", 3.9, "jaderberg2015spatial"),
            Published("Semeniuta & Barth, forward, single pass, 64x64", 4.5, PAPER),
            Published("Semeniuta & Barth, forward, average, 64x64", 4.3, PAPER),
            Published("Semeniuta & Barth, both, single pass, 64x64", 3.9, PAPER),
            Published("Semeniuta & Barth, both, average, 64x64", 3.65, PAPER),
            Published("Semeniuta & Barth, 5 layers, both, average, 64x64", 3.4, PAPER),
            Published("Semeniuta & Barth, forward, single pass, 128x128", 5.5, PAPER),
            Published("Semeniuta & Barth, forward, average, 128x128", 5.2, PAPER),
            Published("Semeniuta & Barth, both, single pass, 128x128", 4.45, PAPER),
            Published("Semeniuta & Barth, both, average, 128x128", 4.35, PAPER),
            Published("Semeniuta & Barth, 5 layers, both, average, 128x128", 4.34, PAPER),
        ),
        NUMBERS,
        headlines={
            "house-numbers-twin-five-both": "Semeniuta & Barth, 5 layers, both, average, 64x64",
            "house-numbers-svhn": "Semeniuta & Barth, 5 layers, both, average, 64x64",
        },
        averages=tuple(n for n in NUMBERS if n.startswith(("house-numbers", "ba-"))),
        columns={
            "digits, %": percent("digit_error"),
            "too long, %": percent("too_long"),
            "too short, %": percent("too_short"),
            **COSTS,
        },
        note="Published rows: the whole of SVHN. Ours: a synthetic twin of it, and a subset of "
        "2,000 of its training images and 500 of its test images. Digits: the share of digits "
        "read wrongly. Too long and too short: the share of numbers in which too many or too few "
        "digits were read. Average: the mean of ten passes with noise on the grid. Glimpses are "
        "those of one object; multiply-adds are those of one number.",
    ),
}

# The noise of a reader's looks, and the same noise on the whole crop; on few training images, since
# neither has anything to do where there are many.
_FEW = replace(TWIN, only=2_000)
_SHAKEN = replace(_FEW, augment=0.1)


def _noise(name: str, row: str, task: HouseNumbers, alpha: float) -> Recipe:
    recipe = RECIPES["house-numbers-twin-forward"]
    return replace(
        recipe,
        name=f"noise-{name}",
        row=row,
        task=task,
        model=replace(recipe.model, alpha=alpha),
        updates=800,
    )


def _regularised(name: str, row: str, **changes: Any) -> Recipe:
    """A reader on few images, with all of the paper's regularisation but for `changes`."""
    return replace(
        trial(
            RECIPES["house-numbers-twin-forward"],
            f"regularisation-{name}",
            row,
            start=RECIPES["house-numbers-twin-forward"].start,
            updates=800,
            **{"alpha": 0.1, **changes},
        ),
        task=_FEW,
    )


_NO_DROPOUT = {"dropout": 0.0, "recurrent_dropout": 0.0}

# Figure 4: 25 short epochs of 6,400 images.
EPOCHS, EPOCH = 25, 50


def _pretraining(seed: int, start: str | None) -> Recipe:
    recipe = RECIPES["house-numbers-twin-forward"]
    way = "without" if start is None else "with"
    return replace(
        recipe,
        name=f"pretraining-{way}-{seed}",
        row=f"{way} pretraining, seed {seed}",
        updates=EPOCHS * EPOCH,
        start=start,
        seed=seed,
    )


GROUPS = {
    "noise": Group(
        "Noise on the looks, or on the images?",
        (
            _noise("none", "neither", _FEW, 0.0),
            _noise("looks", "noise on the grid of each look", _FEW, 0.1),
            _noise("images", "the same noise on the images", _SHAKEN, 0.0),
            _noise("both", "both", _SHAKEN, 0.1),
        ),
        images=3_000,
        every=200,
    ),
    "regularisation": Group(
        "Does a reader need dropout and noise?",
        (
            _regularised("all", "dropout, and noise on the looks"),
            _regularised("dropout", "dropout alone", alpha=0.0),
            _regularised("noise", "noise alone", **_NO_DROPOUT),
            _regularised("none", "neither", alpha=0.0, **_NO_DROPOUT),
            replace(
                RECIPES["cnn-house-numbers-twin"],
                name="regularisation-cnn",
                row="plain CNN, with its own dropout",
                task=_FEW,
                updates=800,
            ),
        ),
        images=3_000,
        every=200,
    ),
    "pretraining": Group(
        "Does a simple glimpse network first make the full one learn sooner?",
        tuple(
            _pretraining(seed, start)
            for seed in range(3)
            for start in (None, "house-numbers-twin-brief")
        ),
        images=3_000,
        every=EPOCH,
    ),
}
