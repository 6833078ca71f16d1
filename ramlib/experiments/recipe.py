"""The words of an experiment: a recipe, a table, a row that was published, a group of trials.

One recipe is one row of a table: task, model, budget, and what to expect of it.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from ramlib._checks import require
from ramlib._files import as_path
from ramlib.interface import Classifier
from ramlib.tasks import Task

PAPER = "semeniuta2016image"  # its key in the bibliography
Record = dict[str, Any]


@runtime_checkable
class ModelConfig(Protocol):
    """What shapes a model, apart from the images and the classes: a dataclass of plain values."""

    def build(self, image_shape: tuple[int, int, int], classes: int) -> Classifier:
        """The model with fresh weights."""


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
        guide: recipe of the one-digit reader that a guided model follows; see
            `ramlib.models.imitation`.
        start: recipe whose weights the model starts from, but for what does not fit. They lie
            beside this training in the folder of runs, or ship.
        joins: two recipes whose readers this one joins. Nothing is left to train: `updates` is 0.
        expects: error and cost to expect.
    """

    name: str
    row: str
    task: Task
    model: ModelConfig
    updates: int
    batch: int = 128
    rate: float = 1e-3
    policy_share: float = 0.2
    warmup: int = 200
    clip: float = 0.5
    seed: int = 0
    precision: str = "bf16-mixed"
    guide: str | None = None
    start: str | None = None
    joins: tuple[str, str] | None = None
    expects: str = ""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if hasattr(value, "item"):  # a number of numpy's or torch's
                object.__setattr__(self, name, value.item())
        self.settings()  # refuses what a checkpoint could not hold
        if self.joins is not None:
            require(
                self.updates == 0 and self.start is None,
                f"Recipe: what joins others is not trained; got updates={self.updates} and "
                f"start={self.start!r}",
            )
        for name in ("batch",) if self.joins else ("updates", "batch"):
            value = getattr(self, name)
            require(value >= 1, f"Recipe: {name} must be at least 1, got {value}")
        require(0 <= self.seed < 2**31, f"Recipe: seed must be in [0, 2**31), got {self.seed}")
        for name in ("rate", "clip"):
            value = getattr(self, name)
            require(value > 0, f"Recipe: {name} must be above 0, got {value}")

    def build(self) -> Classifier:
        """The model with fresh weights, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.model.build(self.task.image_shape, self.task.classes)

    def settings(self) -> dict[str, Any]:
        """All that decides the training, as plain values: what a checkpoint and a record keep.

        Raises:
            TypeError: if the task or the model holds what is not plain.
        """
        named = {key: value for key, value in vars(self).items() if key not in _WORDS}
        return {key: _plain(f"Recipe: {key}", value) for key, value in named.items()}


# What a recipe is called changes nothing in what it trains.
_WORDS = ("name", "row", "expects")


def _plain(where: str, value: Any) -> Any:
    """Strings, numbers, None, and lists and dicts of those: what any file can hold."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(f"{where}[{i}]", one) for i, one in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): _plain(f"{where}.{key}", one) for key, one in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "settings"):
        return _plain(where, value.settings())
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    # What a tensor or a function is does not stand in its `__dict__`.
    if hasattr(value, "__dict__") and not callable(value) and not torch.is_tensor(value):
        return _plain(where, vars(value))
    raise TypeError(
        f"{where} must hold plain values, so that a checkpoint can tell which training made it; "
        f"got {type(value).__name__}. Wrap tensors in ramlib.data.tensors.TensorTask, or give the "
        "task a method settings() that returns plain values"
    )


def with_changes(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """The recipe with other values, as in `model.glimpses=6` and `rate=3e-4`; its row says so.

    Raises:
        ValueError: if there is no such field, or it does not take such a value.
    """
    for change in changes:
        name, equals, text = change.partition("=")
        require(bool(equals), f"with_changes: a change reads like rate=3e-4, got {change!r}")
        recipe = _with_change(recipe, name.split("."), text, change)
        recipe = replace(recipe, row=f"{recipe.row}, {change}")
    return recipe


def _with_change(holder: Any, path: list[str], text: str, change: str) -> Any:
    name, *rest = path
    names = [one.name for one in fields(holder)] if is_dataclass(holder) else []
    require(
        name in names,
        f"with_changes: {change!r}: {type(holder).__name__} has no field {name!r}; "
        f"it has {', '.join(names) or 'none'}",
    )
    old = getattr(holder, name)
    if rest:
        return replace(holder, **{name: _with_change(old, rest, text, change)})
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text  # a word needs no quotes
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    require(
        type(value) is type(old) or value is None or old is None,
        f"with_changes: {change!r}: {name} must be of type {type(old).__name__}, as {old!r} is",
    )
    return replace(holder, **{name: value})


def with_data(recipe: Recipe, data: str) -> Recipe:
    """The recipe on other images: `sample`, those that ship, or those in a folder.

    Raises:
        ValueError: if its task takes no folder.
    """
    if data == "sample":
        return replace(recipe, task=recipe.task.public)
    require(
        hasattr(recipe.task, "folder"),
        f"with_data: the images of {recipe.name!r} do not come from a folder, got {data!r}",
    )
    return replace(recipe, task=replace(recipe.task, folder=str(as_path(data))))


def differences(recipe: Recipe, saved: dict[str, Any]) -> list[str]:
    """In what a recipe that was saved as `settings` differs, as in `seed=1 (now 0)`.

    Args:
        recipe: the recipe as it is now.
        saved: `Recipe.settings` of a recipe; fields that it lacks are not compared.
    """

    def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    now = dict(flat(recipe.settings()))
    return [
        f"{key}={value} (now {now.get(key)})"
        for key, value in flat(saved)
        if key not in _WORDS and value != now.get(key)
    ]


def by_name(*recipes: Recipe) -> dict[str, Recipe]:
    """The recipes by their names.

    Raises:
        ValueError: if two have the same name.
    """
    named = {recipe.name: recipe for recipe in recipes}
    require(len(named) == len(recipes), "by_name: two recipes have the same name")
    return named


def trial(
    base: Recipe, name: str, row: str, *, start: str | None, updates: int, **changes: Any
) -> Recipe:
    """The recipe `base` on a short budget, with some of its model changed."""
    model = replace(base.model, **changes)
    return replace(base, name=name, row=row, model=model, updates=updates, start=start, expects="")


@dataclass(frozen=True)
class Group:
    """Short trainings that differ in one thing at a time, and whose results stand side by side.

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


class Published(NamedTuple):
    """A row that the paper prints: its name, its number in percent, and a key of the bibliography.

    The key is of the work that the number belongs to.
    """

    row: str
    value: float
    source: str


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        title: what it says, and of what.
        published: the rows of other work, as the paper prints them.
        recipes: our rows.
        averages: of these, those that have a row for the mean of noisy passes too.
        metric: of the record, what the table is about.
        columns: what else our rows show: a column's head, and its text from a record.
        note: what a reader must know to read the columns.
        headlines: the results that stand for the table where there is room for few: a recipe, and
            the published row that it stands beside.
    """

    title: str
    published: tuple[Published, ...]
    recipes: tuple[str, ...]
    averages: tuple[str, ...] = ()
    metric: str = "error"
    columns: Mapping[str, Callable[[Record], str]] = field(default_factory=dict)
    note: str = ""
    headlines: Mapping[str, str] = field(default_factory=dict)


def percent(metric: str) -> Callable[[Record], str]:
    """A column of a metric; empty for a model that the metric does not apply to."""

    def text(record: Record) -> str:
        found = record["metrics"].get(metric)
        return "" if found is None else f"{found['value']:.2f}"

    return text


def millions(key: str) -> Callable[[Record], str]:
    """A column of a count, in millions."""
    return lambda record: f"{record[key] / 1e6:.2f}"


def glimpses(record: Record) -> str:
    """How often a model looks. One that reads again looks twice as often as its reader.

    Where each read ends with a closer look, that is the one added.
    """
    model = record["model"]
    if "reader" in model:
        looks = model["reader"]["glimpses"]
        return f"2 x ({looks} + 1)" if model.get("closer") else f"2 x {looks}"
    return str(model.get("glimpses", "none"))


COSTS = {
    "glimpses": glimpses,
    "parameters, M": millions("parameters"),
    "multiply-adds, M": millions("multiply_adds"),
}
