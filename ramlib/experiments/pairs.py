"""Two digits: Table II, and what makes attention leave one for the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ramlib.attention import Window
from ramlib.baselines.cnn import CNNConfig
from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments.digit import DIGIT_CONTEXT
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
from ramlib.model import RAMConfig
from ramlib.models.imitation import GuidedConfig
from ramlib.models.inhibition import ReadAgainConfig

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


RECIPES = by_name(
    # Attention does not find the second digit by itself. First it is shown where to look.
    Recipe(
        name="pairs-guided",
        row="Ours, pairs, while guided",
        task=ClutteredDigits("pair"),
        model=GuidedConfig(**vars(TWO_DIGITS)),
        updates=8_000,
        guide="digit-context",
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
    # learns alone, on many overlapping digits: a reader that learnt with it would unlearn to read.
    Recipe(
        name="pairs-ior-closer-alone",
        row="Ours, pairs by inhibition of return, while the closer looks learn alone",
        task=ClutteredDigits("pair", overlapping=0.75),
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
    # Then for long, with more overlapping digits than chance makes, now that each pair has a word.
    Recipe(
        name="pairs-ior-closer",
        row="Ours, pairs by inhibition of return, with closer looks",
        task=ClutteredDigits("pair", overlapping=0.2),
        model=READ_TWICE_CLOSER,
        updates=24_000,
        rate=5e-4,
        warmup=500,
        start="pairs-ior-closer-brief",
    ),
    Recipe(
        name="sum-ior-closer",
        row="Ours, sum by inhibition of return, with closer looks",
        task=ClutteredDigits("sum", distractors=0, overlapping=0.2),
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
)

TABLES = {
    "II": Table(
        "Pair recognition and digit summation, 100x100 canvas, test error in percent",
        (
            Published("Ba et al., pairs", 5.0, "ba2014multiple"),
            Published("Semeniuta & Barth, pairs", 4.3, PAPER),
            Published("Ba et al., sum", 2.5, "ba2014multiple"),
            Published("Semeniuta & Barth, sum", 2.55, PAPER),
        ),
        (
            "ba-pairs",
            "ba-pairs-conv",
            "sonderby-pairs",
            "pairs",
            "pairs-conv",
            "pairs-ior",
            "pairs-ior-conv",
            "pairs-ior-closer",
            "cnn-pairs",
            "ba-sum",
            "sonderby-sum",
            "sum",
            "sum-conv",
            "sum-ior",
            "sum-ior-conv",
            "sum-ior-closer",
            "cnn-sum",
        ),
        headlines={
            "pairs-conv": "Semeniuta & Barth, pairs",
            "pairs-ior-closer": "Semeniuta & Barth, pairs",
            "sum-conv": "Semeniuta & Barth, sum",
            "sum-ior-closer": "Semeniuta & Barth, sum",
        },
        averages=("ba-pairs", "ba-pairs-conv", "ba-sum"),
        columns={
            "apart, %": percent("error_apart"),
            "overlapping, %": percent("error_overlapping"),
            "visited both, %": percent("visited_both"),
            **COSTS,
        },
        note="Apart: the error where the boxes of the two digits do not overlap. "
        "Overlapping: where at least half of one box lies under the other. "
        "Visited both: the share of canvases with digits apart on which the windows were on both. "
        "Glimpses: the `+ 1` is a closer look at the end of a read. Multiply-adds are those of one "
        "canvas.",
    ),
}


def _remedy(name: str, row: str, base: str = "pairs", **changes: Any) -> Recipe:
    return trial(
        RECIPES[base], f"remedies-{name}", row, start="digit-context", updates=2_500, **changes
    )


def _loudness(name: str, row: str, gradient_limit: float | None) -> Recipe:
    recipe = RECIPES["pairs-ior"]
    reader = replace(recipe.model.reader, gradient_limit=gradient_limit)
    return replace(
        recipe,
        name=f"loudness-{name}",
        row=row,
        model=replace(recipe.model, reader=reader),
        updates=800,
    )


def _closer(name: str, row: str, **changes: Any) -> Recipe:
    """Many overlapping digits, from a model that reads twice."""
    base = "pairs-ior-closer-alone"
    return trial(
        RECIPES[base], f"closer-{name}", row, start=RECIPES[base].start, updates=1_500, **changes
    )


def _transfer(task: str, row: str, *, start: str | None) -> Recipe:
    name = f"transfer-{task}-from-{start}" if start else f"transfer-{task}-random"
    return trial(RECIPES[task], name, row, start=start, updates=2_500)


GROUPS = {
    "remedies": Group(
        "What makes attention leave one digit for the other?",
        (
            _remedy("all", "limit, relative shifts and penalty"),
            _remedy("no-limit", "no upper limit on the window", window=Window(0.3, 0.12, 2.0)),
            _remedy("absolute", "absolute centres", relative=False),
            _remedy("no-penalty", "no penalty", penalised_step=None),
            _remedy("guided", "all three, and a guide", base="pairs-guided"),
        ),
    ),
    "loudness": Group(
        "What does it help to limit the gradient of one look?",
        (
            _loudness("free", "inhibition of return, no limit", None),
            _loudness("limited", "inhibition of return, limited", 1.0),
        ),
    ),
    "closer": Group(
        "Who should learn to read digits that lie on each other?",
        (
            _closer("none", "two reads, no closer look", closer=None, frozen=False),
            _closer("all", "two reads and closer looks", frozen=False),
            _closer("alone", "closer looks alone"),
        ),
        images=10_000,
    ),
    "transfer": Group(
        "What is a start from the other task worth?",
        (
            _transfer("sum", "sum, random start", start=None),
            _transfer("sum", "sum, from pairs", start="pairs"),
            _transfer("pairs", "pairs, random start", start=None),
            _transfer("pairs", "pairs, from sum", start="sum"),
        ),
        every=200,
    ),
}
