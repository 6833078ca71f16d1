"""Your own tensors in, a trained model and an error with its interval out.

`TensorTask` parts what you have into train, validation and test; a `Recipe` says how to train;
`train` can be stopped at any time and resumed; `measure` judges. It needs `ramlib[train]`.
Run it with `python examples/own_data.py`. It takes a minute on one CPU core.
"""

import tempfile
from pathlib import Path

import torch
from own_loop import canvases

from ramlib import RAMConfig, Recipe
from ramlib.data.tensors import TensorTask
from ramlib.experiments.measure import Measure, measure
from ramlib.experiments.training import train


def main(updates: int = 400, count: int = 6000, folder: Path | None = None) -> Measure:
    """Train on shapes as if they had come from a file, and measure on the test split."""
    images, labels = canvases(count, torch.Generator().manual_seed(0))  # your own tensors
    task = TensorTask(images, labels, name="shapes on noise")
    recipe = Recipe(
        name="shapes",
        row="Four shapes",
        task=task,
        model=RAMConfig(glimpses=3, size=8, hidden=64, supervision="all"),
        updates=updates,
        batch=64,
        rate=2e-3,
        precision="32-true",
    )
    folder = folder or Path(tempfile.mkdtemp())  # name one of yours, to resume from it
    module, _ = train(recipe, folder / recipe.name, resume=True, quiet=True)
    model = module.model.eval()
    error = measure(task, model, "test")["error"]
    print(task.describe())
    print(f"test error {error.value:.1f} % ({error.low:.1f} to {error.high:.1f})")
    return error


if __name__ == "__main__":
    main()
