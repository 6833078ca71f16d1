"""Experiments on equal short budgets: groups of trainings that differ in one thing at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ramlib._files import write_atomically
from ramlib.experiments import GROUPS, records
from ramlib.experiments.measure import measure
from ramlib.experiments.recipe import Group, Recipe
from ramlib.interface import Classifier

FOLDER = records.FOLDER / "trials"
# Canvases on which a row keeps the windows of its model.
SHOWN = 6


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
    from ramlib.experiments import training  # Lightning takes seconds to import

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
def looks(recipe: Recipe, model: Classifier) -> list[list[list[float]]] | None:
    """Where a model looks on the first validation images, so that a figure can show it.

    Returns:
        The windows, a list of looks for each of `SHOWN` images; None if the model does not look.
    """
    batch = next(recipe.task.batches("validation", SHOWN))
    windows = model(batch.images, noisy=False).windows
    if windows is None:
        return None
    return [[[round(edge, 2) for edge in box] for box in looks] for looks in windows.tolist()]


def _row(recipe: Recipe, model: Classifier, folder: Path, images: int) -> dict[str, Any]:
    state = torch.load(folder / "last.ckpt", weights_only=True, map_location="cpu")
    curve = records.curve(folder)
    found = measure(recipe.task, model, "validation", images)
    validation = curve.dropna(subset="validation error, %")
    return {
        "recipe": recipe.name,
        "row": recipe.row,
        **{name: m.as_dict() for name, m in found.items()},
        "windows": looks(recipe, model),
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
