"""One LightningModule around any model of the book; nothing model-specific lives here.

A step's images and noise are functions of the recipe's seed and the step's number alone. So a
training that is killed and resumed sees what it would have seen, and ends at the same weights.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ramlib import experiments
from ramlib._checks import require
from ramlib._extras import needs, quietly
from ramlib._files import as_path, room, write_atomically
from ramlib.experiments import records, weights
from ramlib.experiments.measure import checked
from ramlib.experiments.recipe import Recipe, differences

with needs("train"):
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer, TQDMProgressBar
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.plugins.io import TorchCheckpointIO
    from lightning.pytorch.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

# float16 is left out: its scaled gradients would have to be unscaled before they are clipped. So is
# bf16-true: weights of eight bits do not feel a small update.
PRECISIONS = ("32-true", "64-true", "bf16-mixed")
VALIDATION_BATCHES, VALIDATION_BATCH = 8, 512
LOG_EVERY = 50  # updates
AGREE_EVERY = 10  # updates, after which several processes ask each other whether to stop


def warmed_cosine(step: int, warmup: int, updates: int) -> float:
    """Share of the learning rate at `step`: a linear warm-up, under a cosine that ends at 0."""
    return min((step + 1) / max(warmup, 1), (1 + math.cos(math.pi * step / updates)) / 2)


class _Ticks(IterableDataset):
    """An endless stream of nothing: a step makes its own images, on its own device."""

    def __iter__(self):
        while True:
            yield 0


class Training(pl.LightningModule):
    """Trains the model of one recipe.

    Args:
        recipe: the recipe.
        runs: where the weights that it starts from are looked for, before those that ship.
        compiled: let torch.compile turn the loss into kernels of its own.
    """

    def __init__(self, recipe: Recipe, runs: Path | None = None, *, compiled: bool = False) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = recipe.build()
        if recipe.start is not None:
            start = weights.load(recipe.start, runs=runs)
            weights.start_from(self.model, start.state_dict())
        if recipe.guide is not None:
            self.model.follow(weights.load(recipe.guide, runs=runs))
        self.model.adapt(recipe.task)
        learn = self.model.learn
        self.learn = torch.compile(learn) if compiled else learn

    def sample(self, count: int, split: str, seed: int):
        """A batch made on this process's device, from `seed` alone."""
        generator = torch.Generator(self.device).manual_seed(seed)
        task = self.recipe.task
        return checked(task, task.sample(count, split=split, generator=generator))

    def training_step(self, _: int, __: int) -> Tensor:
        """Make a batch, look at it, and return the loss."""
        step = self.global_step * self.trainer.world_size + self.global_rank
        seed = (self.recipe.seed << 32) + step
        torch.manual_seed(seed)  # dropout and grid noise
        batch = self.sample(self.recipe.batch // self.trainer.world_size, "train", seed)
        batch = batch._replace(images=batch.images.to(self.dtype))
        loss = self.learn(batch, self.global_step)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, _: int, index: int) -> None:
        """Judge the model on validation images, the same ones each time."""
        batch = self.sample(VALIDATION_BATCH, "validation", index)
        rollout = self.model(batch.images.to(self.dtype))
        wrong, among = self.recipe.task.judge(rollout, batch)["error"]
        self.log(
            "validation error, %",
            100 * (wrong & among).sum() / among.sum(),
            prog_bar=True,
            batch_size=VALIDATION_BATCH,
            sync_dist=True,
        )

    def configure_gradient_clipping(self, optimizer, *_, **__) -> None:
        """Clip the norm here, since Lightning's own clipping refuses a fused optimiser."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self.log("gradient norm", norm)

    def configure_optimizers(self):
        """Adam with two rates, one for the policy, both warmed up and brought to 0."""
        recipe = self.recipe
        policy = self.model.policy_parameters()
        chosen = {id(parameter) for parameter in policy}
        rest = [p for p in self.model.parameters() if id(p) not in chosen]
        optimiser = torch.optim.Adam(
            [{"params": rest}, {"params": policy, "lr": recipe.rate * recipe.policy_share}],
            lr=recipe.rate,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: warmed_cosine(step, recipe.warmup, recipe.updates)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep the recipe beside the weights, so that no other one resumes them, and the means."""
        checkpoint["recipe"] = self.recipe.settings()
        checkpoint["used"] = {
            "precision": str(self.trainer.precision),
            "processes": self.trainer.world_size,
            "machine": records.machine(),
        }

    def train_dataloader(self) -> DataLoader:
        """Ticks; see `training_step`."""
        return DataLoader(_Ticks(), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """One tick per validation batch."""
        return DataLoader(range(VALIDATION_BATCHES), batch_size=None)


class Throughput(Callback):
    """Writes images per second beside the loss, and keeps the wall time across resumptions."""

    def __init__(self, every: int) -> None:
        self.every, self.seconds = every, 0.0

    def on_train_start(self, trainer, module) -> None:
        """Start the clock."""
        self._begun = self._last = time.perf_counter()
        self._before, self._step = self.seconds, trainer.global_step

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        """Read the clock."""
        now = time.perf_counter()
        self.seconds = self._before + now - self._begun
        if trainer.global_step % self.every == 0:
            images = (trainer.global_step - self._step) * module.recipe.batch
            module.log("images/s", images / (now - self._last), prog_bar=True)
            self._last, self._step = now, trainer.global_step

    def on_validation_start(self, trainer, module) -> None:
        """The rate is that of training alone."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer, module) -> None:
        """Go on."""
        self._last += time.perf_counter() - self._paused

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        """Take up where the checkpoint left off."""
        self.seconds = state["seconds"]


class Limit(Timer):
    """Lightning's timer, without its memory: a resumed training has the whole time again."""

    def state_dict(self) -> dict:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing."""


class Stopped(KeyboardInterrupt):
    """A training was told to stop, and left a checkpoint.

    Args:
        number: of the signal, Ctrl-C's SIGINT or a batch system's SIGTERM.
        done: updates in the checkpoint.
        speaks: whether this is the one process of several that says so.
    """

    def __init__(self, number: int, done: int, speaks: bool) -> None:
        super().__init__(f"{signal.Signals(number).name} stopped the training at update {done}")
        self.number, self.done, self.speaks = number, done, speaks


class Heed(Callback):
    """Ends a training between two steps after Ctrl-C or SIGTERM; a second one ends it at once.

    Lightning raises an exception wherever the training is, and a checkpoint made there may lack
    half a step.
    """

    number: int | None = None

    def on_train_start(self, trainer, module) -> None:
        """Listen, until Lightning puts back the handlers from before the training."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._hear)

    def _hear(self, number: int, _) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)
        if number == signal.SIGINT:  # written past the buffers, which may be in use
            os.write(2, b"\nstopping after this step; press Ctrl-C again to stop at once\n")

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        """Stop all processes at the same step, since each waits for the others' gradients."""
        if trainer.world_size > 1 and trainer.global_step % AGREE_EVERY:
            return
        if trainer.strategy.reduce_boolean_decision(self.number is not None, all=False):
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # a batch system does not wait for a validation


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, over all updates of the recipe."""

    @property
    def total_train_batches(self) -> int:
        """Where the bar ends."""
        return self.trainer.max_steps

    def on_train_epoch_start(self, trainer, module) -> None:
        """Begin where the checkpoint left off."""
        super().on_train_epoch_start(trainer, module)
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.set_description(module.recipe.name)

    def get_metrics(self, trainer, module) -> dict:
        """Loss, validation error, images/s; not the version of the logger."""
        return {k: v for k, v in super().get_metrics(trainer, module).items() if k != "v_num"}


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the old one and then swaps them in one move.

    Lightning goes through the system's temporary folder; where that is another disk, the file is
    copied into place, and a kill leaves half of it.
    """

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        """Write the whole file or none of it."""
        write_atomically(Path(path), lambda part: torch.save(checkpoint, part))

    def load_checkpoint(self, path, *_, **__) -> dict:
        """Read plain values and tensors, on the CPU: no pickled code, whatever the version."""
        return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep Lightning's advertisements, and warnings that do not concern us, off the screen."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                # The loaders yield numbers, so worker processes would only get in the way.
                ".*does not have many workers.*",
                ".*`IterableDataset` has `__len__`.*",
                # `folder` holds the checkpoint and the curve of a resumed training, as it should.
                ".*exists and is not empty.*",
                # A graphics card that is not asked for.
                ".*available but not used.*",
                # Lightning's own use of torch.
                ".*LeafSpec.*",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _prepare(folder: Path) -> None:
    """Make `folder`, see that it can be written, and sweep out what a killed writer left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(f"train: folder {folder} cannot be written ({error.strerror})") from error
    for partial in folder.glob(".last.ckpt.*"):
        partial.unlink(missing_ok=True)


def _steps_done(checkpoint: Path, recipe: Recipe, used: dict[str, str | int]) -> int:
    """Updates in a checkpoint, after checking that `recipe` made it, and by the same means."""
    try:
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        done = state["global_step"]
    except (RuntimeError, EOFError, KeyError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        verdict = (
            "holds more than plain values and tensors, so this version did not write it; choose "
            "another folder"
            if _whole(checkpoint)
            else f"is damaged ({reason}); delete it and train from the start"
        )
        raise ValueError(f"train: {checkpoint} {verdict}") from error
    before = state.get("used", {})
    changed = differences(recipe, state.get("recipe", {})) + [
        f"{key}={before[key]} (now {now})"
        for key, now in used.items()
        if before.get(key, now) != now
    ]
    require(
        not changed,
        f"train: {checkpoint} was made with {', '.join(changed)}; finish it as it was begun, "
        "or choose another folder",
    )
    return done


def _whole(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def lacking(recipe: Recipe, runs: Path) -> list[Recipe]:
    """What has to be trained before `recipe`, in that order: its weights neither lie in `runs`
    nor ship.
    """  # fmt: skip
    found: dict[str, Recipe] = {}
    for name in filter(None, (recipe.start, recipe.guide, *(recipe.joins or ()))):
        if not weights.exist(name, runs):
            before = experiments.get(name)
            found |= {one.name: one for one in (*lacking(before, runs), before)}
    return list(found.values())


def train(
    recipe: Recipe,
    folder: Path | str,
    *,
    resume: bool = False,
    max_time: timedelta | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: str | None = None,
    checkpoint_every: int = 500,
    compiled: bool = False,
    quiet: bool = False,
) -> tuple[Training, bool]:
    """Train a recipe in `folder`, which receives `last.ckpt` and the learning curve as CSV.

    A training that is done leaves `weights.safetensors` too. Ctrl-C and SIGTERM end it between two
    steps.

    Args:
        recipe: what to train.
        folder: made if absent.
        resume: go on from `folder/last.ckpt` if it is there.
        max_time: stop after so long, counted from now, leaving a checkpoint.
        accelerator: Lightning's word for the device: `auto`, `cpu`, `gpu`.
        devices: processes on each machine; the batch is shared out among all processes.
        nodes: machines. With more than one, torchrun or SLURM starts this on each of them.
        precision: Lightning's word for it; the recipe's when left out.
        checkpoint_every: updates between checkpoints and between validations.
        compiled: let torch.compile turn the loss into kernels of its own; that takes a minute.
        quiet: print nothing at all, not even a progress bar.

    Returns:
        The trained module, and whether it reached the recipe's last update.

    Raises:
        ValueError: if the recipe joins others, the batch does not divide among the processes, the
            device or the precision does not exist, or `folder` holds a damaged checkpoint or one of
            another recipe.
        FileExistsError: if `folder` holds a checkpoint and `resume` is False.
        FileNotFoundError: if the weights that the recipe starts from are not there.
        OSError: if `folder` cannot be written, or its disk is full.
        Stopped: after Ctrl-C or SIGTERM, with a checkpoint in `folder`.
    """
    require(
        recipe.joins is None,
        f"train: {recipe.name!r} joins {' and '.join(recipe.joins or ())}; train those",
    )
    absent = [name for name in ("sample", "judge") if not hasattr(recipe.task, name)]
    require(
        not absent,
        f"train: the task {type(recipe.task).__name__} has no {' and no '.join(absent)}; derive it "
        "from ramlib.tasks.Task, which says what a task has",
    )
    precision = precision or recipe.precision
    require(
        precision in PRECISIONS,
        f"train: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}",
    )
    for name, value in (("devices", devices), ("nodes", nodes)):
        require(value >= 1, f"train: {name} must be at least 1, got {value}")
    processes = devices * nodes
    require(
        recipe.batch % processes == 0,
        f"train: a batch of {recipe.batch} does not divide among {processes} processes",
    )
    require(
        checkpoint_every >= 1, f"train: checkpoint_every must be at least 1, got {checkpoint_every}"
    )
    folder = as_path(folder)
    if before := lacking(recipe, folder.parent):
        raise FileNotFoundError(
            f"train: {recipe.name!r} starts from {before[-1].name!r}, whose weights neither ship "
            f"nor lie in {folder.parent}; train it before (--with-starts does), or begin from "
            "random weights (--fresh)"
        )
    _prepare(folder)
    checkpoint = folder / "last.ckpt"
    if checkpoint.exists() and not resume:
        raise FileExistsError(f"train: {checkpoint} exists; resume it, or choose another folder")
    used = {"precision": precision, "processes": processes}
    done = _steps_done(checkpoint, recipe, used) if checkpoint.exists() else 0
    version = f"from-{done:07d}"
    if rank_zero_only.rank == 0:
        # What was logged from here on belongs to steps that are about to be taken again.
        shutil.rmtree(folder / "curve" / version, ignore_errors=True)
    with quietly(quiet):  # a model may look at the training images
        module = Training(recipe, folder.parent, compiled=compiled)
    every = min(LOG_EVERY, checkpoint_every)
    callbacks: list[Callback] = [
        # Throughput first: a checkpoint then holds the time of the step it was made after.
        Throughput(every),
        # Only between steps: an exception may come after a step was taken and before it is counted.
        ModelCheckpoint(
            folder, "last", every_n_train_steps=checkpoint_every, enable_version_counter=False
        ),
    ]
    callbacks.append(heed := Heed())
    if max_time is not None:
        callbacks.append(Limit(max_time))
    if not quiet:
        callbacks.append(ProgressBar(refresh_rate=10))
    with _without_chatter(), quietly(quiet), room(None, checkpoint):
        try:
            trainer = pl.Trainer(
                accelerator=accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy="ddp" if processes > 1 else "auto",
                precision=precision,
                max_steps=recipe.updates,
                # A training that is shorter than that is measured at its end.
                val_check_interval=min(checkpoint_every, recipe.updates),
                check_val_every_n_epoch=None,
                num_sanity_val_steps=0,
                logger=CSVLogger(folder, "curve", version, flush_logs_every_n_steps=1),
                log_every_n_steps=every,
                callbacks=callbacks,
                plugins=[AtomicCheckpoints()],
                enable_progress_bar=not quiet,
                enable_model_summary=False,
            )
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            cure = "; start it with srun, or unset SLURM_NTASKS" * ("SLURM_NTASKS" in os.environ)
            raise ValueError(f"train: {' '.join(str(error).split())}{cure}") from error
        trainer.fit(module, ckpt_path=checkpoint if checkpoint.exists() else None)
        trainer.save_checkpoint(checkpoint)
        finished = trainer.global_step >= recipe.updates
        if finished and trainer.is_global_zero:
            weights.save_weights(module.model, folder / "weights.safetensors")
    if heed.number is not None and not finished:
        raise Stopped(heed.number, trainer.global_step, trainer.is_global_zero)
    return module, finished
