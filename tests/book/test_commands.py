"""Every command that a page prints is run by a test, or is on a short list that says why not."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ramlib import RECIPES, cli

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
PROGRAMS = ("make", "ramlib", "python", "pip", "conda", "jupyter", "git")

# Run here, in a copy of the repository: what is printed, and the short form that is run.
SHORT = "make train RECIPE=digit-context ARGS='--updates 2 --batch 2 --device cpu --quiet"
HERE = {
    "make format": "make format",
    "make chapters": "make chapters",
    "make chapters CHAPTER=book/NN_name.md": "make chapters CHAPTER=book/99_name.md",
    "make train RECIPE=RECIPE": f"{SHORT}'",
    "make train RECIPE=RECIPE ARGS=--resume": f"{SHORT} --runs=x' && {SHORT} --runs=x --resume'",
    "python tools/make_pages.py": f"{sys.executable} tools/make_pages.py",
}
# Run by another test: in which file, under which name.
ELSEWHERE = {
    "make help": ("test_repository.py", "test_make_help_explains_every_command"),
    "make lab": ("test_lab.py", "test_shows_the_chapters"),
    "ramlib list": ("test_cli.py", "test_list_names_every_recipe"),
    "ramlib train RECIPE": ("test_cli.py", "test_train_evaluate_and_ship_a_recipe"),
    "ramlib evaluate RECIPE": ("test_cli.py", "test_train_evaluate_and_ship_a_recipe"),
    "ramlib evaluate RECIPE --run RUN": ("test_cli.py", "test_train_evaluate_and_ship_a_recipe"),
    "ramlib evaluate RECIPE --run RUN --ship": ("test_cli.py", "test_train_evaluate_and_ship"),
    "ramlib evaluate RECIPE --ship": ("test_cli.py", "test_ships_two_readers_joined"),
    "ramlib evaluate RECIPE --run RUN --record": ("test_cli.py", "test_table_takes_the_rows_of"),
    "ramlib table I --runs runs": ("test_cli.py", "test_table_takes_the_rows_of_own_trainings"),
    "ramlib train RECIPE --set model.glimpses=6 --set rate=3e-4 --runs six": (
        "test_cli.py",
        "test_train_takes_any_field_and_the_row_of_its_record_says_so",
    ),
    "ramlib data house-numbers --out FOLDER": (
        "data/twins/test_house_numbers.py",
        "test_writes_a_twin_and_says_how_to_name_it",
    ),
    "ramlib COMMAND --help": ("test_cli.py", "test_every_argument_of_every_command_has_help"),
    "pip install .": ("test_wheel.py", "test_every_shipped_model_answers_outside"),
}
# Run by no test, and why.
NOWHERE = {
    "make setup": "takes minutes and the network; every other command begins with it",
    "make test": "runs this test",
    "make unit": "runs this test",
    "make book": "takes minutes; continuous integration runs it, as a part of `make test`",
    "make plain": "takes minutes; test_plain_notebooks.py holds what it writes to the built book",
    "make serve": "never ends; it is Python's own server",
    "make pages": "needs the built book; continuous integration runs it, in `make test`",
    "make versions": "takes the network and long; it is itself a test",
    "python tools/export_browser.py": "writes 2 MB of weights; test_touch.py holds them to PyTorch",
    "python tools/make_animation.py": "draws a picture that test_pages.py finds on the page",
    **{
        f"pip install '.[{extra}]'": "takes the network; test_environment.py holds what it brings"
        for extra in ("train", "plot", "fonts", "all")
    },
    "ramlib train RECIPE --devices 4": "needs four GPUs",
    "ramlib train --compile": "compiles for minutes; test_training.py holds what it compiles",
    "make gpu": "needs a GPU; test_gpu.py runs its parts without one",
    "git clone --depth 1 ADDRESS": "needs the address that the project does not have yet",
    "pip install 'ramlib[birds]'": "takes the network; test_environment.py holds what it brings",
    "python -m ramlib.experiments.localisation cub --classes 200": "needs the whole of CUB",
    "conda env create -f environment.yml": "needs conda; test_environment.py reads the file",
}


def printed(text):
    """The commands of a page, without comments: lines of plain and console fences, code spans."""
    fence = re.compile(r"^(`{3,})([^`\n]*)\n(.*?)^\1\s*?$", re.S | re.M)
    lines = [
        line
        for _, language, body in fence.findall(text)
        if language.strip() in ("", "console", "bash", "sh")
        for line in body.splitlines()
    ]
    lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", fence.sub("", text))
    lines = [line.split("#")[0].strip().removeprefix("$ ") for line in lines]
    lines = [line.removeprefix(".venv/bin/") for line in lines]
    return [line for line in lines if re.match(rf"({'|'.join(PROGRAMS)}) [^|]*$", line)]


def general(command):
    """The command with RECIPE for a recipe's name, and RUN for a run's folder."""
    command = re.sub(r"\bruns/\S+", "RUN", command)
    command = re.sub(
        r"^ramlib data( house-numbers)?$", "ramlib data house-numbers --out FOLDER", command
    )  # its name
    words = re.split(r"([ =])", command)
    return "".join("RECIPE" if word in RECIPES or word == "NAME" else word for word in words)


FOUND = sorted({(page, general(c)) for page in PAGES for c in printed(page.read_text("utf-8"))})


def test_finds_commands_where_they_stand():
    text = "```\nmake book  # slow\n```\n\nType `ramlib list`, not `ramlib`.\n"
    text += "\n```{code-cell}\nmake = 1\n```\n\n```console\n$ make train RECIPE=digit\nout\n```\n"
    assert printed(text) == ["make book", "make train RECIPE=digit", "ramlib list"]
    assert general("make train RECIPE=digit ARGS=--resume") == (
        "make train RECIPE=RECIPE ARGS=--resume"
    )
    assert general("ramlib evaluate digit --run runs/digit") == "ramlib evaluate RECIPE --run RUN"


@pytest.mark.parametrize(
    ("page", "command"), FOUND, ids=[f"{page.name}: {command}" for page, command in FOUND]
)
def test_every_printed_command_is_accounted_for(page, command):
    assert command in {*HERE, *ELSEWHERE, *NOWHERE}


def test_no_command_is_listed_that_no_page_prints():
    assert {*HERE, *ELSEWHERE, *NOWHERE} <= {command for _, command in FOUND}


@pytest.mark.parametrize("command", ELSEWHERE)
def test_the_test_that_runs_a_command_exists(command):
    file, name = ELSEWHERE[command]
    assert f"def {name}" in (ROOT / "tests" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [c for c in ELSEWHERE if re.match("ramlib [a-z]", c)])
def test_printed_options_are_those_of_the_command_line(command):
    cli.parser().parse_args(shlex.split(command)[1:])


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository with one short chapter, in which a command may write."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = tmp_path_factory.mktemp("copy") / "repository"
    leave = shutil.ignore_patterns(
        ".venv", ".git", "_build", "runs", "__pycache__", ".*_cache", "0*", "10_*"
    )
    shutil.copytree(ROOT, folder, ignore=leave)
    head = (ROOT / "book/01_why_look.md").read_text(encoding="utf-8").split("\n---\n")[0]
    text = head + "\n---\n\n# A chapter\n\n```{code-cell} ipython3\n6 * 7\n```\n"
    (folder / "book/99_name.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", HERE)
def test_a_printed_command_runs(command, copy):
    environment = {**os.environ, "PYTHONPATH": str(copy), "MPLBACKEND": "Agg"}
    # -o: the environment that runs this test is taken as it is.
    make = f"make VENV={sys.prefix} -o {sys.prefix}/.ready "
    line = re.sub(r"\bmake ", make, HERE[command])
    done = subprocess.run(
        line, shell=True, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "chapters" in command:
        assert '"42"' in (copy / "book/99_name.ipynb").read_text(encoding="utf-8")
    if "train" in command:
        assert list(copy.glob("*/digit-context/weights.safetensors"))
