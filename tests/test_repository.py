"""The repository holds together: a test for each module, one version, explained commands."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import ramlib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted(
    module.relative_to(ROOT / "ramlib")
    for module in (ROOT / "ramlib").rglob("*.py")
    if module.name not in ("__init__.py", "__main__.py")  # `python -m ramlib` is in test_cli.py
)
COMMANDS = re.findall(r"^\.PHONY: (\w+)$", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_its_test_file(module):
    """ramlib/glimpse.py is tested in tests/test_glimpse.py, data/mnist.py in test_mnist.py too."""
    name = f"test_{module.stem.lstrip('_')}.py"
    assert (ROOT / "tests" / name).exists() or (ROOT / "tests" / module.parent / name).exists()


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert ramlib.__version__ == PROJECT["version"] == citation["version"]


def test_make_help_explains_every_command():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  (\w+) +\w", shown.stdout, re.M) == COMMANDS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_pages_name_only_commands_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^ *)make (\w+)", text, re.M))
    assert named
    assert named <= set(COMMANDS)
