"""How chapters are run: the same bytes twice, the whole notebook or nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
import run_chapters
from nbclient.exceptions import CellExecutionError
from run_chapters import is_stale, keep_time, main, run, stable_ids

CHAPTER = """---
jupytext:
  formats: ipynb,md:myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{{code-cell}}
import matplotlib.pyplot as plt

_ = plt.plot([1, 2, 4])
```

```{{code-cell}}
{cell}
```
"""


@pytest.fixture
def chapter(tmp_path):
    """A text that was run once."""
    text = tmp_path / "01_chapter.md"
    text.write_text(CHAPTER.format(cell="print(6 * 7)"))
    run(text)
    return text


def test_stores_outputs_and_runs_to_the_same_bytes(chapter):
    notebook = chapter.with_suffix(".ipynb")
    first = notebook.read_bytes()
    _, plot, answer = nbformat.read(notebook, 4).cells
    assert "image/png" in plot.outputs[0].data
    assert answer.outputs[0].text == "42\n"
    assert (plot.execution_count, answer.execution_count) == (1, 2)
    assert run(chapter).read_bytes() == first


def test_a_failing_cell_leaves_the_old_notebook(chapter):
    notebook = chapter.with_suffix(".ipynb")
    first = notebook.read_bytes()
    chapter.write_text(CHAPTER.format(cell="1 / 0"))
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(chapter)
    assert notebook.read_bytes() == first
    assert sorted(path.name for path in chapter.parent.iterdir()) == [
        "01_chapter.ipynb",
        "01_chapter.md",
    ]


def test_a_changed_text_is_stale(chapter):
    assert not is_stale(chapter)
    chapter.write_text(CHAPTER.format(cell="print(6 * 8)"))
    assert is_stale(chapter)
    chapter.with_suffix(".ipynb").unlink()
    assert is_stale(chapter)


def test_ids_are_unique_and_keep_to_their_cells():
    before = stable_ids(["a", "b", "a"])
    after = stable_ids(["new", "a", "b", "a"])
    assert len(set(before)) == 3
    assert after[1:] == before


def test_an_unknown_chapter_is_refused_by_name(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["book/99_nowhere.md"])
    assert stop.value.code == 2
    assert "99_nowhere.md is not a chapter's text" in capsys.readouterr().err


def test_keeps_the_last_time_of_each_chapter(tmp_path):
    for name, seconds in (("02_b", 7.0), ("01_a", 3.14159), ("02_b", 8.0)):
        keep_time(tmp_path / f"{name}.md", seconds)
    timings = json.loads((tmp_path / "timings.json").read_text(encoding="utf-8"))
    assert {name: entry["seconds"] for name, entry in timings.items()} == {"01_a": 3.1, "02_b": 8.0}
    assert all(entry["machine"] and entry["date"] for entry in timings.values())


@pytest.mark.parametrize("text", run_chapters.chapter_texts(), ids=lambda text: text.stem)
def test_a_text_is_as_jupyterlab_saves_it(text):
    cure = f"run: python tools/run_chapters.py book/{text.name}"
    assert run_chapters.as_saved(text) == text.read_text(encoding="utf-8"), cure
    notebook = jupytext.read(text)
    assert jupytext.writes(notebook, "md:myst") == text.read_text(encoding="utf-8")


def test_matplotlib_is_silent_in_a_kernel_whose_folder_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    tools = Path(run_chapters.__file__).parent
    code = """
import subprocess, sys
import run_chapters
command = [sys.executable, "-c", "import matplotlib.pyplot"]
environment = run_chapters.kernel_environment()
print(subprocess.run(command, env=environment, capture_output=True, check=True).stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path / "file/x"), "PYTHONPATH": str(tools)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "b''\n"
