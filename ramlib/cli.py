"""The command line: `ramlib list | train | evaluate | trials | table | data`."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

import ramlib
from ramlib import experiments
from ramlib._files import as_path
from ramlib.device import best_device
from ramlib.experiments import records, shipping, tables, trials, weights
from ramlib.experiments.measure import measure
from ramlib.experiments.recipe import Recipe, with_changes, with_data

DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")


def duration(text: str) -> timedelta:
    """Read `90s`, `45m`, `2h` or `HH:MM:SS`."""
    units = {"s": "seconds", "m": "minutes", "h": "hours"}
    try:
        if text[-1:] in units:
            read = timedelta(**{units[text[-1]]: float(text[:-1])})
        else:
            hours, minutes, seconds = map(int, text.split(":"))
            read = timedelta(hours=hours, minutes=minutes, seconds=seconds)
        if read > timedelta(0):
            return read
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(
        f"a duration is above 0 and reads like 90s, 45m, 2h or 01:30:00, got {text!r}"
    )


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least} on, got {text!r}"
            )
        return int(text)

    return read


def changed(args: argparse.Namespace) -> Recipe:
    """The recipe that was named, with all that was asked to be different."""
    recipe = with_changes(experiments.get(args.recipe), args.set)
    return recipe if args.data is None else with_data(recipe, args.data)


def list_recipes(args: argparse.Namespace) -> None:
    """One line per recipe: name, budget, measured error, row, and what it starts from."""
    ledger = records.read_all()
    width = max(map(len, experiments.RECIPES))
    for name, recipe in experiments.RECIPES.items():
        error = (
            f"{ledger[name]['metrics']['error']['value']:5.2f} % test error"
            if name in ledger
            else "not measured"
        )
        budget = f"{recipe.updates:>7} updates of {recipe.batch}" if recipe.updates else "joined"
        before = f" (starts from {recipe.start})" if recipe.start else ""
        print(f"{name:<{width}} {budget:>22}  {error:<20} {recipe.row}{before}")


def train(args: argparse.Namespace) -> int:
    """Train a recipe, and first what it starts from if asked."""
    recipe = changed(args)
    changes = {k: v for k in ("seed", "updates", "batch") if (v := getattr(args, k)) is not None}
    recipe = replace(recipe, **changes, **{"start": None} if args.fresh else {})
    from ramlib.experiments import training  # takes seconds, so a wrong name is told before

    before = training.lacking(recipe, args.runs) if args.with_starts else []
    end = None if args.max_time is None else time.monotonic() + args.max_time.total_seconds()
    for one in [*before, recipe]:
        if one.joins is not None and before:
            break  # both parts are trained
        folder, last = args.runs / one.name, one is recipe
        if not last:
            print(f"first {one.name}, {one.updates} updates")
        elif args.resume and not (folder / "last.ckpt").exists():
            print(f"no checkpoint in {folder}: training starts from the beginning")
        left = None if end is None else timedelta(seconds=max(end - time.monotonic(), 1e-3))
        try:
            module, finished = training.train(
                one,
                folder,
                resume=args.resume or not last,
                max_time=left,
                accelerator=args.device,
                devices=args.devices,
                nodes=args.nodes,
                precision=args.precision,
                compiled=args.compile,
                quiet=args.quiet,
            )
            number, done, speaks = 0, module.global_step, module.trainer.is_global_zero
        except training.Stopped as stop:
            number, done, finished, speaks = 128 + stop.number, stop.done, False, stop.speaks
        if not finished:
            if speaks:  # one process of several
                print(f"stopped at update {done} of {one.updates} of {one.name}; "
                      f"go on with: {again(args.typed)}")  # fmt: skip
            return number
    if speaks:
        different = [f"--set={change}" for change in args.set] + [f"--data={args.data}"][
            : bool(args.data)
        ]
        command = [
            "ramlib",
            "evaluate",
            recipe.name,
            "--run",
            str(args.runs / recipe.name),
            *different,
        ]
        print(
            f"weights: {folder / 'weights.safetensors'}\nmeasure them with: {shlex.join(command)}"
        )
    return 0


def again(typed: list[str]) -> str:
    """The command that goes on with a training, with a whole time of its own."""
    kept = re.sub(r"\0--max-time(=|\0)[^\0]*", "", "\0".join(["ramlib", *typed])).split("\0")
    return shlex.join(kept if "--resume" in kept else [*kept, "--resume"])


def evaluate(args: argparse.Namespace) -> None:
    """Measure a trained recipe; with `--ship`, on the test split, and keep weights and record."""
    recipe = changed(args)
    if args.ship:
        if recipe.joins is None and args.run is None:
            raise ValueError("evaluate: --ship needs --run")
        print(*shipping.ship(recipe, args.run, args.images), sep="\n")
        return
    if args.record:
        if args.run is None:
            raise ValueError("evaluate: --record needs --run")
        print(shipping.keep(recipe, args.run, args.images))
        return
    device = device_of(args.device)
    model = weights.load(args.recipe) if args.run is None else shipping.trained(recipe, args.run)
    if args.data is not None:
        print(f"measured on: {recipe.task.describe()}")
    found = measure(recipe.task, model.to(device), args.split, args.images, passes=args.passes)
    for name, metric in found.items():
        print(f"{name:<20} {metric.value:.2f} %  "
              f"({metric.low:.2f} to {metric.high:.2f}, n = {metric.n})")  # fmt: skip


def device_of(word: str) -> torch.device:
    """The device that a word of `--device` means."""
    best = best_device()
    if word == "auto" or (word == "gpu" and best.type != "cpu"):
        return best
    if word not in ("cpu", best.type):
        raise ValueError(f"--device {word}: there is none here; the best is {best.type}")
    return torch.device(word)


def run_trials(args: argparse.Namespace) -> None:
    """Train and measure what a group of short trainings still lacks."""
    for row in trials.run(args.group, args.runs, quiet=args.quiet):
        print(f"{row['recipe']:<28} {row['error']['value']:6.2f} %  {row['row']}")


def table(args: argparse.Namespace) -> None:
    """Print a table, with rows of one's own runs if asked."""
    own = () if args.runs is None else tables.of_runs(args.number, args.runs)
    print(tables.markdown(args.number, own))


def data(args: argparse.Namespace) -> None:
    """Write a synthetic twin of a data set."""
    from ramlib.data.twins import birds, house_numbers  # need more than the other commands

    sizes = {"train": args.train, "test": args.test, "seed": args.seed, "quiet": args.quiet}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    if args.name == "birds":
        folder = birds.write_twin(args.out, **{"train": 1_500, "test": 700, "classes": 12, **sizes})
    else:
        sizes = {"train": 30_000, "test": 5_000, **sizes}
        folder = house_numbers.write_twin(args.out, colours=args.colours, **sizes)
    print(f"{folder}\nname it to other commands as: RAMLIB_DATA={folder}")


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = argparse.ArgumentParser(prog="ramlib", description=ramlib.__doc__)
    top.add_argument("--version", action="version", version=ramlib.__version__)
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable, words: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
        sub.set_defaults(run_command=run)
        return sub

    def recipe(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("recipe", help="its name; `ramlib list` shows all")
        sub.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE",
            help="another value for a field of the recipe, as in model.glimpses=6; may be repeated",
        )  # fmt: skip
        sub.add_argument(
            "--data", help="`sample`, the images that ship, or the folder that holds the data"
        )
        sub.add_argument(
            "--device",
            choices=DEVICES,
            default="auto",
            help="where to compute (auto: a GPU if any)",
        )

    quiet = {"action": "store_true", "help": "no progress bar"}

    command("list", list_recipes, "the recipes, what they start from, and what they reach")

    sub = command("train", train, "train a recipe")
    recipe(sub)
    sub.add_argument(
        "--runs", type=as_path, default=Path("runs"), help="folder of trainings (runs)"
    )
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub.add_argument(
        "--with-starts", action="store_true", help="first train what the recipe starts from"
    )
    sub.add_argument(
        "--fresh", action="store_true", help="begin from random weights, whatever it starts from"
    )
    sub.add_argument("--max-time", type=duration, help="stop after 90s, 45m, 2h or 01:30:00")
    sub.add_argument(
        "--devices", type=whole(1), default=1, help="processes on each machine that share the batch"
    )
    sub.add_argument(
        "--nodes", type=whole(1), default=1, help="machines, under torchrun or SLURM (1)"
    )
    sub.add_argument("--precision", help="32-true, 64-true or bf16-mixed; else the recipe's")
    sub.add_argument(
        "--compile", action="store_true", help="use torch.compile, which takes a minute at first"
    )
    sub.add_argument("--seed", type=whole(0), help="in place of the recipe's")
    sub.add_argument("--updates", type=whole(1), help="in place of the recipe's")
    sub.add_argument("--batch", type=whole(1), help="in place of the recipe's")
    sub.add_argument("--quiet", **quiet)

    sub = command("evaluate", evaluate, "measure a trained recipe")
    recipe(sub)
    sub.add_argument("--run", type=as_path, help="folder of a training run; else what ships")
    sub.add_argument(
        "--split", choices=("validation", "test"), default="validation", help="(validation)"
    )
    sub.add_argument("--images", type=whole(1), help="at most so many; else all")
    sub.add_argument("--passes", type=whole(0), default=0, help="noisy passes to average")
    sub.add_argument(
        "--record", action="store_true", help="keep a record in the run, for `ramlib table --runs`"
    )
    sub.add_argument("--ship", action="store_true", help="keep weights and record (needs --run)")

    sub = command("trials", run_trials, "train a group of short trainings side by side")
    sub.add_argument("group", choices=tuple(experiments.GROUPS), help="what is tried")
    sub.add_argument(
        "--runs",
        type=as_path,
        default=Path("runs/trials"),
        help="folder of trainings (runs/trials)",
    )
    sub.add_argument("--quiet", **quiet)

    sub = command("table", table, "a table of the paper, with our rows")
    sub.add_argument(
        "number", nargs="?", default="I", choices=tuple(experiments.TABLES), help="of the table (I)"
    )
    sub.add_argument(
        "--runs", type=as_path, help="rows of your own: trainings that `evaluate --record` measured"
    )

    sub = command("data", data, "write a synthetic twin of a data set")
    sub.add_argument("name", choices=("birds", "house-numbers"), help="of the data set")
    sub.add_argument("--out", type=as_path, required=True, help="a folder that is not there yet")
    sub.add_argument("--train", type=whole(2), help="images in train (birds 1500, numbers 30000)")
    sub.add_argument("--test", type=whole(1), help="images in test (birds 700, numbers 5000)")
    sub.add_argument("--seed", type=whole(0), default=0, help="of all images (0)")
    sub.add_argument("--colours", type=whole(2), help="in a palette, for house numbers; else all")
    sub.add_argument("--quiet", **quiet)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input ends with one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # whatever letters a path may have
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        args = parser().parse_args(typed, argparse.Namespace(typed=typed))
        status = args.run_command(args) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough; nothing is left to be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as stop:
        print(f"ramlib: {stop if stop.args else 'interrupted'}", file=sys.stderr)
        return 128 + getattr(stop, "number", signal.SIGINT)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"ramlib: {error}", file=sys.stderr)
        return 2
    except KeyError as error:
        print(f"ramlib: {error.args[0]}", file=sys.stderr)
        return 2
