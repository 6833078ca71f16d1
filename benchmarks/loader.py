"""Time the loader of house numbers on a large set, and see how much memory it takes.

python benchmarks/loader.py [--images 30000] [--data FOLDER] [--json FILE]

Without --data, a twin of so many training images is written first, to a folder that is removed
again. The clock is CPU time, so that a busy machine does not count. Memory is by how much the
process's peak grew, pages of the mapped crops included; a second column leaves files out.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from ramlib._files import write_atomically
from ramlib.data import digit_struct, house_numbers
from ramlib.data.house_numbers import HouseNumbers
from ramlib.data.twins.house_numbers import write_twin
from ramlib.experiments import records

BATCH, BATCHES = 128, 100


def peak() -> float:
    """The largest memory that this process has held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def own() -> float:
    """Memory that the process holds now and that is no file's, in MB; not a number but on Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next(
        (int(li.split()[1]) / 1e3 for li in lines if li.startswith("RssAnon")), float("nan")
    )


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Crops go to `folder`, and nothing is remembered before or after."""
    before = os.environ.get("RAMLIB_CACHE")
    os.environ["RAMLIB_CACHE"] = str(folder)
    house_numbers.load.cache_clear()
    try:
        yield
    finally:
        house_numbers.load.cache_clear()
        os.environ.pop("RAMLIB_CACHE")
        if before is not None:
            os.environ["RAMLIB_CACHE"] = before


def measure(root: Path, cache: Path) -> pd.DataFrame:
    """What each stage of loading costs: the list, the crops, the cache, a batch."""
    train = root / "train"
    images = len(list(train.glob("*.png")))
    generator = torch.Generator().manual_seed(0)
    kind = "twin" if house_numbers.is_twin(root) else "svhn"
    task = HouseNumbers(kind, folder=str(root))

    def again() -> None:
        house_numbers.load.cache_clear()
        house_numbers.load(root, "training", quiet=True)

    def batches() -> None:
        for _ in range(BATCHES):
            task.sample(BATCH, generator=generator)

    stages: dict[str, tuple[Callable[[], object], int]] = {
        "read the list": (lambda: digit_struct.read(train, quiet=True), images),
        "list and cut, the first time": (again, images),
        "open the cache, later": (again, images),
        f"draw {BATCHES} batches of {BATCH}": (batches, BATCHES * BATCH),
    }
    rows = {}
    with cache_in(cache):
        for name, (work, count) in stages.items():
            most, held, begun = peak(), own(), time.process_time()
            work()
            seconds = time.process_time() - begun
            rows[name] = {
                "images": count,
                "seconds": seconds,
                "images/s": count / seconds,
                "peak grew by, MB": peak() - most,
                "kept, no files, MB": own() - held,
            }
    return pd.DataFrame(rows).T


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=30_000, help="of the twin that is written")
    parser.add_argument("--data", type=Path, help="a folder that is there already")
    parser.add_argument("--json", type=Path, help="write the table to this file, too")
    options = parser.parse_args(arguments)
    if options.images < 2:
        parser.error("--images must be at least 2")
    if options.data is not None and not (options.data / "train").is_dir():
        parser.error(f"--data: {options.data} holds no folder train")
    about = {"machine": records.machine(), "clock": "CPU time", "date": records.today()}
    with tempfile.TemporaryDirectory() as scratch:
        root = options.data or Path(scratch) / "twin"
        if options.data is None:
            begun = time.process_time()
            write_twin(root, train=options.images, test=1)
            seconds = time.process_time() - begun
            about["twin"] = (
                f"{options.images} images written, {options.images / seconds:.0f} a second"
            )
        table = measure(root, Path(scratch) / "cache")
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"\nLoading house numbers\n{table.round(2).to_string()}")
    if options.json is not None:
        found = json.loads(table.to_json(orient="index"))
        text = json.dumps({**about, "load": found}, indent=2) + "\n"
        write_atomically(options.json, lambda path: path.write_text(text, encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
