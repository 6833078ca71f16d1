"""Execute chapters: run a text, book/NAME.md, and write book/NAME.ipynb with its outputs.

python tools/run_chapters.py                   chapters whose text changed since their last run
python tools/run_chapters.py --all             every chapter
python tools/run_chapters.py book/NAME.md ...  these chapters

A second run writes the same bytes: cell ids come from the cells, and the notebook records no time.
How long a chapter ran is kept apart, in book/timings.json, for the page of timings.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import jupytext

# Chapters inherit the folder that matplotlib finds for itself here where the usual one cannot be
# written, and its list of fonts; else it writes to their stderr.
import matplotlib.font_manager  # noqa: F401
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

BOOK = Path(__file__).resolve().parent.parent / "book"
CELL_TIMEOUT = 600  # seconds


def chapter_texts(book: Path = BOOK) -> list[Path]:
    """The texts that are paired with a notebook: those whose front matter names Jupytext."""
    pages = sorted(book.glob("*.md"))
    return [page for page in pages if "jupytext:" in page.read_text(encoding="utf-8")[:400]]


def inputs(notebook) -> list[tuple[str, str, dict]]:
    """What a chapter says before it is run: each cell's type, source and metadata."""
    volatile = {"execution", "collapsed", "scrolled"}
    return [
        (
            cell.cell_type,
            cell.source.rstrip(),
            {key: value for key, value in cell.metadata.items() if key not in volatile},
        )
        for cell in notebook.cells
    ]


def is_stale(text: Path) -> bool:
    """Whether the notebook is missing, or says something else than the text."""
    out = text.with_suffix(".ipynb")
    return not out.exists() or inputs(nbformat.read(out, 4)) != inputs(jupytext.read(text))


def as_saved(text: Path) -> str:
    """The text as JupyterLab saves it, so that opening a chapter there changes no line of it.

    Line breaks within captions are lost, which Jupytext would write as a quoted wall.
    """
    notebook = jupytext.read(text)
    for cell in notebook.cells:
        shown = cell.metadata.get("mystnb", {})
        for words in filter(None, (shown.get("figure"), shown.get("image"))):
            words.update({k: " ".join(v.split()) for k, v in words.items() if isinstance(v, str)})
    return jupytext.writes(notebook, "md:myst")


def stable_ids(sources: list[str]) -> list[str]:
    """One id per cell, from its source; a repeated source gets a number."""
    seen = Counter()
    ids = []
    for source in sources:
        digest = hashlib.sha256(source.encode()).hexdigest()[:8]
        seen[digest] += 1
        ids.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return ids


def kernel_environment() -> dict[str, str]:
    """One thread, for the same numbers on every run; no MPLBACKEND, for Agg leaves figures out."""
    inherited = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    return {"OMP_NUM_THREADS": "1", **inherited}


def run(text: Path) -> Path:
    """Execute a text from top to bottom and write its notebook, whole or not at all.

    The text itself is written as `as_saved`.
    """
    text.write_text(as_saved(text), encoding="utf-8")
    notebook = jupytext.read(text)
    for cell, cell_id in zip(
        notebook.cells, stable_ids([cell.source for cell in notebook.cells]), strict=True
    ):
        cell.id = cell_id
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # else a busy machine may cut one line of output in two
        resources={"metadata": {"path": str(text.parent)}},
    ).execute(env=kernel_environment())
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat_minor = 5  # cells have ids
    out = text.with_suffix(".ipynb")
    partial = out.with_suffix(".ipynb.partial")
    try:
        partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def keep_time(text: Path, seconds: float) -> None:
    """Note in timings.json, beside the text, how long its chapter ran, and where and when."""
    from ramlib.experiments import records  # imports torch, which only those who run chapters need

    path = text.with_name("timings.json")
    timings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    timings[text.stem] = {
        "seconds": round(seconds, 1),
        "machine": records.machine(),
        "date": records.today(),
    }
    path.write_text(json.dumps(timings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="every chapter, changed or not")
    parser.add_argument("chapters", nargs="*", type=Path, help="texts, such as book/02_glimpse.md")
    options = parser.parse_args(arguments)
    texts = chapter_texts()
    if options.chapters:
        chosen = [path.resolve().with_suffix(".md") for path in options.chapters]
        for path in chosen:
            if path not in texts:
                names = ", ".join(text.name for text in texts)
                parser.error(f"{path.name} is not a chapter's text; there are: {names}")
    else:
        chosen = texts if options.all else [text for text in texts if is_stale(text)]
    if not chosen:
        print("every notebook agrees with its text; --all runs them all the same")
    for text in chosen:
        print(f"running {text.relative_to(BOOK.parent)}", flush=True)
        begun = time.perf_counter()
        try:
            run(text)
        except CellExecutionError as error:
            print(f"{text.name}: a cell failed, nothing was written\n{error}", file=sys.stderr)
            return 1
        keep_time(text, time.perf_counter() - begun)
    return 0


if __name__ == "__main__":
    sys.exit(main())
