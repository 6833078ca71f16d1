"""What matters, on equal short budgets: one change at a time to the digit model with context."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ramlib import evaluation, records
from ramlib._files import write_atomically
from ramlib.attention import Window
from ramlib.recipes import RECIPES, Recipe

FILE = records.FOLDER / "ablation.json"
UPDATES = 2_000
VALIDATION_IMAGES = 5_000

_BASE = RECIPES["digit-context"]


def _change(name: str, row: str, **changes: Any) -> Recipe:
    return replace(
        _BASE,
        name=f"ablation-{name}",
        row=row,
        model=replace(_BASE.model, **changes),
        updates=UPDATES,
        expects="",
    )


VARIANTS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _change("base", "as in digit-context"),
        _change("start-large", "window starts at 0.45", window=Window(0.45, 0.12, 0.5)),
        _change("start-small", "window starts at 0.2", window=Window(0.2, 0.12, 0.5)),
        _change("unbounded", "no limits on the window", window=Window(0.35)),
        _change("unbounded-large", "no limits, starts at 0.6", window=Window(0.6)),
        _change("bottom-up", "bottom-up order", recurrence="bottom-up"),
        _change("one-layer", "one recurrent layer", recurrence="one-layer"),
        _change("no-context", "no context network", context=False),
        _change("last-look", "loss on the last look only", supervision="last"),
    )
}


def run(runs: Path, *, quiet: bool = True) -> list[dict[str, Any]]:
    """Train every variant, measure it on validation canvases, and write `ablation.json`.

    Variants that the file holds already are not trained again.

    Args:
        runs: folder for the training runs.
        quiet: without progress bars.
    """
    from ramlib import training  # Lightning takes seconds to import

    rows = read()
    done = {row["recipe"] for row in rows}
    for name, recipe in VARIANTS.items():
        if name in done:
            continue
        folder = runs / name
        module, _ = training.train(recipe, folder, resume=True, quiet=quiet)
        state = torch.load(folder / "last.ckpt", weights_only=True, map_location="cpu")
        curve = records.curve(folder)
        batches = evaluation.canvases(recipe.task, VALIDATION_IMAGES, split="validation")
        report = evaluation.evaluate_digits(module.model.eval(), batches)
        rows.append(
            {
                "recipe": name,
                "row": recipe.row,
                "error": report.error.as_dict(),
                "missed": report.missed.as_dict(),
                "gradient_norm_median": round(float(curve["gradient norm"].median()), 2),
                "gradient_norm_max": round(float(curve["gradient norm"].max()), 2),
                "updates": recipe.updates,
                "batch": recipe.batch,
                "seed": recipe.seed,
                "data": "validation canvases of real MNIST",
                "wall_s": round(state["callbacks"]["Throughput"]["seconds"]),
                "machine": records.machine(),
                "date": records.today(),
            }
        )
        text = json.dumps(rows, indent=2) + "\n"
        write_atomically(FILE, lambda t, text=text: t.write_text(text, encoding="utf-8"))
    return rows


def read() -> list[dict[str, Any]]:
    """The rows measured so far; none if nothing was measured."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else []
