"""Plain notebooks: every chapter for Jupyter, VS Code, Colab and Kaggle, without the book's tools.

As a Sphinx extension, it writes them into the built book, with outputs, and as one zip. The text
comes from the resolved pages, so numbers and references stand there as words. The code comes from
the chapters, less what serves the book alone.

python tools/plain_notebooks.py             copy the built ones, without outputs, to notebooks/
"""

import ast
import base64
import json
import mimetypes
import re
import sys
import zipfile
from pathlib import Path

import nbformat
from docutils import nodes
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_chapters import stable_ids
from sphinx_markdown_builder.contexts import (
    IndentContext,
    SubContextParams,
    TableContext,
    WrappedContext,
)
from sphinx_markdown_builder.translator import MarkdownTranslator, pushing_context, pushing_status
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "notebooks"  # in the repository, and in the built book
ARCHIVE = "learning-where-to-look.zip"
CHAPTER = re.compile(r"book/((?:\d\d|appendix)_\w+)$")

SETUP = """\
# Install ramlib where it is missing, as in Colab and Kaggle, and pick the device.
from importlib.util import find_spec

if find_spec("ramlib") is None:
    {install}

import ramlib

device = ramlib.best_device()
print(f"ramlib {{ramlib.__version__}} on {{device}}")"""
NO_ADDRESS = 'raise ModuleNotFoundError("install the book\'s package first: ramlib[train,plot]")'

MARK = "\0"  # begins and ends what is not text: a cell, a cut, the ends of a solution
HIDING = {"hide-input", "hide-cell", "remove-input", "remove-cell"}


# ---- code: what the chapter's cells say, less what serves the book ----


def without_glue(source: str) -> str:
    """The source without `from myst_nb import glue` and calls of `glue`.

    Raises:
        ValueError: if the name is used in another way.
    """
    if "glue" not in source:
        return source
    drop = set()
    for node in ast.walk(ast.parse(source)):
        if _serves_the_book(node):
            drop |= set(range(node.lineno - 1, node.end_lineno))
    lines = enumerate(source.splitlines())
    kept = "\n".join(line for number, line in lines if number not in drop).strip()
    if any(isinstance(node, ast.Name) and node.id == "glue" for node in ast.walk(ast.parse(kept))):
        raise ValueError(f"glue is used other than as a statement:\n{source}")
    return re.sub(r"\n{4,}", "\n\n\n", kept)


def _serves_the_book(node: ast.AST) -> bool:
    """Whether a statement imports `glue`, calls it, or is a loop that does nothing else."""
    if isinstance(node, ast.For | ast.With | ast.If):
        return not getattr(node, "orelse", []) and all(map(_serves_the_book, node.body))
    if isinstance(node, ast.ImportFrom):
        return node.module == "myst_nb"
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") == "glue"


def code_cells(notebook) -> dict[int, nbformat.NotebookNode]:
    """The plain code cells of a chapter's notebook, by their place in it."""
    found = {}
    for index, cell in enumerate(notebook.cells):
        source = without_glue(cell.source) if cell.cell_type == "code" else ""
        if source:
            tags = cell.metadata.get("tags", [])
            count = cell.execution_count
            plain = new_code_cell(source, outputs=cell.outputs, execution_count=count)
            if "raises-exception" in tags:
                plain.metadata.tags = ["raises-exception"]
            if HIDING & set(tags):
                plain.metadata.jupyter = {"source_hidden": True}
            found[index] = plain
    return found


# ---- text: the page as Markdown, with marks where the cells stand ----


class Table(TableContext):
    """A table whose numbers are left as they are: 1.80 is not 1.8."""

    def make(self):
        head, *rows = map(self.make_row, [*self.headers, *self.body])
        return tabulate(rows, head, tablefmt="github", disable_numparse=True)


class PlainTranslator(MarkdownTranslator):
    """A resolved page as Markdown that needs no MyST."""

    def __init__(self, document, builder, docname):
        super().__init__(document, builder)
        self.numbers = builder.env.toc_fignumbers.get(docname, {})
        self.docname = docname

    def mark(self, *words):
        self.add(f"{MARK}{' '.join(words)}{MARK}", prefix_eol=2, suffix_eol=2)

    def number(self, kind, node):
        numbers = self.numbers.get(kind, {})
        found = next((numbers[name] for name in node["ids"] if name in numbers), ())
        return ".".join(map(str, found))

    @pushing_status
    def visit_section(self, node):
        if not isinstance(node.parent, nodes.Admonition):  # an exercise's content is a section
            self.mark("cut")
        super().visit_section(node)

    def visit_container(self, node):
        if node.get("nb_element") == "cell_code":
            self.mark("cell", str(node["cell_index"]))
            for figure in node.findall(nodes.figure):
                for caption in figure.findall(nodes.caption):
                    caption.walkabout(self)
            raise nodes.SkipNode

    @pushing_context
    def visit_caption(self, node):
        number = self.number("figure", node.parent)
        self.add(f"**Fig. {number}.** " if number else "", prefix_eol=2)
        self._push_context(WrappedContext("", "", params=SubContextParams(0, 2)))

    @pushing_context
    def visit_table(self, node):
        self._push_context(Table(SubContextParams(2, 1)))

    def visit_image(self, node):
        path = Path(self.builder.srcdir) / node["uri"]
        data = base64.b64encode(path.read_bytes()).decode()
        uri = f"data:{mimetypes.guess_type(path)[0]};base64,{data}"
        self.add(f"![{node.get('alt', '')}]({uri})", prefix_eol=2, suffix_eol=2)

    def visit_math_block(self, node):
        text = node.astext().strip()
        if r"\\" in text and r"\begin{" not in text:
            text = f"\\begin{{aligned}}\n{text}\n\\end{{aligned}}"
        number = self.number("displaymath", node)
        tag = f"\n\\tag{{{number}}}" if number else ""
        self.add(f"$$\n{text}{tag}\n$$", prefix_eol=2, suffix_eol=2)
        raise nodes.SkipNode

    def visit_target(self, node):
        raise nodes.SkipNode

    visit_comment = visit_target

    def visit_raw(self, node):
        if "<script" not in node.astext():  # a fold, say; scripts serve the page
            self.add(node.astext().strip(), prefix_eol=2, suffix_eol=2)
        raise nodes.SkipNode

    @pushing_context
    def visit_reference(self, node):
        base, target = self.config.html_baseurl, node.get("refuri", "")
        if node.get("internal", "refuri" not in node):
            here = self.builder.get_target_uri(self.docname)
            target = target or f"{here.rsplit('/', 1)[-1]}#{node.get('refid', '')}"
            folder = f"{base.rstrip('/')}/{here.rpartition('/')[0]}"
            target = re.sub(r"[^/]+/\.\./", "", f"{folder}/{target}") if base else ""
        self._push_context(WrappedContext(*(("[", f"]({target})") if target else ("", ""))))

    @pushing_context
    def visit_admonition(self, node):
        self._push_context(IndentContext("> ", empty=True, params=SubContextParams(2, 2)))
        if not isinstance(node[0], nodes.title):
            self.add(f"**{type(node).__name__.capitalize()}.**", suffix_eol=2)

    visit_note = visit_tip = visit_hint = visit_important = visit_warning = visit_admonition
    visit_seealso = visit_caution = visit_attention = visit_danger = visit_error = visit_admonition

    def visit_title(self, node):
        if isinstance(node.parent, nodes.Admonition):
            self.add(f"**{node.astext()}**", prefix_eol=2, suffix_eol=2)
            raise nodes.SkipNode
        super().visit_title(node)

    depart_title = MarkdownTranslator._pop_context

    def visit_exercise_enumerable_node(self, node):
        title = node[0].astext().strip(" ()")
        number = self.number("exercise", node)
        self.mark("cut")
        self.add(f"**Exercise {number}: {title}**", prefix_eol=2, suffix_eol=2)
        node.pop(0)

    def visit_solution_node(self, node):
        self.mark("solution", " ".join(node[0].astext().split()))
        node.pop(0)

    def depart_solution_node(self, node):
        self.mark("end")


def assemble(text: str, code: dict[int, nbformat.NotebookNode], setup: str):
    """A notebook of text cells and code cells, from Markdown with marks."""
    cells, waiting, summary, untold = [], sorted(code), None, False

    def add_text(part):
        nonlocal untold
        untold = False
        if summary is not None:
            part = f"<details>\n<summary>{summary}</summary>\n\n{part}\n\n</details>"
        cells.append(new_markdown_cell(part))

    def add_code(upto):
        while waiting and waiting[0] <= upto:  # also those that the page does not show
            cell = code[waiting.pop(0)]
            if summary is not None:
                cell.metadata.jupyter = {"source_hidden": True, "outputs_hidden": True}
            cells.append(cell)

    for place, part in enumerate(re.split(f"{MARK}(.*?){MARK}", text)):
        part = part.strip()
        if place % 2 == 0 and part:
            add_text(part)
        elif part.startswith("solution "):
            summary, untold = part.removeprefix("solution "), True
        elif part == "end":
            summary = None
        elif part.startswith("cell "):
            if untold:
                add_text("Unfold the cell below.")
            add_code(int(part.removeprefix("cell ")))
    add_code(float("inf"))
    cells.insert(1, new_code_cell(setup))
    for cell, name in zip(cells, stable_ids([cell.source for cell in cells]), strict=True):
        cell.id = name
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )


# ---- the extension ----


def chapters(env) -> dict[str, str]:
    """Chapter -> the page it is."""
    return {match[1]: page for page in sorted(env.found_docs) if (match := CHAPTER.match(page))}


def setup_cell(config) -> str:
    """The first code cell: it knows where the package is, if the book has an address."""
    address = config.html_theme_options.get("repository_url")
    branch = config.html_theme_options.get("repository_branch") or "main"
    package = f'"ramlib[train,plot] @ git+{address}@{branch}"'
    return SETUP.format(install=f"%pip install --quiet {package}" if address else NO_ADDRESS)


def write_notebooks(app, exception) -> None:
    """Write all plain notebooks into the built book, and their zip."""
    if exception or app.builder.name != "html":
        return
    out = Path(app.outdir) / FOLDER
    out.mkdir(exist_ok=True)
    with zipfile.ZipFile(out / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, page in chapters(app.env).items():
            tree = app.env.get_and_resolve_doctree(page, app.builder)
            translator = PlainTranslator(tree, app.builder, page)
            tree.walkabout(translator)
            stored = nbformat.read(app.env.doc2path(page), 4)
            notebook = assemble(translator.astext(), code_cells(stored), setup_cell(app.config))
            path = out / f"{name}.ipynb"
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
            archive.write(path, path.name)


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.setup_extension("sphinx_markdown_builder")
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    """Copy the notebooks of the built book into the repository, without outputs."""
    built = sorted((ROOT / "_build/html" / FOLDER).glob("*.ipynb"))
    if not built:
        sys.exit("build the book first: make book")
    (ROOT / FOLDER).mkdir(exist_ok=True)
    for old in (ROOT / FOLDER).glob("*.ipynb"):
        old.unlink()
    for path in built:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        (ROOT / FOLDER / path.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
