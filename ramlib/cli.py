"""The command line: `ramlib list | train | evaluate | trials | table | data`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import ramlib
from ramlib import experiments
from ramlib._files import write_atomically
from ramlib.data.twins import house_numbers as house_number_twin
from ramlib.experiments import records, shipping, tables, trials, weights
from ramlib.experiments.measure import measure

README_BEGIN, README_END = "<!-- results:begin -->", "<!-- results:end -->"


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


def list_recipes(args: argparse.Namespace) -> None:
    """One line per recipe: name, row, budget, and its measured error."""
    ledger = records.read_all()
    width = max(map(len, experiments.RECIPES))
    for name, recipe in experiments.RECIPES.items():
        error = (
            f"{ledger[name]['metrics']['error']['value']:5.2f} % test error"
            if name in ledger
            else "not measured"
        )
        budget = f"{recipe.updates:>7} updates of {recipe.batch}" if recipe.updates else "joined"
        print(f"{name:<{width}} {budget:>22}  {error:<20} {recipe.row}")


def train(args: argparse.Namespace) -> None:
    """Train a recipe; write its weights when it is done."""
    recipe = experiments.get(args.recipe)
    changes = {k: v for k in ("seed", "updates", "batch") if (v := getattr(args, k)) is not None}
    recipe = replace(recipe, **changes)
    from ramlib.experiments import training  # takes seconds, so a wrong name is told before

    folder = args.runs / recipe.name
    module, finished = training.train(
        recipe,
        folder,
        resume=args.resume,
        max_time=args.max_time,
        accelerator=args.device,
        devices=args.devices,
        precision=args.precision,
        quiet=args.quiet,
    )
    if not module.trainer.is_global_zero:
        return  # one process of several speaks
    if not finished:
        print(f"stopped at update {module.trainer.global_step} of {recipe.updates}; "
              f"go on with: ramlib train {recipe.name} --resume")  # fmt: skip
        return
    path = folder / "weights.safetensors"
    weights.save_weights(module.model, path)
    print(f"weights: {path}\nmeasure them with: ramlib evaluate {recipe.name} --run {folder}")


def evaluate(args: argparse.Namespace) -> None:
    """Measure a trained recipe; with `--ship`, on the test split, and keep weights and record."""
    recipe = experiments.get(args.recipe)
    if args.ship:
        if recipe.joins is None and args.run is None:
            raise ValueError("evaluate: --ship needs --run")
        print(*shipping.ship(recipe, args.run, args.images), sep="\n")
        return
    model = weights.load(args.recipe) if args.run is None else shipping.trained(recipe, args.run)
    found = measure(recipe.task, model, args.split, args.images, passes=args.passes)
    for name, metric in found.items():
        print(f"{name:<20} {metric.value:.2f} %  "
              f"({metric.low:.2f} to {metric.high:.2f}, n = {metric.n})")  # fmt: skip


def run_trials(args: argparse.Namespace) -> None:
    """Train and measure what a group of short trainings still lacks."""
    for row in trials.run(args.group, args.runs, quiet=args.quiet):
        print(f"{row['recipe']:<28} {row['error']['value']:6.2f} %  {row['row']}")


def table(args: argparse.Namespace) -> None:
    """Print a table, or put all of them into the README between its markers."""
    if args.readme is None:
        print(tables.markdown(args.number))
        return
    text = args.readme.read_text(encoding="utf-8")
    if README_BEGIN not in text or README_END not in text:
        raise ValueError(f"table: {args.readme} has no {README_BEGIN} and {README_END}")
    before, rest = text.split(README_BEGIN, 1)
    after = rest.split(README_END, 1)[1]
    filled = "\n\n".join(tables.markdown(number) for number in experiments.TABLES)
    new = f"{before}{README_BEGIN}\n{filled}\n{README_END}{after}"
    write_atomically(args.readme, lambda t: t.write_text(new, encoding="utf-8"))
    print(args.readme)


def data(args: argparse.Namespace) -> None:
    """Write a synthetic twin of a data set."""
    folder = house_number_twin.write_twin(
        args.out,
        train=args.train,
        test=args.test,
        seed=args.seed,
        colours=args.colours,
        quiet=args.quiet,
    )
    print(f"{folder}\nname it to other commands as: RAMLIB_DATA={folder}")


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = argparse.ArgumentParser(prog="ramlib", description=ramlib.__doc__)
    top.add_argument("--version", action="version", version=ramlib.__version__)
    commands = top.add_subparsers(dest="command", required=True)

    sub = commands.add_parser("list", help="the recipes and what they reach")
    sub.set_defaults(run_command=list_recipes)

    sub = commands.add_parser("train", help="train a recipe")
    sub.add_argument("recipe")
    sub.add_argument("--runs", type=Path, default=Path("runs"), help="folder of training runs")
    sub.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    sub.add_argument("--max-time", type=duration, help="stop after 90s, 45m, 2h or 01:30:00")
    sub.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    sub.add_argument("--devices", type=whole(1), default=1, help="processes that share the batch")
    sub.add_argument("--precision", help="32-true, 64-true or bf16-mixed; else the recipe's")
    sub.add_argument("--seed", type=whole(0), help="in place of the recipe's")
    sub.add_argument("--updates", type=whole(1), help="in place of the recipe's")
    sub.add_argument("--batch", type=whole(1), help="in place of the recipe's")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    sub.set_defaults(run_command=train)

    sub = commands.add_parser("evaluate", help="measure a trained recipe")
    sub.add_argument("recipe")
    sub.add_argument("--run", type=Path, help="folder of a training run; else what ships")
    sub.add_argument("--split", choices=("validation", "test"), default="validation")
    sub.add_argument("--images", type=whole(1), help="at most so many; else all")
    sub.add_argument("--passes", type=whole(0), default=0, help="noisy passes to average")
    sub.add_argument("--ship", action="store_true", help="keep weights and record (needs --run)")
    sub.set_defaults(run_command=evaluate)

    sub = commands.add_parser("trials", help="train a group of short trainings side by side")
    sub.add_argument("group", choices=tuple(experiments.GROUPS))
    sub.add_argument("--runs", type=Path, default=Path("runs/trials"), help="folder of trainings")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    sub.set_defaults(run_command=run_trials)

    sub = commands.add_parser("table", help="a table of the paper, with our rows")
    sub.add_argument("number", nargs="?", default="I", choices=tuple(experiments.TABLES))
    sub.add_argument("--readme", type=Path, help="fill this file's results section")
    sub.set_defaults(run_command=table)

    sub = commands.add_parser("data", help="write a synthetic twin of a data set")
    sub.add_argument("name", choices=("house-numbers",))
    sub.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    sub.add_argument("--train", type=whole(2), default=30_000, help="images in train (30000)")
    sub.add_argument("--test", type=whole(1), default=5_000, help="images in test (5000)")
    sub.add_argument("--seed", type=whole(0), default=0, help="of all images (0)")
    sub.add_argument("--colours", type=whole(2), help="in each file's palette; else all of them")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")
    sub.set_defaults(run_command=data)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input ends with one line on stderr and exit code 2."""
    top = parser()
    args = top.parse_args(arguments)
    try:
        args.run_command(args)
    except (ValueError, TypeError, OSError) as error:
        print(f"ramlib: {error}", file=sys.stderr)
        return 2
    except KeyError as error:
        print(f"ramlib: {error.args[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
