"""One digit in clutter: Table I, and what made the model learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ramlib.attention import Window
from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments.recipe import (
    COSTS,
    PAPER,
    Group,
    Published,
    Recipe,
    Table,
    by_name,
    millions,
    percent,
    trial,
)
from ramlib.model import RAMConfig

DIGIT = RAMConfig(context=False, window=Window(0.35, 0.12, 1.0), supervision="all")
DIGIT_CONTEXT = RAMConfig(context=True, window=Window(0.35, 0.12, 0.5), supervision="all")

RECIPES = by_name(
    Recipe(
        name="quick",
        row="Ours, with context, trained briefly",
        task=ClutteredDigits("digit"),
        model=DIGIT_CONTEXT,
        updates=1_500,
    ),
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
)

# Their windows are drawn, so that the mean of ten passes is a result of its own.
DRAWN = (
    "mnih-digit-4-place",
    "mnih-digit-4",
    "mnih-digit-8",
    "ba-digit",
    "ba-digit-conv",
    "blind-digit-random",
)

TABLES = {
    "I": Table(
        "Single digit recognition, 100x100 canvas, test error in percent",
        (
            Published("Mnih et al., 4 glimpses", 9.41, "mnih2014recurrent"),
            Published("Mnih et al., 8 glimpses", 8.11, "mnih2014recurrent"),
            Published("Gregor et al., 4 glimpses", 4.18, "gregor2015draw"),
            Published("Gregor et al., 8 glimpses", 3.36, "gregor2015draw"),
            Published("Semeniuta & Barth, without context", 3.29, PAPER),
            Published("Semeniuta & Barth, with context", 1.80, PAPER),
        ),
        (
            "mnih-digit-4-place",
            "mnih-digit-4",
            "mnih-digit-8",
            "ba-digit",
            "ba-digit-conv",
            "gregor-digit-4",
            "gregor-digit-8",
            "digit-every-look",
            "digit",
            "digit-context",
            "digit-context-conv",
            "jaderberg-digit",
            "sonderby-digit",
            "cnn-3-digit",
            "cnn-6-digit",
            "blind-digit-centre",
            "blind-digit-random",
            "blind-digit-tiles",
            "oracle-digit",
        ),
        averages=DRAWN,
        columns={"missed, %": percent("missed"), **COSTS, "images, M": millions("images_seen")},
        note="Missed: the share of canvases on which the last window was not on the digit. "
        "Average: the mean of ten passes, of a model whose windows are drawn. Multiply-adds are "
        "those of one canvas. Images: those of its training, not of one that it starts from; "
        "budgets differ.",
        headlines={
            "digit": "Semeniuta & Barth, without context",
            "digit-context": "Semeniuta & Barth, with context",
        },
    ),
}


def _ablation(name: str, row: str, **changes: Any) -> Recipe:
    return trial(
        RECIPES["digit-context"], f"ablation-{name}", row, start=None, updates=2_000, **changes
    )


GROUPS = {
    "ablation": Group(
        "What made the digit model learn?",
        (
            _ablation("base", "as in digit-context"),
            _ablation("start-large", "window starts at 0.45", window=Window(0.45, 0.12, 0.5)),
            _ablation("start-small", "window starts at 0.2", window=Window(0.2, 0.12, 0.5)),
            _ablation("unbounded", "no limits on the window", window=Window(0.35)),
            _ablation("unbounded-large", "no limits, starts at 0.6", window=Window(0.6)),
            _ablation("bottom-up", "bottom-up order", recurrence="bottom-up"),
            _ablation("one-layer", "one recurrent layer", recurrence="one-layer"),
            _ablation("no-context", "no context network", context=False),
            _ablation("last-look", "loss on the last look only", supervision="last"),
            _ablation("classifier-64", "classifier of 64 units", classifier=64),
            _ablation("classifier-512", "classifier of 512 units", classifier=512),
            _ablation("classifier-two", "classifier of two layers", classifier_layers=2),
        ),
    ),
}
