"""The rivals of Tables I to III: what other systems reach on the same images.

Budgets are small: every row learns for some minutes of one CPU core, so that all can be trained
anew in an afternoon. A row that starts from another has that one's minutes behind it as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ramlib.attention import Window
from ramlib.baselines.ba import BaConfig, BaReaderConfig
from ramlib.baselines.cnn import CNNConfig
from ramlib.baselines.gregor import GregorConfig
from ramlib.baselines.jaderberg import JaderbergConfig, SonderbyConfig
from ramlib.baselines.mnih import HardAttentionConfig, MnihConfig
from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments import digit
from ramlib.experiments.house_numbers import TWIN
from ramlib.experiments.recipe import Group, Recipe, Table, by_name
from ramlib.models.controls import BlindConfig
from ramlib.tasks import Task

DIGIT = ClutteredDigits("digit")
PAIR = ClutteredDigits("pair")
SUM = ClutteredDigits("sum", distractors=0)


def rewarded(
    name: str,
    row: str,
    task: Task,
    model: HardAttentionConfig,
    updates: int,
    **more: Any,
) -> Recipe:
    """A training by rewards: each image is looked at in four ways; noise falls to the last update.

    Args:
        name: of the recipe.
        row: of its table.
        task: where images come from.
        model: annealed over all `updates`.
        updates: optimiser steps.
        more: other fields of the recipe.
    """
    settings = {"batch": 64, "rate": 2e-3, "policy_share": 0.5, "warmup": 100, "clip": 1.0, **more}
    return Recipe(name, row, task, replace(model, anneal=updates), updates, **settings)


RAM, DRAM = MnihConfig(), BaConfig()
# Who knows where to look needs less noise to learn to look again, or at another digit.
SETTLED = (0.12, 0.05)

# A window as wide as a digit, in our model without context.
BLIND = {"context": False, "window": Window(0.3), "supervision": "all"}

RECIPES = by_name(
    rewarded("mnih-digit-4", "Mnih et al.'s RAM, 4 glimpses", DIGIT, RAM, 25_000),
    rewarded(
        "mnih-digit-4-place",
        "Mnih et al.'s RAM, 4 glimpses, rewards teach the place network alone",
        DIGIT,
        replace(RAM, reinforced="place"),
        10_000,
    ),
    rewarded(
        "mnih-digit-8",
        "Mnih et al.'s RAM, 8 glimpses, from 4",
        DIGIT,
        replace(RAM, glimpses=8, sigma=SETTLED),
        6_000,
        start="mnih-digit-4",
    ),
    rewarded("ba-digit", "Ba et al.'s DRAM, 4 glimpses", DIGIT, DRAM, 5_000),
    rewarded(
        "ba-pairs",
        "Ba et al.'s DRAM, pairs, 4 glimpses, from a digit",
        PAIR,
        replace(DRAM, sigma=(0.3, 0.05)),
        12_000,
        start="ba-digit",
    ),
    rewarded(
        "ba-sum",
        "Ba et al.'s DRAM, sum, 4 glimpses, from pairs",
        SUM,
        replace(DRAM, sigma=SETTLED),
        4_000,
        start="ba-pairs",
    ),
    # The same with convolutions in front of the crops' features.
    rewarded(
        "ba-digit-conv",
        "Ba et al.'s DRAM, 4 glimpses, with a convolutional glimpse network",
        DIGIT,
        replace(DRAM, eye="conv"),
        5_000,
    ),
    rewarded(
        "ba-pairs-conv",
        "Ba et al.'s DRAM, pairs, 4 glimpses, with a convolutional glimpse network",
        PAIR,
        replace(DRAM, eye="conv", sigma=(0.3, 0.05)),
        12_000,
        start="ba-digit-conv",
    ),
    Recipe(
        "gregor-digit-4", "Gregor et al.'s DRAW, 4 glimpses", DIGIT, GregorConfig(), updates=8_000
    ),
    Recipe(
        "gregor-digit-8",
        "Gregor et al.'s DRAW, 8 glimpses, from 4",
        DIGIT,
        GregorConfig(glimpses=8),
        updates=3_000,
        start="gregor-digit-4",
    ),
    Recipe(
        "jaderberg-digit",
        "Jaderberg et al.'s spatial transformer",
        DIGIT,
        JaderbergConfig(),
        updates=10_000,
    ),
    Recipe(
        "sonderby-digit",
        "Sonderby et al.'s recurrent spatial transformer, 3 glimpses",
        DIGIT,
        SonderbyConfig(),
        updates=6_000,
    ),
    Recipe(
        "sonderby-pairs",
        "Sonderby et al.'s recurrent spatial transformer, pairs, 3 glimpses, from a digit",
        PAIR,
        SonderbyConfig(),
        updates=12_000,
        start="sonderby-digit",
    ),
    Recipe(
        "sonderby-sum",
        "Sonderby et al.'s recurrent spatial transformer, sum, 3 glimpses, from pairs",
        SUM,
        SonderbyConfig(),
        updates=4_000,
        start="sonderby-pairs",
    ),
    Recipe(
        "cnn-3-digit",
        "Plain CNN, 3 convolutions",
        DIGIT,
        CNNConfig(widths=(16, 32, 64)),
        updates=8_000,
    ),
    Recipe(
        "cnn-6-digit",
        "Plain CNN, 6 convolutions",
        DIGIT,
        CNNConfig(widths=(16, 32, 32, 64, 64, 64), strides=(2, 2, 1, 2, 2, 1)),
        updates=6_000,
    ),
    rewarded(
        "ba-house-numbers-twin",
        "House numbers, synthetic twin: Ba et al.'s DRAM, forward",
        TWIN,
        BaReaderConfig(eye="conv"),
        8_000,
    ),
    # The middle of a training, for the noise of its gradients.
    replace(
        digit.RECIPES["digit-every-look"],
        name="digit-every-look-brief",
        row="Ours, without context, loss on every look, briefly",
        updates=2_000,
        expects="",
    ),
    # Controls: as many looks of our model, at places that nobody chose; and as an oracle would.
    Recipe(
        "blind-digit-random",
        "Control: ours, windows anywhere",
        DIGIT,
        BlindConfig(path="random", **BLIND),
        updates=4_000,
    ),
    Recipe(
        "blind-digit-tiles",
        "Control: ours, windows that tile the canvas",
        DIGIT,
        BlindConfig(path="tiles", **{**BLIND, "window": Window(0.5)}),
        updates=4_000,
    ),
    Recipe(
        "blind-digit-centre",
        "Control: ours, windows in the middle",
        DIGIT,
        BlindConfig(path="centre", **BLIND),
        updates=2_000,
    ),
    Recipe(
        "oracle-digit",
        "Control: ours, windows on the digit by an oracle",
        replace(DIGIT, centred=True),
        BlindConfig(path="centre", **BLIND),
        updates=4_000,
    ),
)

TABLES: dict[str, Table] = {}
GROUPS: dict[str, Group] = {}
