"""Write what nobody types: results, claims, equations, timings, the questions of a chapter.

python tools/make_pages.py            write those pages in book/, and the results of the README
python tools/make_pages.py --check    write nothing; fail if a page is not current

Sources: book/claims.toml and ramlib/records; book/equations.toml and the docstrings of the package
and of its tests; book/timings.json, which tools/run_chapters.py writes; book/questions.toml.
"""

import argparse
import ast
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import questions

from ramlib._files import write_atomically
from ramlib.experiments import localisation, records, tables, trials

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
TIMINGS = BOOK / "timings.json"
GPU = BOOK.parent / "benchmarks" / "gpu.json"
NOTE = "<!-- Written by tools/make_pages.py: edit its sources and run it again. -->"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# ---- claims ----


class Value(NamedTuple):
    """A measured number, in percent where `unit` says so, with its interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        """Two decimals, the interval in brackets."""
        interval = "" if self.low is None else f" ({self.low:.2f} to {self.high:.2f})"
        return f"{self.value:.2f}{self.unit}{interval}"


def read_claims() -> list[dict[str, Any]]:
    return tomllib.loads((BOOK / "claims.toml").read_text(encoding="utf-8"))["claims"]


def measured(name: str, metric: str) -> Value | None:
    """A metric of a recipe's record, or of a short training; None before it is measured.

    Raises:
        KeyError: if the record has no such metric.
    """
    ledger = records.read_all()
    rows = trials.read_all() | localisation.read_rows()
    if name in ledger:
        found = ledger[name]["metrics"].get(metric)
    elif name in rows:
        found = rows[name][metric]
    else:
        return None
    if isinstance(found, dict):
        return Value(found["value"], found["low"], found["high"], " %")
    return None if found is None else Value(found)


def quantity(claim: dict[str, Any]) -> Value | None:
    """What a claim is judged by: a measured value, or the ratio of two.

    Of two learning curves, it is the ratio of updates to the same error.
    """
    if "of" not in claim:
        return None
    if claim["of"][1] == "curve":
        rows = trials.read_all()
        slow, fast = (rows.get(claim[key][0]) for key in ("of", "over"))
        return Value(trials.speed_up(slow, fast)) if slow and fast else None
    value = measured(*claim["of"])
    if "over" not in claim or value is None:
        return value
    divisor = measured(*claim["over"])
    return None if divisor is None else Value(value.value / divisor.value)


def verdict(claim: dict[str, Any]) -> str:
    """Whether a claim was `reached`, `not reached` or `not measured`."""
    ours = quantity(claim)
    if ours is None:
        return "not measured"
    low, high = claim.get("at_least", float("-inf")), claim.get("at_most", float("inf"))
    return "reached" if low <= ours.value <= high else "not reached"


VERDICTS = ("reached", "not reached", "not measured")


def tally(claims: list[dict[str, Any]]) -> list[int]:
    """How many claims have each verdict."""
    found = [verdict(claim) for claim in claims]
    return [found.count(word) for word in VERDICTS]


def tally_in_words() -> str:
    """One sentence for README, landing page and ledger."""
    claims = read_claims()
    reached, missed, open_ = tally(claims)
    return (
        f"Of the {len(claims)} numbers and claims of the paper, {reached} are reached here, "
        f"{missed} are not reached, and {open_} are not measured."
    )


def coloured(word: str) -> str:
    """A verdict as a badge, whose colour says no more than its word does."""
    kind = dict(zip(VERDICTS, ("success", "danger", "secondary"), strict=True))[word]
    return f"{{bdg-{kind}}}`{word}`"


def results() -> str:
    """A few results and what is missing: README and landing page show them."""
    shown = tables.headlines()
    rows = table(list(shown.columns), [list(row) for row in shown.itertuples(index=False)])
    return f"{rows}\n\n{tally_in_words()}"


def claims_page() -> str:
    claims = read_claims()
    sections = defaultdict(list)
    for claim in claims:
        sections[claim["section"]].append(claim)
    summary = [[name, *map(str, tally(members))] for name, members in sections.items()]
    parts = [
        NOTE,
        "(claims)=\n# Claims ledger",
        "Every number and every claim of {cite:t}`semeniuta2016image`, and what became of it here. "
        "A claim is *reached* if what we measured is at least as good as the paper's number or, "
        "where the paper gives none, meets the reading stated beside it. The number in front of "
        "the brackets decides; the brackets hold its 95 % interval. What was not measured is "
        "listed all the same. Rows of other work are listed because the paper's tables hold them.",
        tally_in_words(),
        table(["Section", *map(coloured, VERDICTS)], summary),
    ]
    for section, members in sections.items():
        rows = []
        for claim in members:
            ours = quantity(claim)
            says = claim["says"] + (f" *(here: {claim['ours']})*" if "ours" in claim else "")
            source = " / ".join(f"`{claim[key][0]}`" for key in ("of", "over") if key in claim)
            shown = "" if ours is None else str(ours)
            rows.append([says, claim.get("paper", ""), shown, coloured(verdict(claim)), source])
        head = ["Claim", "{cite:t}`semeniuta2016image`", "Ours", "Verdict", "Recipe"]
        parts += [f"## {section}", table(head, rows)]
    parts += ["## What each result took", costs()]
    return "\n\n".join(parts) + "\n"


def costs() -> str:
    """How to get every measured number again, and what it cost."""
    ledger = records.read_all()
    if not ledger:
        return "Nothing is measured yet."
    rows = [
        [
            # What joins two others is not trained: its cost is theirs.
            f"`make train RECIPE={name}`" if record["updates"] else f"`ramlib evaluate {name}`",
            f"{record['updates']:,}",
            f"{record['images_seen']:,}",
            f"{record['wall_s'] / 60:.0f}",
            record["machine"],
            str(record["seed"]),
            record["date"],
        ]
        for name, record in ledger.items()
    ]
    head = ["Command", "Updates", "Images seen", "Minutes", "Machine", "Seed", "Date"]
    text = (
        "The command trains a recipe; `ramlib evaluate NAME` measures what ships. "
        "A recipe that starts from another's weights counts its own cost alone; "
        "what joins two others counts theirs."
    )
    return f"{text}\n\n{table(head, rows)}"


# ---- equations ----

Equation = tuple[str, int]  # paper, number

_CITED = re.compile(r"\b[Ee]qs?\. ((?:\d+(?:-\d+)?(?:, | and )?)+)([^;]{0,40})")


def cited(docstring: str, papers: dict[str, str]) -> set[Equation]:
    """The equations that a docstring names; those without an author are the paper's own."""
    flat = " ".join(docstring.split())
    own, *others = papers
    found = set()
    for match in _CITED.finditer(flat):
        by = [key for key in others if match[2].lstrip(" ,").startswith(papers[key])]
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", match[1]):
            numbers = range(int(first), int(last or first) + 1)
            found |= {((by or [own])[0], number) for number in numbers}
    return found


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Every module, class and function of a file that has a docstring: `("Class.method", text)`."""

    def walk(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
        if text := ast.get_docstring(node):
            yield name, text
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                yield from walk(child, f"{name}.{child.name}" if name else child.name)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), "")


def index(folder: Path, papers: dict[str, str]) -> dict[Equation, list[tuple[Path, str]]]:
    """Equation -> where it is named, over all Python files of a folder."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for name, text in docstrings(path):
            for equation in cited(text, papers):
                found[equation].append((path, name))
    return found


class EquationRow(NamedTuple):
    """One line of the index."""

    paper: str
    numbers: list[int]
    says: str
    chapter: str
    label: str
    objects: list[str]
    tests: list[str]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def read_equations() -> tuple[dict[str, str], list[EquationRow], set[Equation]]:
    """The papers, the lines of the index, and the equations that are named but not in it."""
    source = tomllib.loads((BOOK / "equations.toml").read_text(encoding="utf-8"))
    papers = source["papers"]
    in_package, in_tests = index(ROOT / "ramlib", papers), index(ROOT / "tests", papers)
    rows, listed = [], set()
    for entry in source["equation"]:
        keys = [(entry["paper"], number) for number in entry["numbers"]]
        listed.update(keys)
        objects = [
            ".".join(filter(None, (module_name(path), name)))
            for key in keys
            for path, name in in_package[key]
        ]
        tests = [
            f"{path.name}: {name.split('.')[-1]}"
            for key in keys
            for path, name in in_tests[key]
            if name.split(".")[-1].startswith("test_")
        ]
        rows.append(
            EquationRow(
                **{key: entry[key] for key in ("paper", "numbers", "says", "chapter", "label")},
                objects=list(dict.fromkeys(objects)),
                tests=list(dict.fromkeys(tests)),
            )
        )
    missing = {key for key in (*in_package, *in_tests) if key not in listed}
    return papers, rows, missing


def equations_page() -> str:
    papers, rows, _ = read_equations()

    def numbered(row: EquationRow) -> str:
        return ", ".join(f"({number})" for number in row.numbers)

    def code(names: list[str]) -> str:
        return ", ".join(f"{{py:obj}}`{name}`" for name in names)

    parts = [
        NOTE,
        "(equations)=\n# Equation index",
        "From an equation to the object that computes it, the chapter that explains it and the "
        "test that holds it, and back. Objects and tests are found by their docstrings.",
        "## From equation to object",
    ]
    for paper in papers:
        lines = [
            [
                numbered(row),
                row.says,
                code(row.objects),
                f"{{doc}}`{row.chapter}`, {{eq}}`{row.label}`",
                ", ".join(f"`{test}`" for test in row.tests),
            ]
            for row in rows
            if row.paper == paper
        ]
        head = ["Equation", "It says", "Object", "Chapter", "Test"]
        parts += [f"### {{cite:t}}`{paper}`", table(head, lines)]
    back = defaultdict(list)
    for row in rows:
        for name in row.objects:
            back[name].append(f"{numbered(row)} of {{cite:t}}`{row.paper}`")
    lines = [[code([name]), "; ".join(where)] for name, where in sorted(back.items())]
    parts += ["## From object to equation", table(["Object", "Equations"], lines)]
    return "\n\n".join(parts) + "\n"


# ---- API ----

# The package in the order in which data flow through it.
GROUPS = {
    "The core": ("glimpse", "attention", "networks", "recurrence", "interface", "model"),
    "Tasks, labels, devices, figures": ("tasks", "labels", "device", "plots"),
    "Models built from the core": ("models/*",),
    "Baselines": ("baselines/*",),
    "Where images come from": ("data/*", "data/twins/*"),
    "Experiments": ("experiments/*", "cli"),
}


def modules(patterns: tuple[str, ...]) -> list[str]:
    """Public modules, by patterns of paths in the package."""
    folder = ROOT / "ramlib"
    found = [path for pattern in patterns for path in sorted(folder.glob(f"{pattern}.py"))]
    return [module_name(path) for path in found if not path.name.startswith("_")]


def api_page(module: str) -> str:
    head = f"# {module.removeprefix('ramlib.')}"
    # Of the command line, its help is the reference.
    members = "" if module == "ramlib.cli" else "   :members:\n"
    return f"{NOTE}\n\n{head}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{members}```\n"


def api_index() -> str:
    parts = [
        NOTE,
        "(api)=\n# API reference",
        "A page a module, in the order in which data flow through the package. What most readers "
        "need is the front door. Every function names the rule that bad input broke.",
        "## The front door",
        "```{eval-rst}\n.. autosummary::\n   :nosignatures:\n\n"
        "   ~ramlib.experiments.weights.load\n"
        "   ~ramlib.experiments.weights.shipped\n"
        "   ~ramlib.experiments.recipe.Recipe\n"
        "   ~ramlib.model.RAMConfig\n"
        "   ~ramlib.model.RecurrentAttentionModel\n"
        "   ~ramlib.interface.Classifier\n"
        "   ~ramlib.interface.Rollout\n"
        "   ~ramlib.glimpse.GlimpseGrid\n"
        "   ~ramlib.glimpse.gaussian_filterbank\n"
        "   ~ramlib.glimpse.read_glimpse\n"
        "   ~ramlib.device.best_device\n```",
        "All of these can be imported from `ramlib` itself, and so can `RECIPES`, the recipes by "
        "their names.",
    ]
    for group, patterns in GROUPS.items():
        listed = [
            f"- {{doc}}`{name.removeprefix('ramlib.')} <api/{name}>`: {first_line(name)}"
            for name in modules(patterns)
        ]
        parts += [f"## {group}", "\n".join(listed)]
    return "\n\n".join(parts) + "\n"


def first_line(module: str) -> str:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]


# ---- timings ----


def timings_page() -> str:
    timings = json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.is_file() else {}
    rows = [
        [f"{{doc}}`{name}`", f"{entry['seconds']:.0f}", entry["machine"], entry["date"]]
        for name, entry in sorted(timings.items())
    ]
    shown = table(["Chapter", "Seconds", "Machine", "Date"], rows) if rows else "None is timed yet."
    parts = [
        NOTE,
        "(timings)=\n# Timings",
        "How long each chapter ran when its outputs were last made with `make chapters`, from "
        "the first cell to the last, and on which machine. What the trained models took is in "
        "the {doc}`claims`.",
        shown,
        *gpu_timings(),
    ]
    return "\n\n".join(parts) + "\n"


def gpu_timings() -> list[str]:
    """What `make gpu` measured, where it ran; nothing before that."""
    if not GPU.is_file():
        return []
    found = json.loads(GPU.read_text(encoding="utf-8"))
    steps = [
        [
            name,
            *(
                "failed" if row[key] is None else f"{row[key]:.{digits}f}"
                for key, digits in (("step, ms", 2), ("images/s", 0))
            ),
        ]
        for name, row in found["ways"].items()
    ]
    looks = [
        [pixels, *(f"{row[key]:.3f}" for key in ("full, ms", "windowed, ms"))]
        for pixels, row in found["read"].items()
    ]
    return [
        "## On a GPU",
        f"What `make gpu` measured on one {found['machine']} with torch {found['torch']}, "
        f"{found['date']}: a training step of `digit-context` in bfloat16, and a look, forward and "
        "backward, at eight images.",
        table(["Training step", "Milliseconds", "Images a second"], steps),
        table(["Image", "Whole image, ms", "Window alone, ms"], looks),
    ]


def readme() -> str:
    """The README, with its results filled in."""
    before, rest = (ROOT / "README.md").read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{results()}\n{END}{rest.split(END)[1]}"


BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
PAGES = {
    "../README.md": readme,
    "fragments/results.md": lambda: f"{results()}\n",
    "claims.md": claims_page,
    "equations.md": equations_page,
    "timings.md": timings_page,
    "api.md": api_index,
    **{
        f"api/{m}.md": partial(api_page, m)
        for patterns in GROUPS.values()
        for m in modules(patterns)
    },
    **{f"questions/{name}.md": partial(questions.page, name) for name in questions.read()},
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a page is not current")
    options = parser.parse_args(arguments)
    stale = 0
    for name, make in PAGES.items():
        path, text = (BOOK / name).resolve(), make()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if options.check:
            print(f"{path.relative_to(ROOT)} is not current; run: python tools/make_pages.py")
        else:
            write_atomically(path, lambda part, text=text: part.write_text(text, encoding="utf-8"))
            print(path.relative_to(ROOT))
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
