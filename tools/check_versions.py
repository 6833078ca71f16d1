"""Check what pyproject.toml and the README promise, in an environment of its own.

    python tools/check_versions.py lowest    # the lowest versions that are declared: unit tests
    python tools/check_versions.py pinned    # constraints.txt: unit tests, and the book

Each takes a Python by `--python` (the one that runs this, else) and makes the environment in
`--at`, where it stays for the next time. The first time takes minutes and some gigabytes.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("train", "plot", "fonts")  # what the package itself is made of; `dev` runs the tests
FOR_THE_BOOK = "tests/book"  # its tests need the book's tool chain


def lowest(project: dict) -> list[str]:
    """The package's requirements at their lower bounds, as in `numpy==1.26`."""
    lines = [*project["dependencies"]]
    lines += [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return sorted({re.sub(r">=([\d.]+).*", r"==\1", line) for line in lines})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("what", choices=("lowest", "pinned"))
    arguments.add_argument("--python", default=sys.executable, help="the Python to check with")
    arguments.add_argument("--at", type=Path, help="folder of the environment (.venv-lowest, ...)")
    arguments.add_argument("tests", nargs="*", default=[], help="for pytest; else all")
    args = arguments.parse_args()
    at = (args.at or ROOT / f".venv-{args.what}").resolve()

    def run(*command: str | Path) -> None:
        print("+", *command, flush=True)
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True)

    run(args.python, "-m", "venv", at)
    pip = (at / "bin/pip", "install", "--quiet")
    if args.what == "lowest":
        with (ROOT / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)["project"]
        # The tools that test are any: what is declared of them is checked by the pins.
        run(*pip, *lowest(project), *project["optional-dependencies"]["dev"])
        run(*pip, "--no-deps", "-e", ".")
    else:
        run(*pip, "-c", "constraints.txt", "-e", ".[all]")
    options = ["-q", "-m", "not pages"]
    if args.what == "lowest":
        # What an old version says of the next one is no fault of ours.
        options += [f"--ignore={FOR_THE_BOOK}", "-W", "ignore::DeprecationWarning"]
    run(at / "bin/pytest", *options, *args.tests)
    if args.what == "pinned":
        built = at / "book"
        book = ("build", ".", "--path-output", built, "--quiet", "-W", "-n", "--keep-going")
        run(at / "bin/jupyter-book", *book)


if __name__ == "__main__":
    main()
