"""The book's laboratory: every trained row, its task, how it is trained, measured and kept."""

from __future__ import annotations

import difflib

from ramlib.experiments import baselines, birds, digit, house_numbers, pairs
from ramlib.experiments.recipe import Group, Recipe, Table

_TASKS = (digit, pairs, house_numbers, birds, baselines)

RECIPES: dict[str, Recipe] = {name: r for task in _TASKS for name, r in task.RECIPES.items()}
TABLES: dict[str, Table] = {number: t for task in _TASKS for number, t in task.TABLES.items()}
GROUPS: dict[str, Group] = {name: g for task in _TASKS for name, g in task.GROUPS.items()}


def get(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        KeyError: if there is none; the message suggests the nearest name.
    """
    if name in RECIPES:
        return RECIPES[name]
    nearest = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)
    raise KeyError(
        f"get: no recipe is called {name!r}; did you mean {nearest[0]!r}? `ramlib list` shows all"
    )


def updates_behind(name: str) -> int:
    """Updates of the recipe called `name`, and of all those that its weights come from.

    Raises:
        KeyError: if there is no such recipe.
    """
    recipe = get(name)
    return recipe.updates + (updates_behind(recipe.start) if recipe.start else 0)
