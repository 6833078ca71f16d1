"""A recipe that trains in a second, and trainings of it that are killed on the way."""

import contextlib
import io
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ramlib import cli, experiments
from ramlib.attention import Window
from ramlib.data.cluttered import ClutteredDigits
from ramlib.experiments import training
from ramlib.experiments.recipe import Recipe
from ramlib.model import RAMConfig

TINY = Recipe(
    name="tiny",
    row="Tiny",
    task=ClutteredDigits("digit", distractors=1, size=30),
    model=RAMConfig(
        glimpses=2, size=4, hidden=8, shrink=4, window=Window(0.5, 0.3, 0.9), supervision="all"
    ),
    updates=40,
    batch=4,
    warmup=5,
    precision="32-true",
)
NOISY = replace(
    TINY, model=replace(TINY.model, alpha=0.1, dropout=0.3, recurrent_dropout=0.3), seed=3
)
# Does not divide the steps at which trainings are killed, nor the number of updates.
CHECKPOINT_EVERY = 7


def few_canvases():
    """Validate on a handful of canvases."""
    training.VALIDATION_BATCHES, training.VALIDATION_BATCH = 2, 4


def train(recipe, folder, **options):
    """Train on the CPU in silence."""
    options = {"checkpoint_every": CHECKPOINT_EVERY, "quiet": True, **options}
    return training.train(recipe, folder, accelerator="cpu", **options)


# ---- for a process of its own, which does not come back ----


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def _train_alone(recipe, folder):
    torch.set_num_threads(1)
    few_canvases()
    train(recipe, folder, resume=True)


def train_until(recipe, folder, step, calls):
    """Train, and die `calls` Python calls after the beginning of a step: anywhere, but repeatably.

    The step's own work, the optimiser's, Lightning's and a checkpoint's are all made of calls.
    """
    usual_step = training.Training.training_step

    def count(*_):
        nonlocal calls
        calls -= 1
        if calls == 0:
            die()

    def training_step(self, *arguments):
        if self.global_step == step:
            sys.setprofile(count)
        return usual_step(self, *arguments)

    training.Training.training_step = training_step
    _train_alone(recipe, folder)


def train_until_writing(recipe, folder, moment):
    """Train, and die while the second checkpoint is written."""
    save, move, written = torch.save, os.replace, []

    def torch_save(state, path):
        written.append(path)
        if moment == "half of the file" and len(written) == 2:
            whole = io.BytesIO()
            save(state, whole)
            Path(path).write_bytes(whole.getvalue()[: whole.tell() // 2])
            die()
        save(state, path)

    def os_replace(*arguments):
        if moment == "before the move" and len(written) == 2:
            die()
        move(*arguments)

    torch.save, os.replace = torch_save, os_replace
    _train_alone(recipe, folder)


def train_until_told(recipe, runs, step, *signals):
    """Train as the command line does, and hear `signals` in the middle of a step."""
    torch.set_num_threads(1)
    few_canvases()
    experiments.RECIPES[recipe.name] = recipe
    usual_step = training.Training.training_step

    def training_step(self, *arguments):
        if self.global_step == step:
            for number in signals:
                os.kill(os.getpid(), number)
        return usual_step(self, *arguments)

    training.Training.training_step = training_step
    with (runs / "said").open("w") as said, contextlib.redirect_stdout(said):
        options = ("--device=cpu", "--quiet", f"--runs={runs}", "--max-time", "1h")
        status = cli.main(["train", recipe.name, *options])
    sys.exit(status)


if __name__ == "__main__":
    # Of two processes. Lightning runs this file once more for the second one of a machine.
    folder, updates, devices, nodes = sys.argv[1], *map(int, sys.argv[2:])
    few_canvases()
    recipe = replace(TINY, updates=updates)
    train(recipe, folder, devices=devices, nodes=nodes, precision="64-true")
