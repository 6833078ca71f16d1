"""The plain notebooks: the chapters' code, no trace of the book's tools, and no need of them."""

import ast
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from plain_notebooks import ARCHIVE, assemble, code_cells, without_glue
from run_chapters import BOOK, kernel_environment

ROOT = BOOK.parent
PLAIN = sorted((ROOT / "notebooks").glob("*.ipynb"))
BUILT = ROOT / "_build/html/notebooks"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))

# What MyST, Sphinx or this tool would leave behind.
REMAINS = {
    "a role": r"\{[a-z:]+\}`",
    "a directive": r"(?m)^ *(`{3,}|:{3,}) *\{",
    "a target": r"(?m)^\([\w-]+\)=$",
    "a comment": r"<!--|(?m:^% )",
    "a script": r"<script",
    "a mark": "\0",
    "glue": r"\bglue\b|myst_nb",
    "a link to a file": r"\]\((?!data:|https://)",
}

each = pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, 4)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


class WithoutGlue(ast.NodeTransformer):
    """Another way to take glue out: of the tree, not of the lines."""

    def visit_ImportFrom(self, node):
        return None if node.module == "myst_nb" else node

    def visit_Expr(self, node):
        return None if ast.unparse(node).startswith("glue(") else node

    def visit_For(self, node):
        self.generic_visit(node)
        return node if node.body else None


def test_there_is_one_for_each_chapter():
    chapters = {path.stem for path in BOOK.glob("*.ipynb")}
    assert {path.stem for path in PLAIN} == chapters, "run: make plain"


@each
def test_code_is_the_chapters(path):
    chapter = ast.Module([], [])
    for source in code(read(BOOK / path.name)):
        chapter.body += WithoutGlue().visit(ast.parse(source)).body
    setup, *cells = code(read(path))
    plain = ast.Module([statement for s in cells for statement in ast.parse(s).body], [])
    assert ast.unparse(plain) == ast.unparse(chapter), "run: make plain"
    assert 'find_spec("ramlib") is None' in setup
    assert "device = ramlib.best_device()" in setup


@each
@pytest.mark.parametrize("kind", REMAINS)
def test_nothing_is_left_of_the_books_tools(path, kind):
    notebook = read(path)
    cells = text(notebook) + (code(notebook) if kind == "glue" else [])
    cells = [re.sub(r"(?s)\$\$.*?\$\$|`[^`]*`|\$[^$]*\$", "`x`", cell) for cell in cells]
    assert [cell for cell in cells if re.search(REMAINS[kind], cell)] == []


@each
def test_text_says_what_the_chapter_says(path):
    """Its headings, its equations, its exercises, and as many solutions in folds."""
    chapter = "\n\n".join(text(read(BOOK / path.name)))
    for name in re.findall(r"(?m)^```\{include\} (\S+)$", chapter):
        included = (BOOK / name).read_text(encoding="utf-8")
        chapter = chapter.replace(f"```{{include}} {name}\n```", included)
    plain = "\n\n".join(text(read(path)))
    assert re.findall(r"(?m)^#+ .*$", plain) == re.findall(r"(?m)^#+ .*$", chapter), "make plain"
    assert plain.count("**Exercise ") == len(re.findall(r"\{exercise(?:-start)?\} ", chapter))
    folds = [fold.split(" (")[0] for fold in re.findall(r"<summary>(Solution.*?)</summary>", plain)]
    exercises = re.findall(r"\*\*(Exercise [\d.]+):", plain)
    assert list(dict.fromkeys(folds)) == [f"Solution to {name}" for name in exercises]
    assert plain.count("<details") == plain.count("</details>")
    assert plain.count("$$") % 2 == 0


@each
def test_figures_from_cells_keep_their_captions(path):
    tagged = [cell.metadata.get("mystnb", {}) for cell in read(BOOK / path.name).cells]
    captions = [options for options in tagged if "figure" in options]
    plain = "\n\n".join(text(read(path)))
    assert len(re.findall(r"(?m)^\*\*Fig\. [\d.]+\.\*\* ", plain)) >= len(captions)


@each
def test_stored_ones_carry_no_outputs(path):
    assert all(not cell.get("outputs") for cell in read(path).cells)
    nbformat.validate(json.loads(path.read_text(encoding="utf-8")))


BLOCK = """
import sys

class Blocked:
    names = {"myst_nb", "myst_parser", "sphinx", "jupyter_book", "jupytext", "docutils", "nbclient"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is of the book's tool chain", name=name)

sys.meta_path.insert(0, Blocked())
"""
PROBE = """
import os, sys
print(ramlib.__file__, os.getcwd())
print(sorted(name for name in ("myst_nb", "sphinx", "jupytext", "docutils") if name in sys.modules))
"""


def test_one_runs_without_the_books_tools_in_another_folder(tmp_path):
    """Nothing of the tool chain can be imported, and ramlib comes as if it were installed."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    site.mkdir()
    elsewhere.mkdir()
    (site / "ramlib").symlink_to(ROOT / "ramlib")
    (site / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")
    notebook = read(PLAIN[0])
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    folder = {"metadata": {"path": str(elsewhere)}}
    client = NotebookClient(notebook, timeout=300, resources=folder, kernel_name="python3")
    client.execute(env={**kernel_environment(), "PYTHONPATH": str(site)})
    assert notebook.cells[-1].outputs[0].text == (
        f"{site / 'ramlib/__init__.py'} {elsewhere}\n[]\n"
    )
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert list(elsewhere.iterdir()) == []


# ---- the parts, on small examples ----


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("import torch\nfrom myst_nb import glue\nx = 1", "import torch\nx = 1"),
        ('glue("a", x)', ""),
        ("for k in range(3):\n    glue(str(k), x,\n         display=False)\ny = 2", "y = 2"),
        ("for k in x:\n    for j in x:\n        glue(k, j)", ""),
        ("for k in x:\n    y = k\n    glue(k, y)", "for k in x:\n    y = k"),
        ("%matplotlib inline", "%matplotlib inline"),
    ],
)
def test_takes_glue_out(source, plain):
    assert without_glue(source) == plain


def test_refuses_a_glue_that_it_would_leave():
    with pytest.raises(ValueError, match="other than as a statement"):
        without_glue("from myst_nb import glue\nshow = glue")


def test_a_solution_is_folded_around_its_cells():
    chapter = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("text"),
            nbformat.v4.new_code_cell("hidden = 1", metadata={"tags": ["remove-cell"]}),
            nbformat.v4.new_code_cell("glue('a', hidden)"),
            nbformat.v4.new_code_cell("answer = 42"),
            nbformat.v4.new_code_cell("last = 1"),
        ]
    )
    marked = "Title\0solution To 1\0Before\0cell 3\0After\0end\0Outside"
    title, setup, before, hidden, answer, after, outside, last = assemble(
        marked, code_cells(chapter), "setup"
    ).cells
    assert (title.source, setup.source, outside.source) == ("Title", "setup", "Outside")
    assert before.source == "<details>\n<summary>To 1</summary>\n\nBefore\n\n</details>"
    assert after.source == "<details>\n<summary>To 1</summary>\n\nAfter\n\n</details>"
    assert (hidden.source, answer.source, last.source) == ("hidden = 1", "answer = 42", "last = 1")
    assert answer.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
    assert last.metadata == {}


def test_a_solution_of_code_alone_has_a_fold_that_says_so():
    cells = {0: nbformat.v4.new_code_cell("a"), 1: nbformat.v4.new_code_cell("b")}
    marked = "Title\0solution To 1\0\0cell 0\0\0cell 1\0\0end\0"
    _, _, fold, first, second = assemble(marked, cells, "setup").cells
    assert "To 1</summary>\n\nUnfold the cell below." in fold.source
    assert (first.source, second.source) == ("a", "b")


# ---- a small book with an address ----

CONF = """
extensions = ["myst_nb", "sphinx_exercise", "plain_notebooks", "launch_buttons"]
myst_enable_extensions = ["amsmath", "dollarmath"]
nb_execution_mode = "off"
numfig = math_numfig = True
html_theme = "sphinx_book_theme"
html_baseurl = "https://reader.github.io/looking/"
html_theme_options = {"repository_url": "https://github.com/reader/looking"}
"""
PAGE = r"""
# A title with $x_1$

See {eq}`eq-a`, {doc}`02_b` and {ref}`sec-b`; a * star.

```{math}
:label: eq-a
a &= b \\
c &= d
```

```{note}
Mind **this**: $y$.
```

```{figure} dot.svg
:name: fig-a
:alt: A dot

A caption for {numref}`fig-a`.
```

| a | b |
| --- | --- |
| $x$ | 1.80 |

<details class="answer"><summary>Open</summary>

**Yes.**

</details>

```{exercise} Count
:label: ex-a
How many?
```

```{solution} ex-a
:class: dropdown
Two.
```
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A book of two chapters, built with an address: its plain notebook, and its page."""
    source = tmp_path_factory.mktemp("source")
    (source / "book").mkdir()
    (source / "conf.py").write_text(CONF, encoding="utf-8")
    toc = "# Index\n\n```{toctree}\n:numbered:\nbook/01_a\nbook/02_b\n```\n"
    (source / "index.md").write_text(toc, encoding="utf-8")
    dot = '<svg xmlns="http://www.w3.org/2000/svg"><circle r="1"/></svg>'
    (source / "book/dot.svg").write_text(dot, encoding="utf-8")
    for name, page in (("01_a", PAGE), ("02_b", "(sec-b)=\n# Another")):
        cells = [nbformat.v4.new_markdown_cell(page), nbformat.v4.new_code_cell("x = 1")]
        language = {"name": "python", "pygments_lexer": "ipython3"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": language})
        nbformat.write(notebook, source / f"book/{name}.ipynb")
    out = source / "out"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", source, out]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (out / "book/01_a.html").read_text(encoding="utf-8")
    return read(out / "notebooks/01_a.ipynb"), page


@pytest.mark.parametrize(
    "expected",
    [
        "# A title with $x_1$",
        "$$\n\\begin{aligned}\na &= b \\\\\nc &= d\n\\end{aligned}\n\\tag{1.1}\n$$",
        "See [(1.1)](https://reader.github.io/looking/book/01_a.html#equation-eq-a)",
        "[Another](https://reader.github.io/looking/book/02_b.html)",
        "[Another](https://reader.github.io/looking/book/02_b.html#sec-b)",
        "a \\* star",
        "> **Note.**\n> \n> Mind **this**: $y$.",
        "![A dot](data:image/svg+xml;base64,",
        "**Fig. 1.1.** A caption for [Fig. 1.1](https://reader.github.io/looking/book/01_a.html#fig-a).",
        "| $x$ | 1.80 |",
        '<details class="answer"><summary>Open</summary>\n\n**Yes.**\n\n</details>',
        "**Exercise 1.1: Count**\n\nHow many?",
        "<details>\n<summary>Solution to Exercise 1.1 (Count)</summary>\n\nTwo.\n\n</details>",
    ],
)
def test_a_page_becomes_markdown(small, expected):
    assert expected in re.sub(" +", " ", "\n\n".join(text(small[0])))


def test_with_an_address_the_first_cell_installs_from_it(small):
    setup = code(small[0])[0]
    address = (
        '%pip install --quiet "ramlib[train,plot] @ git+https://github.com/reader/looking@main"'
    )
    assert f"is None:\n    {address}\n" in setup


def test_with_an_address_the_page_has_launch_buttons(small):
    for service in ("Colab", "Kaggle", "Binder"):
        assert service in small[1]
    assert "colab.research.google.com/github/reader/looking/blob/main/notebooks/01_a" in small[1]


# ---- in the built book ----


@pytest.mark.pages
class TestBuilt:
    @each
    def test_repository_has_the_same_without_outputs(self, path):
        built = read(BUILT / path.name)
        for cell in built.cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        assert built == read(path), "run: make plain"

    @each
    def test_downloads_are_there(self, path):
        page = (BUILT.parent / f"book/{path.stem}.html").read_text(encoding="utf-8")
        for target in (path.name, ARCHIVE):
            assert f'href="../notebooks/{target}"' in page
            assert (BUILT / target).is_file()

    @each
    def test_launch_buttons_appear_with_the_address_alone(self, path):
        page = (BUILT.parent / f"book/{path.stem}.html").read_text(encoding="utf-8")
        for service in ("colab.research.google.com", "kaggle.com/kernels", "mybinder.org/v2"):
            assert (service in page) == bool(CONFIG["repository"]["url"])
