"""From a finished training to what ships: its weights, its record, its curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import ramlib
from ramlib._checks import require
from ramlib._files import write_atomically
from ramlib.experiments import records, weights
from ramlib.experiments.measure import PASSES, Measure, measure, multiply_adds
from ramlib.experiments.recipe import Recipe, differences
from ramlib.interface import Classifier

# Images on which a test measures shipped weights again, and on which an answer's cost is counted.
SUBSET, COUNTED = 1_000, 80
# By how much of its interval an error may move when weights are rounded to eight bits.
TOLERATED = 0.1
# Averages over noisy passes are drawn from this seed.
NOISE_SEED = 2016


def trained(recipe: Recipe, run: Path) -> Classifier:
    """The model that a finished training left in `run`, or the two that it joins, beside `run`.

    Raises:
        FileNotFoundError: if the training is not finished.
    """
    if recipe.joins is not None:
        return weights.load(recipe.name, runs=run.parent)
    path = run / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"evaluate: {run} holds no finished training; finish it with: "
            f"ramlib train {recipe.name} --runs {run.parent} --resume"
        )
    model = recipe.build().eval()
    weights.load_weights(model, path)
    return model


def count_subset(recipe: Recipe, model: Classifier, count: int = SUBSET) -> dict[str, int]:
    """How many of the first test images are named wrongly: what a test counts again, anywhere."""
    error = measure(recipe.task.public, model, "test", count)["error"]
    return {"n": error.n, "wrong": round(error.value * error.n / 100)}


def _finished(recipe: Recipe, run: Path) -> dict[str, Any]:
    """The last checkpoint of a training, after checking that it is this recipe's, and its end."""
    checkpoint = torch.load(run / "last.ckpt", weights_only=True, map_location="cpu")
    updates = checkpoint["global_step"]
    require(
        updates == recipe.updates,
        f"ship: {run} stopped at update {updates} of {recipe.updates}; finish it first",
    )
    changed = differences(recipe, checkpoint.get("recipe", {}))
    require(not changed, f"ship: {run} was made with {', '.join(changed)}")
    return checkpoint


def moved(before: Measure, after: Measure) -> bool:
    """Whether a measure moved by more than a share of the width of its interval: `TOLERATED`."""
    return abs(after.value - before.value) > TOLERATED * (before.high - before.low)


def store(recipe: Recipe, model: Classifier, count: int | None = None) -> None:
    """Store `model` in the coarsest precision that hardly moves its error on validation: `moved`.

    Args:
        recipe: what was trained.
        model: in evaluation mode.
        count: validation images, at most; the task's own number when left out.
    """

    def error(model: Classifier) -> Measure:
        return measure(recipe.task, model, "validation", count)["error"]

    path = weights.FOLDER / f"{recipe.name}.safetensors"
    notes = {"recipe": recipe.name, "version": ramlib.__version__}
    trained = error(model)
    for precision in weights.PRECISIONS:
        weights.save_weights(model, path, precision=precision, notes=notes)
        if precision == "float16" or not moved(trained, error(weights.load(recipe.name))):
            return


def ship(recipe: Recipe, run: Path | None, count: int | None = None) -> list[Path]:
    """Store the weights of `run`, measure what was stored on the test split, write the record.

    Args:
        recipe: what was trained; or what joins two that ship, which needs no `run`.
        run: folder of the finished training.
        count: test images, at most; the task's own number when left out.

    Returns:
        The record and the curve, which were written beside the weights.

    Raises:
        ValueError: if the training is not finished, or another recipe's.
    """
    if recipe.joins is not None:
        parts = [records.read(part) for part in recipe.joins]
        used = {key: " and ".join(dict.fromkeys(p[key] for p in parts)) for key in _USED}
        seconds = sum(part["wall_s"] for part in parts)
        model = weights.load(recipe.name)
        return [records.write(_record(recipe, model, count, {**used, "wall_s": seconds}))]
    require(run is not None, "ship: a recipe that is trained needs the folder of its run")
    model, checkpoint, frame = trained(recipe, run), _finished(recipe, run), records.curve(run)
    store(recipe, model, count)
    used = {**_used(recipe, checkpoint), "stored": weights.shipped_precision(recipe.name)}
    record = records.write(_record(recipe, weights.load(recipe.name), count, used))
    path = records.FOLDER / f"{recipe.name}-curve.csv"
    write_atomically(path, lambda t: frame.to_csv(t, index=False, float_format="%.4g"))
    return [record, path]


def keep(recipe: Recipe, run: Path, count: int | None = None) -> Path:
    """Measure a finished training as what ships is measured, and write a record in its folder.

    Args:
        recipe: what was trained.
        run: its folder.
        count: test images, at most; the task's own number when left out.

    Returns:
        The record, of which `ramlib table --runs` makes a row.

    Raises:
        ValueError: if the training is not finished, or another recipe's.
    """
    model, checkpoint = trained(recipe, run), _finished(recipe, run)
    return records.write(_record(recipe, model, count, _used(recipe, checkpoint)), run)


_USED = ("precision", "machine", "stored")


def _used(recipe: Recipe, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """By what means a training was made, as its checkpoint says, and how long it took."""
    used = {"precision": recipe.precision, "stored": "full", "machine": records.machine()}
    used |= checkpoint.get("used", {})
    if (processes := used.pop("processes", 1)) > 1:
        used["machine"] += f", {processes} processes"
    return {**used, "wall_s": round(checkpoint["callbacks"]["Throughput"]["seconds"])}


def measure_all(recipe: Recipe, model: Classifier, count: int | None = None) -> dict[str, Any]:
    """What a record says of a model: on the test split, on validation, and averaged over noise."""

    def found(split: str, passes: int = 0) -> dict[str, Measure]:
        return measure(recipe.task, model, split, count, passes=passes)

    metrics = found("test")
    metrics["validation_error"] = found("validation")["error"]
    if model.stochastic:
        torch.manual_seed(NOISE_SEED)
        metrics |= {f"average_{name}": m for name, m in found("test", PASSES).items()}
    counted = {name: m.as_dict() for name, m in metrics.items()}
    return {**counted, "subset": count_subset(recipe, model)}


def _record(
    recipe: Recipe, model: Classifier, count: int | None, used: dict[str, Any]
) -> dict[str, Any]:
    """Measure a model, and say all that a record says."""
    settings = recipe.settings()
    examples = next(recipe.task.public.batches("test", COUNTED)).images
    return {
        "recipe": recipe.name,
        "row": recipe.row,
        "data": recipe.task.describe(),
        **{key: settings[key] for key in ("task", "model", "seed", "updates", "batch")},
        "images_seen": recipe.updates * recipe.batch,
        **used,
        "version": ramlib.__version__,
        "torch": torch.__version__,
        "date": records.today(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply_adds": multiply_adds(model, examples),
        "metrics": measure_all(recipe, model, count),
    }
