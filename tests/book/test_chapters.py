"""The book before it is built: texts and notebooks agree, chapters are whole, no typed numbers.

nbval passes some things unchecked: a cell that was never run, a missing or changed picture. And no
tool reads prose. These checks close the gaps.
"""

import ast
import re

import nbformat
import pytest
import yaml
from close_text import BANDED, in_band
from IPython.core.inputtransformer2 import TransformerManager
from prose import directives, sentences, typed_numbers
from run_chapters import BOOK, chapter_texts, is_stale

ROOT = BOOK.parent
PAGES = sorted(BOOK.glob("*.md"))  # chapters, and pages without code
TEXTS = chapter_texts()  # pages with code: each is paired with a notebook
CHAPTERS = [text for text in TEXTS if re.match(r"\d\d_", text.name)]

LONGEST_CELL = 40  # lines
WIDEST_CELL = 79  # columns; beyond it a cell scrolls
MOST_WORDS = 2200  # with captions and exercises
MACHINE_PATH = re.compile(
    r"(?<![\w.:/-])/(?:home|root|tmp|usr|opt|work|Users|private)/|[A-Z]:\\Users"
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
each_text = pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
each_part_one = pytest.mark.parametrize(
    "chapter", [c for c in CHAPTERS if c.name < "07"], ids=lambda path: path.name
)
each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.name)


def read(path):
    return path.read_text(encoding="utf-8")


def code_cells(text):
    """The cells of the notebook beside a text that hold code."""
    if not text.with_suffix(".ipynb").exists():
        pytest.skip("never run; test_every_text_has_its_notebook_... fails for it")
    cells = nbformat.read(text.with_suffix(".ipynb"), 4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def pictures(cell):
    """The pictures that a cell shows to the reader; a glued one is shown elsewhere."""
    if {"remove-cell", "remove-output"} & set(cell.metadata.get("tags", [])):
        return []
    data = [output.get("data", {}) for output in cell.outputs]
    return [kind for kinds in data for kind in kinds if kind.startswith("image/")]


# ---- the pair of text and notebook ----


def test_there_are_chapters():
    assert CHAPTERS


def test_every_text_has_its_notebook_and_every_notebook_its_text():
    assert {text.with_suffix(".ipynb") for text in TEXTS} == set(BOOK.glob("*.ipynb"))


@each_text
def test_notebook_says_what_its_text_says(text):
    command = f"make chapters CHAPTER=book/{text.name}"
    assert not is_stale(text), f"the text changed; run: {command}"


@each_text
def test_notebook_was_run_from_top_to_bottom(text):
    cells = code_cells(text)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each_text
def test_only_cells_that_announce_an_error_end_in_one(text):
    for cell in code_cells(text):
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in cell.metadata.get("tags", [])), cell.source


@each_text
def test_cells_write_no_warnings(text):
    for cell in code_cells(text):
        stderr = [o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]
        assert not stderr, cell.source


# ---- figures ----


@each_text
def test_every_drawn_figure_is_stored(text):
    for cell in code_cells(text):
        for output in cell.outputs:
            data = output.get("data", {})
            if data.get("text/plain", "").startswith("<Figure"):
                assert any(kind.startswith("image/") for kind in data), cell.source


@each_text
def test_every_picture_from_a_cell_has_alt_text_and_a_caption(text):
    for cell in code_cells(text):
        if pictures(cell):
            options = cell.metadata.get("mystnb", {})
            assert_says_what_is_seen(options.get("image", {}).get("alt", ""), cell.source)
            assert options.get("figure", {}).get("caption", "").strip(), cell.source


@each_page
def test_every_figure_directive_has_alt_text_and_a_caption(page):
    for directive in directives(read(page)):
        if directive.name in ("figure", "glue:figure", "image"):
            assert_says_what_is_seen(directive.options.get("alt", ""), directive.title)
        if directive.name in ("figure", "glue:figure"):
            assert directive.body.strip(), f"no caption: {directive.title}"


def assert_says_what_is_seen(alt, where):
    assert len(alt.strip()) >= 20, f"alt text too short to say what is seen: {alt!r} of {where}"
    assert not re.match(r"(an? )?(figure|image|picture)\b", alt.strip(), re.I), (
        f"alt text should say what is seen, not that it is a figure: {alt!r}"
    )


# ---- the parts of a chapter ----


@each_chapter
def test_chapter_shows_a_picture(chapter):
    drawn = any(pictures(cell) for cell in code_cells(chapter))
    placed = any(d.name in ("figure", "glue:figure") for d in directives(read(chapter)))
    assert drawn or placed


@each_chapter
@pytest.mark.parametrize("part", ["what we saw", "exercise", "read on"])
def test_chapter_has_its_closing_parts(chapter, part):
    assert part in read(chapter).lower()


@each_chapter
def test_every_exercise_has_a_hidden_solution(chapter):
    parts = list(directives(read(chapter)))
    exercises = {d.options.get("label") for d in parts if d.name in ("exercise", "exercise-start")}
    solutions = [d for d in parts if d.name in ("solution", "solution-start")]
    assert exercises, "a chapter ends with exercises"
    assert exercises == {solution.title for solution in solutions}
    for solution in solutions:
        assert "dropdown" in solution.options.get("class", ""), f"{solution.title} is not hidden"


# ---- cells ----


@each_text
def test_cells_are_short_and_narrow(text):
    for cell in code_cells(text):
        lines = cell.source.splitlines()
        assert len(lines) <= LONGEST_CELL, cell.source
        assert max(map(len, lines)) <= WIDEST_CELL, max(lines, key=len)


@each_text
def test_no_cell_ends_in_a_semicolon(text):
    """The value it hides in Jupyter appears when nbval runs the cell: write `_ = ...`."""
    assert [cell.source for cell in code_cells(text) if cell.source.rstrip().endswith(";")] == []


def test_most_cells_fit_a_glance():
    run = [text for text in TEXTS if text.with_suffix(".ipynb").exists()]
    lengths = sorted(len(cell.source.splitlines()) for text in run for cell in code_cells(text))
    assert lengths[9 * len(lengths) // 10] <= 25


@each_page
def test_all_code_on_the_page_is_run(page):
    fences = re.findall(r"^\s*(?:`{3,}|~{3,}) ?(?:python|py|ipython3?)\s*$", read(page), re.M)
    assert not fences, "Python in a plain fence is never run; use {code-cell}"


@each_text
def test_glued_values_are_computed(text):
    """glue("error", 3.29) would type a number by hand, one step removed."""
    for cell in code_cells(text):
        tree = ast.parse(TransformerManager().transform_cell(cell.source))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "glue":
                assert any(isinstance(node, ast.Name) for node in ast.walk(call.args[1])), (
                    ast.unparse(call)
                )


@each_text
def test_cells_run_on_any_device(text):
    """Models go to the device that the first cell chose; nothing takes a CPU for granted."""
    for cell in code_cells(text):
        taken = r'accelerator="cpu"|\.numpy\(\)|\.cuda\(|(?<!mnist\.)load\("[\w-]+"\)'
        found = re.search(taken, cell.source)
        assert not found, cell.source


# ---- what cells print ----


def printed(cell):
    """What a cell shows as text; a glued value is shown elsewhere."""
    for output in cell.outputs:
        kinds = output.get("data", {})
        if not any(kind.startswith("application/papermill") for kind in kinds):
            yield output.get("text", "") or kinds.get("text/plain", "")


@each_part_one
def test_measurements_are_numbers_not_booleans(chapter):
    """A reader wants `10.6 % here; 8 to 14 % elsewhere`; what must hold is a test's business."""
    for cell in code_cells(chapter):
        for text in printed(cell):
            assert not re.search(r"\b(True|False)\b", text), cell.source


@each_text
def test_numbers_with_a_band_lie_in_it(text):
    for cell in code_cells(text):
        for shown in printed(cell):
            for match in BANDED.finditer(shown):
                assert in_band(match), match[0]


@each_part_one
def test_no_cell_shows_source_before_the_idea(chapter):
    """The package's source stands behind a fold, after the few lines that say the same."""
    for cell in code_cells(chapter):
        if "show_source" in cell.source:
            assert "hide-cell" in cell.metadata.get("tags", []), cell.source


# ---- what no page may say ----


@each_part_one
def test_chapter_is_read_in_one_sitting(chapter):
    words = sum(len(sentence.split()) for _, sentence in sentences(read(chapter)))
    for directive in directives(read(chapter)):  # who reads an alternative text sees no picture
        image = directive.options.get("mystnb", {}).get("image", directive.options)
        words -= len(image.get("alt", "").split())
    assert words <= MOST_WORDS


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda path: path.name)
def test_no_measured_number_is_typed_by_hand(page):
    text = read(page)
    # The README's table of results is written from the records; a test of its own holds it.
    text = re.sub(r"<!-- results:begin -->.*?<!-- results:end -->", "", text, flags=re.S)
    typed = [
        f"line {line}: {', '.join(numbers)} in: {sentence}"
        for line, sentence in sentences(text)
        if (numbers := typed_numbers(sentence))
    ]
    assert not typed, "take these from a cell with {glue:text}, or cite:\n" + "\n".join(typed)


@pytest.mark.parametrize(
    "path", [*PAGES, *sorted(BOOK.glob("*.ipynb"))], ids=lambda path: path.name
)
def test_no_path_of_the_machine_that_ran_it(path):
    found = MACHINE_PATH.search(read(path))
    assert not found, read(path)[max(0, found.start() - 40) : found.end() + 40]


# ---- the table of contents ----


def test_table_of_contents_lists_every_page_once():
    toc = yaml.safe_load(read(ROOT / "_toc.yml"))
    listed = [toc["root"]]
    for part in toc["parts"]:
        listed += [entry["file"] for entry in part["chapters"]]
    expected = [f"book/{page.stem}" + ".ipynb" * (page in TEXTS) for page in PAGES]
    assert sorted(listed) == sorted(expected)
