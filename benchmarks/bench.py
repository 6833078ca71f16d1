"""Time the read, a training step and each module, all in one run.

python benchmarks/bench.py [--device cuda] [--threads 2] [--json FILE]

On one CPU thread the clock is that thread's CPU time, so that a busy machine does not count; else
it is the wall's. What is compared is timed in turns, and a row shows the median of its turns.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from plain import PlainRecurrentAttentionModel
from torch.utils.benchmark import Timer, timer

from ramlib import experiments
from ramlib._files import write_atomically
from ramlib.experiments import records
from ramlib.glimpse import GlimpseGrid, read_glimpse, support_of

SIDES = (64, 128, 512, 4096)
# A window of 33 pixels and a bit, as on a digit.
SIZE, DELTA, SIGMA = 12, 3.0, 1.5
CALLS = 4  # in each turn

Work = Callable[[], object]


def clock(device: str, threads: int) -> Callable[[], float]:
    """CPU time where one thread does all the work; else the wall's, after the device has ended."""
    return time.process_time if device == "cpu" and threads == 1 else timer


def in_turns(works: dict[str, Work], rounds: int, device: str, threads: int) -> dict[str, float]:
    """Median milliseconds of each piece of work, in turns so that all see the same machine."""
    timers = {
        name: Timer(
            "work()", globals={"work": w}, num_threads=threads, timer=clock(device, threads)
        )
        for name, w in works.items()
    }
    turns = {name: [] for name in works}
    for _ in range(rounds):
        for name, each in timers.items():
            turns[name].append(1e3 * each.timeit(CALLS).mean)  # after two calls that do not count
    return {name: statistics.median(times) for name, times in turns.items()}


def backward(output: torch.Tensor) -> None:
    """Slopes of everything that led to `output`."""
    output.float().sum().backward()


def reads(device: str, threads: int, rounds: int, batch: int = 8) -> pd.DataFrame:
    """A look, forward and backward, at images of growing size: all of it, and its window only."""
    support = support_of(SIZE, DELTA, SIGMA)
    centre = torch.linspace(-0.5, 0.5, batch, device=device)
    one = torch.ones(batch, device=device)
    grid = GlimpseGrid(centre, -centre, DELTA * one, DELTA * one, SIGMA * one, one)
    grid = grid.map(torch.Tensor.requires_grad_)
    rows = []
    for side in SIDES:
        images = torch.rand(batch, 1, side, side, device=device)

        def look(reach: int | None, images: torch.Tensor = images) -> Work:
            return lambda: backward(read_glimpse(images, grid, SIZE, support=reach))

        times = in_turns({"full": look(None), "windowed": look(support)}, rounds, device, threads)
        rows.append({"pixels": f"{side} x {side}", **times})
    frame = pd.DataFrame(rows).set_index("pixels")
    frame["full / windowed"] = frame["full"] / frame["windowed"]
    return frame.rename(columns={"full": "full, ms", "windowed": "windowed, ms"})


def training_step(
    recipe: experiments.Recipe,
    model: Callable,
    loss: Callable,
    device: str,
    mixed: bool,
    learner: torch.nn.Module | None = None,
) -> Work:
    """One whole update: make a batch, look, go back, clip, move.

    `learner` holds the parameters, where `model` does not.
    """
    learner = learner or model
    optimiser = torch.optim.Adam(learner.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator(device).manual_seed(recipe.seed)

    def step() -> None:
        batch = recipe.task.sample(recipe.batch, generator=generator)
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            value = loss(model(batch.images), batch.labels)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), recipe.clip)
        optimiser.step()

    return step


def parts(recipe: experiments.Recipe, model: torch.nn.Module, device: str) -> dict[str, Work]:
    """The work of each module in one update in bfloat16, forward and backward."""
    looks, count = model.config.glimpses, recipe.batch
    optimiser = torch.optim.Adam(model.parameters(), lr=0.0, fused=True)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    batch = recipe.task.sample(count, generator=generator)
    images = batch.images.bfloat16()

    def leaf(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=device, dtype=torch.bfloat16).requires_grad_()

    h, glimpse = (
        leaf(count, recipe.model.hidden),
        leaf(count, 1, model.config.size, model.config.size),
    )
    memories = leaf(count, looks, recipe.model.hidden)

    def mixed(forward: Callable[[], torch.Tensor]) -> Work:
        def work() -> None:
            with torch.autocast(device, torch.bfloat16):
                output = forward()
            backward(output)

        return work

    def attend() -> torch.Tensor:
        grid, seen = None, []
        for _ in range(looks):
            grid, _ = model.f_ext(h, grid)
            seen.append(read_glimpse(images, grid, model.config.size, support=model.f_ext.support))
        return torch.stack(seen)

    def remember() -> torch.Tensor:
        state = model.f_rec.begin(h, count)
        for _ in range(looks):
            state = model.f_rec.see(model.f_rec.look(state), h)
        return torch.stack([state.h1, state.h2])

    def move() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()

    return {
        "data": lambda: recipe.task.sample(count, generator=generator),
        "context network": mixed(lambda: model.f_context(images)),
        "attention and read": mixed(attend),
        "glimpse network": mixed(
            lambda: torch.stack([model.f_glimpse(glimpse) for _ in range(looks)])
        ),
        "recurrence": mixed(remember),
        "classifier": mixed(lambda: model.f_class(memories)),
        "clipping and Adam": move,
    }


def steps(device: str, threads: int, rounds: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A training step of `digit-context` against the plain model, and the share of each module."""
    recipe = experiments.get("digit-context")
    model = recipe.build().to(device)
    plain = PlainRecurrentAttentionModel(model).to(device)
    ours, theirs = "ramlib, bfloat16", "plain, float32"
    works = {
        theirs: training_step(recipe, plain, model.loss, device, False),
        "plain, bfloat16": training_step(recipe, plain, model.loss, device, True),
        "ramlib, float32": training_step(recipe, model, model.loss, device, False),
        ours: training_step(recipe, model, model.loss, device, True),
    }
    times = in_turns({**works, **parts(recipe, model, device)}, rounds, device, threads)
    step = pd.DataFrame({"step, ms": {name: times.pop(name) for name in works}})
    step["images/s"] = 1e3 * recipe.batch / step["step, ms"]
    step["against plain, float32"] = step.at[theirs, "step, ms"] / step["step, ms"]
    share = pd.DataFrame({"ms": times})
    share.loc["all else"] = step.at[ours, "step, ms"] - share["ms"].sum()
    share["share, %"] = 100 * share["ms"] / step.at[ours, "step, ms"]
    return step, share


def as_graph(recipe: experiments.Recipe, model: torch.nn.Module) -> Work:
    """The whole update as one CUDA graph, which is launched at once and not kernel by kernel."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True, capturable=True)
    generator = torch.Generator("cuda").manual_seed(recipe.seed)

    def step() -> None:
        batch = recipe.task.sample(recipe.batch, generator=generator)
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            value = model.objective(batch.images, batch.labels)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step()

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what is made once is not to be recorded
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def ways(device: str, threads: int, rounds: int) -> pd.DataFrame:
    """A training step of `digit-context` in bfloat16: as it is, compiled, and as a CUDA graph.

    A way that fails has no times, and says why below the table.
    """
    recipe = experiments.get("digit-context")

    def compiled(model: torch.nn.Module) -> Work:
        loss = torch.compile(model.objective, fullgraph=True)
        return training_step(recipe, lambda images: images, loss, device, True, model)

    def eager(model: torch.nn.Module) -> Work:
        return training_step(recipe, model, model.loss, device, True)

    makers = {"eager": eager, "compiled": compiled, "CUDA graph": lambda m: as_graph(recipe, m)}
    works, broken = {}, {}
    for name, make in makers.items():
        try:
            work = make(recipe.build().to(device))
            work()
            works[name] = work
        except Exception as error:  # of a compiler, or a driver: the other ways are still timed
            broken[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    times = in_turns(works, rounds, device, threads)
    frame = pd.DataFrame({"step, ms": {name: times.get(name) for name in makers}}, dtype=float)
    frame["images/s"] = 1e3 * recipe.batch / frame["step, ms"]
    frame.attrs = broken
    return frame


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each timing")
    parser.add_argument("--json", type=Path, help="write the tables to this file, too")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no such device")
    if min(options.threads, options.rounds) < 1:
        parser.error("--threads and --rounds must be at least 1")
    device = options.device
    torch.set_num_threads(options.threads)
    about = {
        "machine": records.machine(),
        "device": device,
        "threads": options.threads,
        "torch": torch.__version__,
        "date": records.today(),
        "clock": "CPU time" if clock(device, options.threads) is time.process_time else "wall time",
    }
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    how = (device, options.threads, options.rounds)
    step, share = steps(*how)
    tables = {"read": reads(*how), "step": step, "share": share}
    if device == "cuda":
        tables["ways"] = ways(*how)
    titles = {
        "read": "A look, forward and backward, at 8 images",
        "step": "A training step of digit-context",
        "share": "Where a step of ramlib in bfloat16 goes",
        "ways": "A training step of digit-context, as it is, compiled and as a CUDA graph",
    }
    for name, table in tables.items():
        print(f"\n{titles[name]}\n{table.round(2).to_string()}")
        print(*(f"{way}: {why}" for way, why in table.attrs.items()), sep="\n")
    if options.json is not None:
        found = {name: json.loads(table.to_json(orient="index")) for name, table in tables.items()}
        text = json.dumps({**about, **found}, indent=2) + "\n"
        write_atomically(options.json, lambda path: path.write_text(text, encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
