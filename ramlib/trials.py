"""Experiments on equal short budgets: groups of trainings that differ in one thing at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ramlib import evaluation, records
from ramlib._files import write_atomically
from ramlib.attention import Window
from ramlib.data.cluttered import ClutteredDigits
from ramlib.data.house_numbers import HouseNumbers
from ramlib.recipes import RECIPES, TWIN, Recipe

FOLDER = records.FOLDER / "trials"
# Canvases on which a row keeps the windows of its model.
SHOWN = 6


@dataclass(frozen=True)
class Group:
    """Trainings whose results stand side by side.

    Args:
        title: what the group asks.
        recipes: its trainings.
        images: validation images on which each is measured.
        every: updates between two points of the learning curves.
    """

    title: str
    recipes: tuple[Recipe, ...]
    images: int = 5_000
    every: int = 500


def _trial(base: str, name: str, row: str, *, start: str | None, updates: int, **changes) -> Recipe:
    """The recipe `base` on a short budget, with some of its model changed."""
    recipe = RECIPES[base]
    return replace(
        recipe,
        name=name,
        row=row,
        model=replace(recipe.model, **changes),
        updates=updates,
        start=start,
        expects="",
    )


def _ablation(name: str, row: str, **changes: Any) -> Recipe:
    return _trial("digit-context", f"ablation-{name}", row, start=None, updates=2_000, **changes)


def _remedy(name: str, row: str, base: str = "pairs", **changes: Any) -> Recipe:
    return _trial(base, f"remedies-{name}", row, start="digit-context", updates=2_500, **changes)


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
    """Many heaps, from a model that reads twice."""
    base = "pairs-ior-closer-alone"
    return _trial(base, f"closer-{name}", row, start=RECIPES[base].start, updates=1_500, **changes)


def _transfer(task: str, row: str, *, start: str | None) -> Recipe:
    name = f"transfer-{task}-from-{start}" if start else f"transfer-{task}-random"
    return _trial(task, name, row, start=start, updates=2_500)


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


GROUPS: dict[str, Group] = {
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
        ),
    ),
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


def run(name: str, runs: Path, *, quiet: bool = True) -> list[dict[str, Any]]:
    """Train every recipe of a group, measure it on validation images, and write `name`.json.

    Trainings that the file holds already are not repeated.

    Args:
        name: of the group.
        runs: folder for the training runs.
        quiet: without progress bars.

    Raises:
        KeyError: if there is no such group.
    """
    from ramlib import training  # Lightning takes seconds to import

    group = _group(name)
    rows = read(name)
    done = {row["recipe"] for row in rows}
    for recipe in group.recipes:
        if recipe.name in done:
            continue
        folder = runs / recipe.name
        module, _ = training.train(
            recipe, folder, resume=True, checkpoint_every=group.every, quiet=quiet
        )
        rows.append(_row(recipe, module.model.eval(), folder, group.images))
        _write(name, rows)
    return rows


def read(name: str) -> list[dict[str, Any]]:
    """The rows of a group that were measured so far, a dict each; none if nothing was.

    Raises:
        KeyError: if there is no such group.
    """
    _group(name)
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def read_all() -> dict[str, dict[str, Any]]:
    """Every measured row of every group, by the name of its recipe."""
    return {row["recipe"]: row for name in GROUPS for row in read(name)}


def speed_up(slow: dict[str, Any], fast: dict[str, Any]) -> float:
    """How many times fewer updates one training takes to the first error that it was seen at.

    A lower bound, up to the end of its curve, if `slow` never gets there.

    Args:
        slow: a row of a group.
        fast: the row of the training that is held against it.
    """
    first, level = fast["curve"][0]
    there = [at for at, error in slow["curve"] if error <= level]
    return (there[0] if there else slow["curve"][-1][0]) / first


def _group(name: str) -> Group:
    if name not in GROUPS:
        raise KeyError(f"trials: group must be one of {', '.join(GROUPS)}, got {name!r}")
    return GROUPS[name]


@torch.inference_mode()
def looks(recipe: Recipe, model: torch.nn.Module) -> dict[str, list] | None:
    """Where a model looks on the first validation canvases, so that a figure can show it.

    Returns:
        The six parameters of the grid, each a list of looks for each of `SHOWN` canvases; None if
        the model does not look, or at no canvas.
    """
    if not isinstance(recipe.task, ClutteredDigits):
        return None
    batch = next(evaluation.canvases(recipe.task, SHOWN, split="validation"))
    grids = model(batch.images, noisy=False).grids
    if grids is None:
        return None
    return {
        name: [[round(value, 4) for value in row] for row in values.tolist()]
        for name, values in vars(grids).items()
    }


def _row(recipe: Recipe, model: torch.nn.Module, folder: Path, images: int) -> dict[str, Any]:
    state = torch.load(folder / "last.ckpt", weights_only=True, map_location="cpu")
    curve = records.curve(folder)
    validation = curve.dropna(subset="validation error, %")
    return {
        "recipe": recipe.name,
        "row": recipe.row,
        **evaluation.measure(recipe.task, model, "validation", images),
        "looks": looks(recipe, model),
        "gradient_norm_median": round(float(curve["gradient norm"].median()), 2),
        "gradient_norm_max": round(float(curve["gradient norm"].max()), 2),
        "curve": [
            [int(step) + 1, round(float(error), 2)]
            for step, error in zip(validation.step, validation["validation error, %"], strict=True)
        ],
        "updates": recipe.updates,
        "batch": recipe.batch,
        "seed": recipe.seed,
        "data": recipe.task.describe(),
        "wall_s": round(state["callbacks"]["Throughput"]["seconds"]),
        "machine": records.machine(),
        "date": records.today(),
    }


def _write(name: str, rows: list[dict[str, Any]]) -> None:
    text = json.dumps(rows, indent=2) + "\n"
    FOLDER.mkdir(exist_ok=True)
    write_atomically(FOLDER / f"{name}.json", lambda file: file.write_text(text, encoding="utf-8"))
