"""The README tells the truth: its example runs, its table is current, its links lead somewhere."""

import re
from pathlib import Path

import make_pages
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_example_runs_and_gives_the_shapes_it_states():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    names = {}
    exec(code, names)
    assert names["labels"].shape == (8,)
    assert names["rollout"].logits.shape == (8, 4, 10)
    assert names["rollout"].grids.c_x.shape == (8, 4)
    assert names["rollout"].glimpses.shape == (8, 4, 1, 12, 12)


def test_results_are_few():
    """A person reads them; the book's appendix holds the tables."""
    between = TEXT.split(make_pages.BEGIN)[1].split(make_pages.END)[0]
    assert 6 <= between.count("\n|") - 2 <= 10
    assert "not reached" in between


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "LICENSE-TEXT"])
def test_named_files_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    paths = re.findall(r"`((?:ramlib|book|tests|tools)/[\w./-]*)`", text)
    missing = [path for path in {*links, *paths} if "NN_" not in path and "_MODULE" not in path]
    assert [path for path in missing if not (ROOT / path).exists()] == []
